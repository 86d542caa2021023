"""`choose`: the units to keep, from an order of them and a size that the model may have."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from ..._checks import check_count, check_not_nan, check_share
from ..._selection import Criterion
from ..._words import check_patterns, check_protect, one_of, shown
from .._analysis.remembered import analysis_of
from .._units import Units, check_units, structs
from .count import counts
from .milliseconds import Milliseconds, in_time, widened
from .rank_units import rank_units, ranks
from .time_table import TimeTable


def choose(
    units: Units,
    params,
    opt_state=None,
    *,
    sparsity: float | None = None,
    at_most: float | None = None,
    target: Literal["units", "parameters", "macs", "bytes", "ms"] = "units",
    order: Criterion | dict[str, np.ndarray] = "dual",
    scope: Literal["global", "layer"] = "global",
    floor: float = 0.25,
    round_to: int = 1,
    minimum: float | dict[str, float] = 1,
    maximum: float | dict[str, float] | None = None,
    protect: Sequence[str] = (),
    times: TimeTable | None = None,
) -> dict[str, np.ndarray]:
    """The units to keep so that the model has at most a given size, the last of the order removed first.

    Where one order of all sets keeps m of the n units of a set, and a share s of all units, the set keeps

        max(minimum, ⌈(1 − floor)·m + floor·s·n⌉)

    With floor = 0 the order alone decides, and may leave a layer that is in use with a single unit; with floor = 1
    every set keeps the same share, as in the scope "layer".

    Time does not fall evenly with the width. For "ms", after the fewest units whose removal suffices are gone, the sets
    are widened again as far as the time allows, the one with the smallest share of its units first, by steps and to the
    next multiples of 4, 8, 16 and 32: a width of 16 that takes no longer than 13 is taken. The model that is chosen was
    measured as a whole; where it takes more than 2 % too long, the choice is made again with that in mind.

    Args:
      units, params, opt_state: as in `compact`.
      sparsity: the share of `target` to remove, in (0, 1).
      at_most: in its place, what may be left: a share in (0, 1) of what the whole model has, or a number of at least 1.
      target: of what: "units"; "parameters" of the function, or their "bytes"; "macs", its multiply-adds (see `count`);
        "ms", its time on the default device for arguments as those of `find_units` (give that a batch of the size that
        counts), predicted from measured parts (see `TimeTable`).
      order: see `pm.rank`; or {set: numbers}, smallest first. Without `opt_state`: "magnitude".
      scope: "global": one order of the units of all sets, with the `floor`; "layer": every set gives up the same share,
        which suits orders that do not compare between layers (magnitudes) and hurts small layers.
      floor: in [0, 1], see above; only for the scope "global".
      round_to: the number of units that a set keeps is rounded up to a multiple of it (8 for tensor cores).
      minimum: a set keeps at least so many units, or a share of them in (0, 1); for all sets, or {regular expression:
        number} by set, the first that matches its name (1 for the others).
      maximum: a set keeps at most so many; likewise.
      protect: regular expressions; sets whose names they match are kept whole. So are sets that are `reduced`.
      times: for "ms": the table to use and to fill; None: that of this process.

    Returns:
      {set: bool for each unit}, for `compact`; sets that are kept whole are left out.

    Raises:
      ValueError: a target that cannot be reached (with what can be); a share, number or pattern out of range; and as
        `pm.rank`.

    Examples:
      >>> import jax, jax.numpy as jnp, parsimony as pm
      >>> params = {"w1": jnp.array([[1.0, 3.0, 2.0, 4.0]]), "w2": jnp.ones((4, 2))}
      >>> fn = lambda p, x: jax.nn.relu(x @ p["w1"]) @ p["w2"]
      >>> units = pm.structure.find_units(fn, params, jnp.ones((2, 1)))
      >>> pm.structure.choose(units, params, sparsity=0.5, order="magnitude")["w1"].tolist()
      [False, True, False, True]
    """
    check_units("choose(units, params, opt_state, sparsity=0.5)", units, params, opt_state)
    one_of("target", target, ("units", "parameters", "macs", "bytes", "ms"))
    one_of("scope", scope, ("global", "layer"))
    check_count("round_to", round_to)
    if not isinstance(floor, int | float) or isinstance(floor, bool) or not 0 <= floor <= 1:
        raise ValueError(f"floor={floor!r}: expected a share in [0, 1]; 0 for the order alone.")
    if times is not None and (target != "ms" or not isinstance(times, TimeTable)):
        raise ValueError(f"times={shown(times)}, target={target!r}: expected a TimeTable, with target='ms'.")
    at_most = _allowed(sparsity, at_most, target)
    check_protect(protect, list(units.sets))
    given = order if isinstance(order, dict) else rank_units(units, params, opt_state, order)
    scores = {}
    for name, numbers in given.items():
        numbers = np.asarray(numbers, float)
        if name not in units.sets or numbers.shape != (units.sets[name].size,):
            raise ValueError(f"order[{name!r}]: expected a number for each unit of a set of {list(units.sets)[:8]}.")
        check_not_nan("order", numbers, name)
        if not units.sets[name].reduced and not any(re.search(pattern, name) for pattern in protect):
            scores[name] = numbers
    if not scores:
        raise ValueError("nothing to choose from: every set is protected, not exact or without an order.")

    bounds = _bounds(units, scores, minimum, maximum)
    places = _places(scores, scope)
    total = sum(map(len, scores.values()))
    cut = lambda removed: _keep(places, removed, floor if scope == "global" else 0.0, round_to, bounds)

    def fewest(measure) -> dict[str, np.ndarray]:
        """Of the order, the fewest units whose removal suffices."""
        if (least := measure(cut(total))) > goal:
            asked = f"at_most={at_most!r}" if sparsity is None else f"sparsity={sparsity!r}"
            raise ValueError(
                f"{asked}: the least that this order can leave is {least:,.9g} of {measure({}):,.9g} {target} "
                f"(minimum={minimum!r}, round_to={round_to}, {len(scores)} of {len(units.sets)} sets)."
            )
        low, high = -1, total  # in (low, high]
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if measure(cut(middle)) <= goal else (middle, high)
        return cut(high)

    if target == "ms":
        model = Milliseconds(_with_function(units, target), params, times)
        goal = at_most * model.measured({}) if at_most < 1 else at_most
        widest = lambda measure: widened(fewest(measure), places, lambda k: measure(k) <= goal, round_to, bounds)
        keep = in_time(model, goal, widest)
    else:
        measure = _measure(units, params, target)
        goal = at_most * measure({}) if at_most < 1 else at_most
        keep = fewest(measure)
    return {name: mask for name, mask in keep.items() if not mask.all()}


def _allowed(sparsity, at_most, target: str) -> float:
    """What may be left, as a share in (0, 1) or a number of at least 1."""
    if (sparsity is None) == (at_most is None):
        raise ValueError(
            f"sparsity={sparsity!r}, at_most={at_most!r}: expected one of the two, such as sparsity=0.5 to remove half "
            f"of the {target} or at_most=0.5 to keep half."
        )
    if sparsity is not None:
        return float(1 - check_share("sparsity", sparsity, f"the share of the {target} to remove"))
    if not isinstance(at_most, int | float | np.number) or isinstance(at_most, bool) or not at_most > 0:
        raise ValueError(f"at_most={at_most!r}: expected a share in (0, 1), or a number of {target} of at least 1.")
    return at_most if isinstance(at_most, int) else float(at_most)


def _bounds(units: Units, scores: dict[str, np.ndarray], minimum, maximum) -> dict[str, tuple[int, int]]:
    """{set: the least and the most units that it may keep}."""
    low, high = (_by_set(units, where, rules) for where, rules in (("minimum", minimum), ("maximum", maximum)))
    bounds = {name: (low.get(name, 1), high.get(name, len(x))) for name, x in scores.items()}
    for name, (least, most) in bounds.items():
        if most < least <= len(scores[name]):
            raise ValueError(f"set {name!r}: minimum {least} is above maximum {most}.")
    return bounds


def _by_set(units: Units, where: str, rules) -> dict[str, int]:
    """{set: number of units} of a number or share for all sets, or of rules by name; sets without one are left out."""
    by_pattern = rules if isinstance(rules, dict) else {} if rules is None else {"": rules}
    check_patterns(where, by_pattern, list(units.sets))
    for pattern, number in by_pattern.items():
        if not (isinstance(number, int | float | np.number) and 0 < number < 1):
            check_count(
                f"{where}[{pattern!r}]" if pattern else where, number, "a share in (0, 1) or an int of at least 1"
            )
    found = {}
    for name, unit_set in units.sets.items():
        number = next((value for pattern, value in by_pattern.items() if re.search(pattern, name)), None)
        if number is not None:
            found[name] = math.ceil(number * unit_set.size) if number < 1 else int(number)
    return found


def _places(scores: dict[str, np.ndarray], scope: str) -> dict[str, np.ndarray]:
    """For each unit its place in the one order in which units are kept."""
    if scope == "layer":  # each set by itself, in equal shares
        scores = {name: (ranks(x) + 0.5) / len(x) for name, x in scores.items()}
    place = ranks(np.concatenate(list(scores.values())))
    return dict(zip(scores, np.split(place, np.cumsum([len(x) for x in scores.values()])[:-1]), strict=True))


def _keep(
    places: dict[str, np.ndarray], removed: int, floor: float, round_to: int, bounds: dict[str, tuple[int, int]]
) -> dict[str, np.ndarray]:
    """All but the last `removed` units of the order, within what floor, multiples and bounds ask for."""
    total = sum(map(len, places.values()))
    keep = {}
    for name, place in places.items():
        least, most = bounds[name]
        alike = (total - removed) / total * len(place)
        left = math.ceil((1 - floor) * int((place < total - removed).sum()) + floor * alike - 1e-9)
        left = min(max(left, least), most)
        left = min(-(-left // round_to) * round_to, len(place))
        keep[name] = ranks(place) < left
    return keep


def _measure(units: Units, params, target: str) -> Callable[[dict[str, np.ndarray]], int]:
    if target == "units":
        total = sum(unit_set.size for unit_set in units.sets.values())
        return lambda keep: total - sum(int((~mask).sum()) for mask in keep.values())
    whole = structs(params)
    found = analysis_of(_with_function(units, target), whole, units.arguments)
    return lambda keep: getattr(counts(found, whole, keep), target)


def _with_function(units: Units, target: str) -> Units:
    if units.fn is None or not units.arguments:
        raise ValueError(f"target={target!r} needs the function: these units came from JSON; call find_units.")
    return units
