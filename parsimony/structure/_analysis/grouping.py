"""From a function to its units: trace, walk, solve, and gather what belongs together by parameter."""

import dataclasses
from typing import Any

import jax
import numpy as np

from ..._tree import named_leaves
from .._units import UnitSet
from .abstract import Value, rigid
from .coupling import Label, Solution, classes_of
from .interpreter import Frame, Walk


@dataclasses.dataclass(frozen=True)
class Analysis:
    """A traced function and what was found about it; lives as long as the process.

    Attributes:
      frame: the traced program, and what is known of its variables.
      labels: of each parameter, by name, the labels of its axes.
      sets, fixed, unknown: see `Units`.
      atoms: of each set the atoms of its units.
      marks: the nodes that have each mark of `Walk.mark`.
      out_tree: the structure of what the function returns.
    """

    frame: Frame
    labels: dict[str, tuple[Label, ...]]
    solution: Solution
    sets: dict[str, UnitSet]
    fixed: dict[str, dict[int, str]]
    unknown: dict[str, int]
    atoms: dict[str, np.ndarray]
    marks: dict[str, np.ndarray]
    out_tree: Any

    def marked(self, kind: str, parameter: str, axis: int) -> bool:
        """Whether an index of an axis that has units has this mark."""
        return bool(self.marks[kind][self.labels[parameter][axis]].any())

    def copies(self, number: dict[str, np.ndarray]) -> np.ndarray:
        """For each node how many there are of it: {set: for each unit 0 or False to remove it, 1 or True, 2, ...}."""
        atoms = [np.zeros(0, int), *(self.atoms[name] for name in number)]
        return self.solution.copies(np.concatenate(atoms), np.concatenate([[], *number.values()]).astype(int))


def analyse(fn, params, args) -> Analysis:
    """Traces fn(params, *args) without running it."""
    names = [name for name, _ in named_leaves(params)[0]]
    try:
        closed, out = jax.make_jaxpr(fn, return_shape=True)(params, *args)
    except Exception as error:
        raise ValueError(
            f"find_units could not trace fn(params, {', '.join(['x', *'yz'][: len(args)])}): {type(error).__name__}: "
            f"{error}\nExpected a function that jax.jit takes, of a tree of parameters and arrays of the shapes given."
            f"{_training_hint(f'{type(error).__name__} {error}')}"
        ) from error
    walk = Walk()
    statistics = [_is_statistic(name) for name, _ in named_leaves(out)[0]]
    own, frame = interpret(walk, closed, names, statistics=statistics)
    solution = walk.coupling.solve()
    whole = _rigid_axes({name: value.labels for name, value in own.items()}, solution)
    if whole and solution.inexact_atoms():
        # Once more, now that these are known to stay: of a sum over several axes only one can be corrected for.
        walk = Walk()
        own, frame = interpret(walk, closed, names, whole, statistics=statistics)
        solution = walk.coupling.solve()
    order = {key: place for place, key in enumerate(walk.used)}
    labels = {name: value.labels for name, value in own.items()}
    by_use = sorted(names, key=lambda name: order.get(id(own[name]), len(order)))
    marks = _spread(walk)
    produced = np.logical_or.reduce([marks[role] for role in _ROLES])
    sets, atoms = _sets({name: labels[name] for name in by_use}, solution, produced)
    fixed = {name: reasons for name in names if (reasons := _fixed(labels[name], solution))}
    out_tree = jax.tree.structure(out)
    return Analysis(frame, labels, solution, sets, fixed, dict(walk.unknown), atoms, marks, out_tree)


def _training_hint(error: str) -> str:
    """What to do where the message is that of a model which updates its own variables."""
    if not any(
        word in error for word in ("batch_stats", "BatchNorm", "ModifyScopeVariable", "Variable", "trace level")
    ):
        return ""
    return f"\n{_TRAINING}"


def _is_statistic(name: str) -> bool:
    """Whether a variable is called like the running statistics of BatchNorm."""
    steps = name.split("/")
    return "batch_stats" in steps or (len(steps) > 1 and steps[-1] in ("mean", "var"))


