"""The time of a model as what `choose` counts: predicted to search, measured to settle."""

import warnings
from collections.abc import Callable

import numpy as np

from .._surgery.compact import cut_tree, narrowed
from .._units import Units, structs
from .rank_units import ranks
from .time_table import TimeTable, shared_table

Keep = dict[str, np.ndarray]

MULTIPLES = (4, 8, 16, 32)
"""Of lanes of a processor, to which a set is widened."""

TRIALS = 4
TOLERANCE = 0.02


class Milliseconds:
    """The time of a function without some of its units, predicted from parts, and measured as a whole."""

    def __init__(self, units: Units, params, times: TimeTable | None):
        self._units, self._whole = units, structs(params)
        self._table = shared_table() if times is None else times
        self._predicted: dict[tuple, float] = {}

    def predicted(self, keep: Keep) -> float:
        key = tuple((name, mask.tobytes()) for name, mask in keep.items() if not mask.all())
        if key not in self._predicted:
            self._predicted[key] = self._table.predicted(*self._model(keep))
        return self._predicted[key]

    def measured(self, keep: Keep) -> float:
        return self._table.measured(*self._model(keep))

    def _model(self, keep: Keep) -> tuple:
        number = {name: mask for name, mask in keep.items() if not mask.all()}
        fn = narrowed(self._units, number, self._whole) if number else self._units.fn
        return fn, cut_tree(self._units, number, self._whole), *self._units.arguments


def in_time(model: Milliseconds, goal: float, attempt: Callable[[Callable[[Keep], float]], Keep]) -> Keep:
    """The first attempt that takes no longer than the goal when it is run.

    Parts that run one by one pay for what a program of all of them does not, or the other way round. So predictions are
    multiplied by measured over predicted of the whole model, and then of what was chosen last.

    Args:
      model: what predicts and measures.
      goal: milliseconds.
      attempt: (keep → milliseconds) → keep, the choice by these predictions.
    """
    scale = model.measured({}) / model.predicted({})
    for _ in range(TRIALS):
        keep = attempt(lambda keep, scale=scale: scale * model.predicted(keep))
        taken = model.measured(keep)
        if taken <= goal * (1 + TOLERANCE):
            return keep
        scale = max((1 + TOLERANCE) * scale, taken / model.predicted(keep))
    warnings.warn(
        f"the model that was chosen takes {taken:.4g} ms where {goal:.4g} are allowed, after {TRIALS} choices: times "
        "scatter while other work runs on this machine. Choose again when it is idle, with times=TimeTable().",
        stacklevel=3,
    )
    return keep


def widened(
    keep: Keep,
    places: dict[str, np.ndarray],
    fits: Callable[[Keep], bool],
    round_to: int,
    bounds: dict[str, tuple[int, int]],
) -> Keep:
    """With units taken back where all still fits, a step at a time in the set that has the smallest share of its own.

    Args:
      keep: {set: bool for each unit}.
      places: {set: the place of each unit in the order}; a set gets its first ones.
      fits: whether a choice is within what is allowed.
      round_to, bounds: as in `choose`.
    """
    keep, most = dict(keep), {name: min(bounds[name][1], len(mask)) for name, mask in keep.items()}
    width = lambda name: int(keep[name].sum())
    open_sets = [name for name in keep if width(name) < most[name]]
    while open_sets:
        name = min(open_sets, key=lambda name: width(name) / len(keep[name]))
        for number in _wider(width(name), len(keep[name]), most[name], round_to):
            trial = {**keep, name: ranks(places[name]) < number}
            if fits(trial):
                keep = trial
                break
        else:
            open_sets.remove(name)
        open_sets = [name for name in open_sets if width(name) < most[name]]
    return keep


def _wider(width: int, size: int, most: int, round_to: int) -> list[int]:
    """Widths to try, the next first: a sixteenth more, and the next multiples, which may take less time."""
    step = max(round_to, size // 16)
    numbers = {width + step, size, *(-(-(width + 1) // multiple) * multiple for multiple in MULTIPLES)}
    return sorted(n for n in numbers if width < n <= most and (n % round_to == 0 or n == size))
