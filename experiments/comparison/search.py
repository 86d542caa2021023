"""The settings of a comparison: those that are tried, and those that are chosen on the validation images."""

import dataclasses
import itertools
import math
from collections.abc import Iterable

import numpy as np
from scipy.stats import qmc

from .config import Comparison
from .methods import METHODS
from .results import JobResults, Setting


@dataclasses.dataclass(frozen=True)
class Choice:
    """A row of a comparison: a method, the setting and the order of the cut that it is shown with."""

    name: str
    method: str
    setting: Setting
    order: str = "magnitude"
    fine_tuned: bool = False

    @property
    def of(self) -> str:
        """What its results at a sparsity are of."""
        return "fine-tuned" if self.fine_tuned else "W"


def sparsities_run(config: Comparison, method: str, sparsities: tuple[float, ...]) -> tuple[float | None, ...]:
    """The sparsities that take a run each."""
    return (None,) if METHODS[method].cuts else sparsities


def searched(config: Comparison, method: str) -> list[Setting]:
    """The settings of the trials: points of a Halton sequence, spread over the logarithms of the search space."""
    fixed = dict(config.fixed)
    ranges = {**METHODS[method].search, **config.ranges_of(method)}
    own = config.ranges_of(method)
    search = {name: span for name, span in ranges.items() if name in own or name not in fixed}
    given = {name: fixed.get(name, value) for name, value in METHODS[method].fixed.items() if name not in search}
    given |= {name: fixed[name] for name in METHODS[method].search if name in fixed and name not in search}
    if not search:
        return [_setting(given)]
    points = qmc.Halton(len(search), rng=np.random.default_rng(config.tune_seed)).random(config.trials)
    at = lambda span, part: float(f"{span[0] * (span[1] / span[0]) ** part:.4g}")
    return [
        _setting(given | {name: at(span, part) for (name, span), part in zip(search.items(), point, strict=True)})
        for point in points
    ]


def settled(config: Comparison, method: str) -> list[Choice]:
    """The rows of a method of which there is nothing to choose; none where trials decide."""
    settings = searched(config, method)
    if len(settings) > 1 or METHODS[method].split_lbi:
        return []
    rows = [Choice(method, method, settings[0])]
    if config.fine_tune and METHODS[method].cuts:
        rows.append(Choice(f"{method}, fine-tuned", method, settings[0], fine_tuned=True))
    return rows


def grid(config: Comparison, method: str) -> list[Choice]:
    """A row for every combination of the numbers of a grid; what is neither in it nor fixed is an error."""
    names = [name for name, _ in config.grid]
    fixed = dict(METHODS[method].fixed) | dict(config.fixed)
    rows = []
    for values in itertools.product(*(values for _, values in config.grid)):
        label = " ".join(f"{name}={value:g}" for name, value in zip(names, values, strict=True))
        setting = _setting(fixed | dict(zip(names, values, strict=True)))
        rows.append(Choice(f"{method} {label}", method, setting))
    return rows


def choose(config: Comparison, trials: Iterable[JobResults]) -> list[Choice]:
    """For each method, and for it fine-tuned, the row of the best mean validation accuracy at `judged_at`."""
    judged = config.judged_at or (None,)
    scores: dict[Choice, list[float]] = {}
    for trial in trials:
        for result in trial.results:
            if result.of != "W̃" and result.sparsity in judged:
                tuned = result.of == "fine-tuned"
                name = trial.job.method + (", fine-tuned" if tuned else "")
                choice = Choice(name, trial.job.method, trial.job.setting, result.order, tuned)
                scores.setdefault(choice, []).append(result.validation)
    best: dict[str, Choice] = {}
    mean = lambda choice: math.fsum(scores[choice]) / len(scores[choice])
    for choice in scores:
        if choice.name not in best or mean(choice) > mean(best[choice.name]):
            best[choice.name] = choice
    return list(best.values())


def _setting(numbers: dict[str, float]) -> Setting:
    return tuple(sorted(numbers.items()))