_OUTPUT = "an axis of the output"
_TRAINING = (
    "A model in training mode updates the running statistics of BatchNorm. Trace it at inference: model.eval() for "
    "Flax NNX, use_running_average=True (often train=False) for Linen, is_training=False for Haiku"
)


def interpret(
    walk: Walk, closed, names: list[str], whole=None, zero=None, statistics=()
) -> tuple[dict[str, Value], Frame]:
    """Walks through a traced program: what is known of its parameters, by name, and its frame.

    `whole`: {(parameter, axis): the reason why no index of it can be removed}.
    `zero`: {(parameter, axis): for each index whether it is zero}; what it lacks is.
    `statistics`: of each output whether it is called like running statistics.
    """
    whole = whole or {}
    invars = closed.jaxpr.invars
    own = {}
    for name, var in zip(names, invars, strict=False):
        shape = tuple(var.aval.shape)
        labels = tuple(
            whole.get((name, axis)) or (walk.coupling.new(n) if n > 1 else "an axis of size one")
            for axis, n in enumerate(shape)
        )
        at_zero = tuple((zero or {}).get((name, axis), True) for axis in range(len(shape)))
        own[name] = Value(shape, labels, at_zero, None, None, True)
    inputs = [rigid(var.aval.shape, "an axis of the input") for var in invars[len(names) :]]
    outputs, frame = walk.run(closed, None, [*own.values(), *inputs])
    updated = [*statistics, *[False] * (len(outputs) - len(statistics))]
    for value, is_statistic in sorted(zip(outputs, updated, strict=True), key=lambda pair: not pair[1]):
        reason = f"running statistics that the function returns. {_TRAINING}" if is_statistic else _OUTPUT
        for label in value.labels:
            walk.coupling.fix(label, reason)
    for name, value in own.items():
        if id(value) not in walk.used:
            hint = f". {_TRAINING}" if _is_statistic(name) else ""
            for label in value.labels:
                walk.coupling.fix(label, f"the function does not use it{hint}")
    return own, frame


_ROLES = ("kernel", "factor", "term")


def _spread(walk: Walk) -> dict[str, np.ndarray]:
    """For each mark of `Walk.mark` the nodes that have it; roles are handed on to what weights are made of."""
    count = max(walk.coupling.count, 1)
    edges = [np.zeros((2, 0), int), *(np.stack(np.broadcast_arrays(*pair)) for pair in walk.lineage)]
    classes, size = classes_of(np.concatenate(edges, axis=1), count)
    found = {}
    for kind in (*_ROLES, "divisor"):
        own = np.zeros(count, bool)
        for nodes in walk.marks[kind]:
            own[nodes] = True
        if kind in _ROLES:
            of_class = np.zeros(size, bool)
            of_class[classes[own]] = True
            own = of_class[classes]
        found[kind] = own
    return found


def _rigid_axes(labels: dict[str, tuple[Label, ...]], solution: Solution) -> dict[tuple[str, int], str]:
    """{(parameter, axis): reason} of the axes of which every index is fixed."""
    found = {}
    for name, own in labels.items():
        for axis, label in enumerate(own):
            if not isinstance(label, str) and all(reasons := solution.why_fixed(label)):
                found[name, axis] = reasons[0]
    return found


def _fixed(labels: tuple[Label, ...], solution: Solution) -> dict[int, str]:
    """The reason for each axis that has a fixed index: the first."""
    found = {}
    for axis, label in enumerate(labels):
        reasons = [label] if isinstance(label, str) else solution.why_fixed(label)
        reason = next(filter(None, reasons), None)
        if reason is not None:
            found[axis] = reason
    return found


