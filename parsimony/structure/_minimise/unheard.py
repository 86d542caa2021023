"""Units that nothing hears, to a fixed point, and the proof that it is so.

Candidates are found by slices of weights that are zero, the slices that lead to other candidates left out. That the
program does without them is proved by a second walk through it, as `grow` does: at each sum over a removed index a
factor must be zero. What is heard is no candidate any more, and the others are tried again.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import numpy as np

from .._analysis.analyse import Analysis
from .._surgery.silence import inexact
from .._units import Units, UnitSet
from .fold import Array, Reasons

Masks = dict[str, np.ndarray]
"""{set: bool for each unit}"""
_Kind = Literal["unread", "any"]


def unheard(units: Units, found: Analysis, params: Mapping[str, Array], gone: Masks) -> tuple[Masks, Reasons]:
    """({set: for each unit whether it can go}, {set: {unit: why a candidate cannot}}).

    Once all of them are zero with all their members, the program computes what it did.

    Args:
      gone: those that are known to go, zero already.
    """
    there = {name: np.asarray(array != 0) for name, array in params.items() if array is not None}
    reasons: Reasons = {}

    def attempt(allowed: Masks, kind: _Kind) -> Masks:
        """Adds to `gone` what of the allowed can go, and returns what was heard of it."""
        nonlocal gone, there
        lost = {name: np.zeros(len(mask), bool) for name, mask in allowed.items()}
        while _number(more := _candidates(units, there, gone, allowed, kind)) > _number(gone):
            heard = _heard(units, found, there, gone, more)
            if not heard:
                gone, there = more, _only_arrays(zeroed(units, more, there))
            for name, why in heard.items():
                reasons.setdefault(name, {}).update(why)
                lost[name][list(why)] = True
            allowed = {name: mask & ~lost[name] for name, mask in allowed.items()}
        return lost

    while True:
        before = _number(gone)
        for kind in ("unread", "any"):
            lost = attempt({name: ~mask for name, mask in gone.items()}, kind)
            # A norm that hears one channel is not exact without another one either, which it would not hear alone.
            loud = {name: _loudness(units.sets[name], there) for name in lost}
            levels = sorted({n for name, mask in lost.items() for n in loud[name][mask].tolist()})
            for level in levels if len(levels) > 1 else ():
                attempt({name: mask & (loud[name] == level) for name, mask in lost.items()}, kind)
        if _number(gone) == before:
            return gone, reasons


def _number(masks: Masks) -> int:
    return sum(int(mask.sum()) for mask in masks.values())


def _only_arrays(params: Mapping[str, Array]) -> dict[str, np.ndarray]:
    return {name: array for name, array in params.items() if array is not None}


def _loudness(unit_set: UnitSet, there) -> np.ndarray:
    """On how many axes of parameters each unit is not zero."""
    places = [(p, a) for p, axes in unit_set.members.items() for a in axes if p in there]
    return sum(
        (unit_set.each(np.logical_or, *place, there[place[0]], False).astype(int) for place in places),
        np.zeros(unit_set.size, int),
    )


def _candidates(units: Units, there, gone: Masks, allowed: Masks, kind: _Kind) -> Masks:
    """`gone`, and what may go with it."""
    while True:
        made = _made(units, gone)
        more = {
            name: gone[name] | (_may_go(unit_set, there, made, kind) & allowed[name])
            for name, unit_set in units.sets.items()
        }
        if _number(more) == _number(gone):
            return more
        gone = more


def _made(units: Units, gone: Masks) -> dict[str, dict[int, np.ndarray]]:
    """{parameter: {axis: bool for each index}}, True where it makes a unit that goes."""
    makers = {
        name: dataclasses.replace(unit_set, members={
            parameter: {axis: unit for axis, unit in axes.items() if (parameter, axis) in unit_set.makers}
            for parameter, axes in unit_set.members.items()
        })
        for name, unit_set in units.sets.items()
    }  # fmt: skip
    return dataclasses.replace(units, sets=makers).removed({name: ~mask for name, mask in gone.items()})


def _may_go(unit_set: UnitSet, there, made, kind: _Kind) -> np.ndarray:
    zero, makes = [], []
    for parameter, axes in unit_set.members.items():
        for axis in axes:
            if parameter not in there or (kind != "any" and there[parameter].ndim < 2):
                continue
            slices = _left(unit_set, there[parameter], made.get(parameter, {}), parameter, axis)
            zero.append(~unit_set.each(np.logical_or, parameter, axis, slices, False))
            makes.append((parameter, axis) in unit_set.makers)
    if kind == "unread":
        zero = [mask for mask, maker in zip(zero, makes, strict=True) if not maker]
    if not zero:
        return np.zeros(unit_set.size, bool)
    return np.logical_or.reduce(zero) if kind == "any" else np.logical_and.reduce(zero)


def _left(unit_set: UnitSet, there, made: dict[int, np.ndarray], parameter: str, axis: int) -> np.ndarray:
    """Where a parameter is not zero, as far as it counts along an axis.

    What reads a unit counts where it leads to what stays. What makes one counts everywhere: a unit that goes since
    nothing reads it may still be different from zero.
    """
    if (parameter, axis) in unit_set.makers:
        return there
    for other, lost in made.items():
        if other != axis:
            there = there & ~lost.reshape([-1 if a == other else 1 for a in range(there.ndim)])
    return there


def zeroed(units: Units, gone: Masks, params: Mapping[str, Array]) -> dict[str, Array]:
    """The parameters with zeros in all members of what goes."""
    new = dict(params)
    for name, axes in units.removed({name: ~mask for name, mask in gone.items()}).items():
        if (array := new[name]) is not None:
            for axis, lost in axes.items():
                shape = [-1 if a == axis else 1 for a in range(array.ndim)]
                array = np.where(lost.reshape(shape), np.zeros_like(array), array)
            new[name] = array
    return new


def idle(unit_set: UnitSet, params: dict[str, Array]) -> np.ndarray:
    """For each unit whether no weight makes it, or none reads it."""
    weights = {name: array for name, array in params.items() if array is not None and array.ndim >= 2}
    found = np.zeros(unit_set.size, bool)
    for makes in (True, False):
        zero = [
            ~unit_set.each(np.logical_or, parameter, axis, weights[parameter] != 0, False)
            for parameter, axes in unit_set.members.items()
            for axis in axes
            if parameter in weights and ((parameter, axis) in unit_set.makers) == makes
        ]
        found |= np.logical_and.reduce(zero) if zero else False
    return found


def _heard(units: Units, found: Analysis, there, gone, more) -> Reasons:
    """Of the units that `more` has beyond `gone` those that something hears, and what."""
    made = _made(units, more)
    zero: dict[tuple[str, int], np.ndarray] = {}
    fresh = {name: more[name] & ~gone[name] for name in more if (more[name] & ~gone[name]).any()}
    for name, new in fresh.items():
        unit_set = units.sets[name]
        for parameter, axes in unit_set.members.items():
            for axis, unit in axes.items():
                if parameter in there:
                    slices = _left(unit_set, there[parameter], made.get(parameter, {}), parameter, axis)
                    loud = slices.any(tuple(a for a in range(slices.ndim) if a != axis))
                    loud = loud & np.append(new, False)[unit]
                    zero[parameter, axis] = zero.get((parameter, axis), True) & ~loud
    labels, solution, reasons = inexact(units, found, zero)
    heard: Reasons = {}
    for name, new in fresh.items():
        for unit, why in _reasons(units.sets[name], labels, solution, reasons).items():
            if new[unit]:
                heard.setdefault(name, {})[unit] = why
    return heard


def _reasons(unit_set: UnitSet, labels, solution, reasons: dict[int, str]) -> dict[int, str]:
    """{unit: why the program hears it}, by the atom that all of its members have in common."""
    units, atoms, total = [], [], np.zeros(unit_set.size, int)
    for parameter, axes in unit_set.members.items():
        for axis, unit in axes.items():
            mine = np.flatnonzero(unit >= 0)
            label = labels[parameter][axis]
            assert not isinstance(label, str)
            position, atom = solution.atoms(label[mine])
            units.append(unit[mine][position])
            atoms.append(atom)
            total += np.bincount(unit[mine], minlength=unit_set.size)
    pairs, count = np.unique(np.stack([np.concatenate(units), np.concatenate(atoms)]), axis=1, return_counts=True)
    common = pairs[:, count == total[pairs[0]]]
    return {int(unit): reasons[int(atom)] for unit, atom in common.T.tolist() if int(atom) in reasons}
