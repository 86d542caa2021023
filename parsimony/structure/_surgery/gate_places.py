"""Where the gates of a set of units lie: on slices whose zero is the removal of the unit, proved on the program.

Of four places the first that is exact is taken:

    readers   what takes the units' activations in: between the layer that makes a unit and all that reads it
    terms     what makes the activations, but no scales of norms: a stream that is read through RMSNorm
    makers    all that makes them: a stream whose normalisation (LayerNorm) turns zeros into something else
    all       everything: weights that are centred or normalised over the units

Where nothing reads a unit, as with the features of queries and keys, which meet in a product, one factor is enough: a
gate is then taken off whatever leaves the zero exact.
"""

from collections.abc import Callable

import numpy as np

from .._analysis.analyse import Analysis
from .._units import Units, UnitSet
from .silence import inexact

Place = tuple[str, int]
Slices = dict[Place, np.ndarray]
"""{(parameter, axis): for each index the unit whose gate multiplies the slice, −1 for none}."""

_WHERE = ("readers", "terms", "makers", "all")


def gate_places(
    units: Units, found: Analysis, names: list[str], takes_none: dict[str, str]
) -> tuple[dict[str, Slices], dict[str, str]]:
    """The slices of each set that has an exact place, and of the others the reason why there is none.

    `takes_none`: {parameter: why it cannot carry a gate}.
    """
    places: dict[str, Slices] = {}
    reasons: dict[str, str] = {}
    for together in _disjoint([units.sets[name] for name in names]):
        exact, without = _exact(units, found, together, takes_none)
        places |= _lighter(units, found, exact)
        reasons |= without
    return {name: places[name] for name in names if name in places}, reasons


def _exact(
    units: Units, found: Analysis, together: list[UnitSet], takes_none: dict[str, str]
) -> tuple[dict[str, Slices], dict[str, str]]:
    """Of each set the first place that is exact, or the reason why the last one is not."""
    slices: dict[str, Slices] = {}
    without: dict[str, str] = {}
    for where in _WHERE:
        tried = {s.name: _slices(found, s, where, takes_none) for s in together if s.name not in slices}
        wrong = _inexact(units, found, tried)
        slices |= {name: mine for name, mine in tried.items() if name not in wrong}
        without |= wrong
    for unit_set in together:
        held = [f"{name!r} {takes_none[name]}" for name in unit_set.members if name in takes_none]
        if held and unit_set.name not in slices:
            without[unit_set.name] += f" ({'; '.join(held)})"
    return slices, {name: reason for name, reason in without.items() if name not in slices}


def _slices(found: Analysis, unit_set: UnitSet, where: str, takes_none: dict[str, str]) -> Slices:
    def carries(name: str, axis: int) -> bool:
        has = lambda mark: found.marked(mark, name, axis)
        if name in takes_none:
            return False
        if where == "readers" or (name, axis) not in unit_set.makers:
            return where in ("readers", "all") and (name, axis) not in unit_set.makers
        if has("kernel"):
            return True
        return not has("divisor") and (where != "terms" or has("term"))

    return {
        (name, axis): unit
        for name, axes in unit_set.members.items()
        for axis, unit in axes.items()
        if carries(name, axis)
    }


def _inexact(units: Units, found: Analysis, slices: dict[str, Slices]) -> dict[str, str]:
    """Of these sets, which share no slices, those that zeros there do not take out, and what is in the way."""
    zero: Slices = {}
    for name, mine in slices.items():
        for parameter, axes in units.sets[name].members.items():
            for axis, unit in axes.items():
                carried = mine.get((parameter, axis), np.full(unit.shape, -1)) >= 0
                before = zero.get((parameter, axis), np.ones(unit.shape, bool))
                zero[parameter, axis] = before & (carried | (unit < 0))
    _, solution, causes = inexact(units, found, zero, singular=True)
    assert np.array_equal(solution.classes, found.solution.classes)  # the atoms of both walks have the same numbers
    wrong = {name: [causes[atom] for atom in found.atoms[name].tolist() if atom in causes] for name in slices}
    return {name: reasons[0] for name, reasons in wrong.items() if reasons}


def _lighter(units: Units, found: Analysis, exact: dict[str, Slices]) -> dict[str, Slices]:
    """Where nothing reads the units, without the slices that are not needed."""
    unread = [
        name for name in exact if len(units.sets[name].makers) == sum(map(len, units.sets[name].members.values()))
    ]
    ways = {name: [*(_without(place) for place in exact[name]), _half, _every_other] for name in unread}
    for step in range(max(map(len, ways.values()), default=0)):
        tried = {name: left for name in unread if step < len(ways[name]) and (left := ways[name][step](exact[name]))}
        wrong = _inexact(units, found, tried) if tried else {}
        exact = exact | {name: left for name, left in tried.items() if name not in wrong}
    return exact


def _without(place: Place) -> Callable[[Slices], Slices]:
    return lambda mine: {other: unit for other, unit in mine.items() if other != place}


def _half(mine: Slices) -> Slices:
    """The second half of each unit's indices: the keys of a kernel that makes queries, then keys."""
    return _of_each_unit(mine, lambda number, count: number >= count // 2)


def _every_other(mine: Slices) -> Slices:
    """The same where they alternate, head by head."""
    return _of_each_unit(mine, lambda number, count: number % 2 == 1)


def _of_each_unit(mine: Slices, chosen) -> Slices:
    left = {}
    for place, unit in mine.items():
        count = np.bincount(unit[unit >= 0])
        if (count % 2).any():
            return {}
        inside = np.flatnonzero(unit >= 0)
        inside = inside[np.argsort(unit[inside], kind="stable")]  # unit by unit
        number = np.arange(len(inside)) - np.repeat(np.cumsum(count) - count, count)
        inside = inside[chosen(number, np.repeat(count, count))]
        left[place] = np.full(len(unit), -1)
        left[place][inside] = unit[inside]
    return left


def _disjoint(sets: list[UnitSet]) -> list[list[UnitSet]]:
    """The sets in batches that share no slice: what is said of one slice is said of one unit."""
    batches: list[list[UnitSet]] = []
    taken: list[Slices] = []
    for unit_set in sets:
        mine = {(name, axis): unit >= 0 for name, axes in unit_set.members.items() for axis, unit in axes.items()}
        meets = lambda others, mine=mine: any((mine[at] & others[at]).any() for at in mine.keys() & others.keys())
        number = next((i for i, others in enumerate(taken) if not meets(others)), len(batches))
        if number == len(batches):
            batches.append([])
            taken.append({})
        batches[number].append(unit_set)
        taken[number] |= {at: inside | taken[number].get(at, False) for at, inside in mine.items()}
    return batches