def _sets(labels: dict[str, tuple[Label, ...]], solution: Solution, produced: np.ndarray):
    """The units, in sets of those with members of the same kind; and the atoms of each set."""
    places = [
        (name, axis, label)
        for name, own in labels.items()
        for axis, label in enumerate(own)
        if not isinstance(label, str)
    ]
    parts = [(np.zeros(0, int),) * 3]
    for number, (_, _, label) in enumerate(places):
        index, atom = solution.atoms(label)
        parts.append((np.full(len(index), number), index, atom))
    place, index, atom = (np.concatenate(column) for column in zip(*parts, strict=True))
    unique, unit = np.unique(atom, return_inverse=True)  # a unit for each atom
    first = np.full(len(unique), len(atom))  # where each unit first occurs: by place, then by index
    np.minimum.at(first, unit, np.arange(len(atom)))
    signature = _signatures(place, unit, len(unique), len(places))
    signature = _apart(place, index, unit, signature, first)
    inexact = solution.inexact_atoms()
    sets, atoms = {}, {}
    order = np.lexsort((first, _first_of(signature, first)[signature])) if len(unique) else np.zeros(0, int)
    bounds = np.flatnonzero(np.diff(signature[order])) + 1
    for units in np.split(order, bounds) if len(order) else []:
        number = np.full(len(unique), -1)
        number[units] = np.arange(len(units))
        mine = np.flatnonzero(number[unit] >= 0)
        members: dict[str, dict[int, np.ndarray]] = {}
        makers = []
        for p in np.unique(place[mine]):
            name, axis, label = places[p]
            here = mine[place[mine] == p]
            which = np.full(len(label), -1)
            which[index[here]] = number[unit[here]]
            members.setdefault(name, {})[axis] = which
            if produced[label].any():
                makers.append((name, axis))
        name = _free_name(next(iter(members)), sets)
        reason = next((inexact[a] for a in unique[units].tolist() if a in inexact), "")
        sets[name] = UnitSet(name, len(units), members, reason, tuple(makers))
        atoms[name] = unique[units]
    return sets, atoms


def _signatures(place, unit, units: int, places: int) -> np.ndarray:
    """A number for each unit, the same for units that have as many members in every (parameter, axis)."""
    pairs, count = np.unique(unit * max(places, 1) + place, return_counts=True)
    code = np.random.default_rng(0).integers(2**62, size=max(places, 1), dtype=np.uint64)
    total = np.zeros(units, np.uint64)
    with np.errstate(over="ignore"):
        mixed = (code[pairs % max(places, 1)] ^ (count.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))) * np.uint64(
            0xBF58476D1CE4E5B9
        )
        np.add.at(total, pairs // max(places, 1), mixed)
    return np.unique(total, return_inverse=True)[1]


def _apart(place, index, unit, signature, first) -> np.ndarray:
    """Units that share an index of an axis, such as the rows and columns of a square fold, go to sets of their own."""
    key = np.lexsort((unit, signature[unit], index, place))
    p, i, u = place[key], index[key], unit[key]
    neighbours: dict[int, set[int]] = {}
    for distance in range(1, len(u)):
        one, other = u[:-distance], u[distance:]
        same = (p[:-distance] == p[distance:]) & (i[:-distance] == i[distance:]) & (signature[one] == signature[other])
        if not same.any():
            break
        for a, b in np.unique(np.stack([one[same], other[same]], axis=1), axis=0).tolist():
            neighbours.setdefault(a, set()).add(b)
            neighbours.setdefault(b, set()).add(a)
    colour = np.zeros(len(signature), int)
    seen: set[int] = set()
    for own in sorted(neighbours, key=first.__getitem__):
        taken = {colour[other] for other in neighbours[own] & seen}
        colour[own] = next(c for c in range(len(taken) + 1) if c not in taken)
        seen.add(own)
    return np.unique(np.stack([signature, colour]), axis=1, return_inverse=True)[1].ravel()


def _first_of(signature, first) -> np.ndarray:
    earliest = np.full(signature.max() + 1 if len(signature) else 0, np.iinfo(int).max)
    np.minimum.at(earliest, signature, first)
    return earliest


def _free_name(parameter: str, taken) -> str:
    """A set is called after the layer whose parameter it is found in first."""
    name = parameter.rpartition("/")[0] or parameter
    number = 2
    free = name
    while free in taken:
        free, number = f"{name}.{number}", number + 1
    return free
