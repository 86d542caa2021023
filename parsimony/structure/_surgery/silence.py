"""How new units start so that nothing changes, and the proof that it does not.

There are three ways of keeping new units silent, and the first that is exact is taken:

    unread   random kernels make them, zeros read them
    paired   of the two sides of a product of activations, such as queries and keys, one is random, the other zero
    zero     zeros make them, random weights read them

Whether one is exact is found by a second walk through the program, in which a slice counts as zero only if the way
starts it at zero: every sum over new slices then has to be free of them, the sums that weights themselves enter (a
norm of a kernel, its mean over inputs) as well as those of activations.
"""

import numpy as np
from jax.extend import core as jex

from .._analysis.analyse import Analysis, interpret
from .._analysis.interpreter import Walk
from .._units import Units, UnitSet

WAYS = ("unread", "paired", "zero")


def silent_ways(units: Units, found: Analysis, names: list[str]) -> dict[str, str]:
    """For each of these sets the first way that leaves the outputs as they are, for all of them at once.

    Raises:
      ValueError: a set has none; the message names what its units are reduced by.
    """
    left = {name: list(WAYS) for name in names}
    while audible := _audible(units, found, {name: ways[0] for name, ways in left.items()}):
        for name, reason in audible.items():
            del left[name][0]
            if not left[name]:
                raise ValueError(
                    f"{name!r} cannot grow without changing the outputs, neither with new units that nothing reads "
                    f"nor with new units that are zero: {reason}. Leave it as it is."
                )
    return {name: ways[0] for name, ways in left.items()}


def _audible(units: Units, found: Analysis, ways: dict[str, str]) -> dict[str, str]:
    """Of the sets whose new units the outputs would hear, what they are heard by."""
    zero: dict[tuple[str, int], np.ndarray] = {}
    for name, way in ways.items():
        unit_set = units.sets[name]
        for parameter, axes in unit_set.members.items():
            for axis in axes:
                before = zero.get((parameter, axis), np.ones(units.shapes[parameter][axis], bool))
                zero[parameter, axis] = before & ~_not_zero(found, unit_set, way, parameter, axis)
    labels, solution, reasons = inexact(units, found, zero, singular=True)
    heard = {}
    for name in ways:
        unit_set = units.sets[name]
        last = [
            solution.atoms_of(label[unit == unit_set.size - 1])
            for parameter, axes in unit_set.members.items()
            for axis, unit in axes.items()
            if not isinstance(label := labels[parameter][axis], str)
        ]
        reason = next((reasons[atom] for atom in np.concatenate(last).tolist() if atom in reasons), None)
        if reason is not None:
            heard[name] = reason
    return heard


def inexact(units: Units, found: Analysis, zero: dict[tuple[str, int], np.ndarray], singular: bool = False):
    """A second walk: what the program hears of slices if those are zero that `zero` says are.

    Args:
      zero: {(parameter, axis): for each index whether the slice there is zero}; where it lacks one, all are.
      singular: as in `Walk`.

    Returns:
      The labels of each parameter, what the walk found, and of the atoms that are heard by what.
    """
    walk = Walk(singular=singular, inputs=units.inputs)
    rigid = {(name, a): x for name, labels in found.labels.items() for a, x in enumerate(labels) if isinstance(x, str)}
    program = jex.ClosedJaxpr(found.frame.jaxpr, found.frame.consts)
    values, _ = interpret(walk, program, list(units.shapes), rigid, zero)
    solution = walk.coupling.solve()
    return {name: value.labels for name, value in values.items()}, solution, solution.inexact_atoms()


def _not_zero(found: Analysis, unit_set: UnitSet, way: str, parameter: str, axis: int) -> np.ndarray:
    """For each index of an axis whether it belongs to the last unit of the set, and its copies do not start at zero."""
    last = unit_set.members[parameter][axis] == unit_set.size - 1
    value = start(found, unit_set, way, parameter, axis)
    if value == "zero":
        return np.zeros(len(last), bool)
    return first_run(last) if way == "paired" and value == "random" else last


def first_run(chosen: np.ndarray) -> np.ndarray:
    """The first run of neighbours that are chosen: the others are the other side of a product."""
    run = np.cumsum(chosen & ~np.append(False, chosen[:-1]))
    return chosen & (run == 1)


def start(found: Analysis, unit_set: UnitSet, way: str, name: str, axis: int) -> str:
    """What a new unit's entries start as, on one axis of a parameter: "random", "one" or "zero"."""
    has = lambda kind: found.marked(kind, name, axis)
    if (name, axis) not in unit_set.makers:
        return "random" if way == "zero" else "zero"
    if has("divisor") and not has("kernel"):
        return "one"
    if way == "zero":
        return "zero"
    if has("kernel"):
        return "random" if way == "unread" or (name, axis) == _kernels(found, unit_set)[0] else "zero"
    return "one" if has("factor") else "zero"


def _kernels(found: Analysis, unit_set: UnitSet) -> list[tuple[str, int]]:
    """The makers that are contracted or looked up."""
    return [place for place in unit_set.makers if found.marked("kernel", *place)]
