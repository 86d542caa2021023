"""From a function to what is known of it: trace, walk, solve."""

import dataclasses
from typing import Any

import jax
import numpy as np

from ..._tree import named_leaves
from .._units import UnitSet
from .abstract import Value, rigid
from .coupling import Label, Solution, classes_of
from .grouping import unit_sets
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


def analyse(fn, params, args, inputs: bool = False) -> Analysis:
    """Traces fn(params, *args) without running it. `inputs`: as in `find_units`."""
    names = [name for name, _ in named_leaves(params)[0]]
    try:
        closed, out = jax.make_jaxpr(fn, return_shape=True)(params, *args)
    except Exception as error:
        raise ValueError(
            f"find_units could not trace fn(params, {', '.join(['x', *'yz'][: len(args)])}): {type(error).__name__}: "
            f"{error}\nExpected a function that jax.jit takes, of a tree of parameters and arrays of the shapes given."
            f"{_training_hint(f'{type(error).__name__} {error}')}"
        ) from error
    walk = Walk(inputs=inputs)
    statistics = [is_statistic(name) for name, _ in named_leaves(out)[0]]
    parameters, frame = interpret(walk, closed, names, statistics=statistics)
    solution = walk.coupling.solve()
    whole = _rigid_axes({name: value.labels for name, value in parameters.items()}, solution)
    if whole and solution.inexact_atoms():
        # Once more, now that these are known to stay: of a sum over several axes only one can be corrected for.
        walk = Walk(inputs=inputs)
        parameters, frame = interpret(walk, closed, names, whole, statistics=statistics)
        solution = walk.coupling.solve()
    order = {key: place for place, key in enumerate(walk.used)}
    labels = {name: value.labels for name, value in parameters.items()}
    by_use = sorted(names, key=lambda name: order.get(id(parameters[name]), len(order)))
    marks = _spread(walk)
    produced = np.logical_or.reduce([marks[role] for role in _ROLES])
    sets, atoms = unit_sets({name: labels[name] for name in by_use}, solution, produced, inputs)
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


def is_statistic(name: str) -> bool:
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
    parameters = {}
    for name, var in zip(names, invars, strict=False):
        shape = tuple(var.aval.shape)
        labels = tuple(
            whole.get((name, axis)) or (walk.coupling.new(n) if n > 1 else "an axis of size one")
            for axis, n in enumerate(shape)
        )
        at_zero = tuple((zero or {}).get((name, axis), True) for axis in range(len(shape)))
        parameters[name] = Value(shape, labels, at_zero, None, None, True)
    inputs = [rigid(var.aval.shape, "an axis of the input") for var in invars[len(names) :]]
    outputs, frame = walk.run(closed, None, [*parameters.values(), *inputs])
    updated = [*statistics, *[False] * (len(outputs) - len(statistics))]
    for value, running in sorted(zip(outputs, updated, strict=True), key=lambda pair: not pair[1]):
        reason = f"running statistics that the function returns. {_TRAINING}" if running else _OUTPUT
        for label in value.labels:
            walk.coupling.fix(label, reason)
    for name, value in parameters.items():
        if id(value) not in walk.used:
            hint = f". {_TRAINING}" if is_statistic(name) else ""
            for label in value.labels:
                walk.coupling.fix(label, f"the function does not use it{hint}")
    return parameters, frame


_ROLES = ("kernel", "factor", "term")


def _spread(walk: Walk) -> dict[str, np.ndarray]:
    """For each mark of `Walk.mark` the nodes that have it; roles are handed on to what weights are made of."""
    count = max(walk.coupling.count, 1)
    edges = [np.zeros((2, 0), int), *(np.stack(np.broadcast_arrays(*pair)) for pair in walk.lineage)]
    classes, size = classes_of(np.concatenate(edges, axis=1), count)
    found = {}
    for kind in (*_ROLES, "divisor"):
        marked = np.zeros(count, bool)
        for nodes in walk.marks[kind]:
            marked[nodes] = True
        if kind in _ROLES:
            of_class = np.zeros(size, bool)
            of_class[classes[marked]] = True
            marked = of_class[classes]
        found[kind] = marked
    return found


def _rigid_axes(labels: dict[str, tuple[Label, ...]], solution: Solution) -> dict[tuple[str, int], str]:
    """{(parameter, axis): reason} of the axes of which every index is fixed."""
    found = {}
    for name, axes in labels.items():
        for axis, label in enumerate(axes):
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
