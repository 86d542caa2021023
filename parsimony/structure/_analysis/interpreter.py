"""The walk through a traced program: one rule a primitive says how the labels of its operands meet.

References:
  DepGraph (Fang et al., arXiv 2301.12900) finds coupled layers by module type; here the program itself is read.
"""

import collections
import dataclasses
import functools
from typing import Any

import numpy as np
from jax.extend import core as jex

from .abstract import Value, constant, rigid, scalar
from .coupling import Coupling
from .equation import known_results


@dataclasses.dataclass
class Frame:
    """One pass through one jaxpr: what is known of each variable, and the passes inside its equations."""

    jaxpr: Any
    consts: list[Any]
    values: dict[Any, Value]
    inner: list[list["Frame"]] = dataclasses.field(default_factory=list)

    def read(self, atom) -> Value:
        return scalar_or_rigid(atom) if isinstance(atom, jex.Literal) else self.values[atom]


@functools.cache
def _rules():
    from .rules import contractions, control, elementwise, indexing, joins, linear_algebra, reductions, shapes, wrappers

    modules = (elementwise, shapes, joins, reductions, indexing, contractions, linear_algebra, control, wrappers)
    return {name: rule for module in modules for name, rule in module.RULES.items()}


def scalar_or_rigid(literal) -> Value:
    if np.ndim(literal.val) == 0:
        return scalar(literal.val)
    return rigid(np.shape(literal.val), "a literal of the program")


_KERNELS = ("dot_general", "conv_general_dilated", "ragged_dot_general", "gather")
_ROLES = {"mul": "factor", "div": "factor"} | dict.fromkeys(_KERNELS, "kernel")


class Walk:
    """Walks a program and collects statements in `coupling`.

    `singular`: whether what is not finite at zero, such as a division, counts as inexact there.
    `inputs`: whether a kernel may leave out features of what is fixed, such as the inputs.
    """

    def __init__(self, singular: bool = False, inputs: bool = False):
        self.singular = singular
        self.inputs = inputs
        self.coupling = Coupling()
        self.lineage: list[tuple[np.ndarray, np.ndarray]] = []  # nodes that weights hand on to weights made of them
        self.summed: set[tuple[int, int]] = set()  # (id of a value, axis): summed along by the equation at hand
        self.marks: dict[str, list[np.ndarray]] = collections.defaultdict(list)  # see `mark`
        self.used: dict[int, None] = {}  # ids of values in the order of their first use
        self.unknown: collections.Counter[str] = collections.Counter()
        self._inner: list[Frame] = []

    def run(self, closed, consts: list[Value] | None, arguments: list[Value]) -> tuple[list[Value], Frame]:
        """The values of a jaxpr's outputs; `consts` None: those that a closed jaxpr holds."""
        jaxpr, held = (closed.jaxpr, closed.consts) if hasattr(closed, "consts") else (closed, [])
        consts = [constant(self.coupling, value) for value in held] if consts is None else consts
        names = [*jaxpr.constvars, *jaxpr.invars]
        frame = Frame(jaxpr, list(held), dict(zip(names, [*consts, *arguments], strict=True)))
        for eqn in jaxpr.eqns:
            operands = [frame.read(atom) for atom in eqn.invars]
            for value in operands:
                self.used.setdefault(id(value))
            outer, self._inner = self._inner, []
            self.summed.clear()
            seen = self.coupling.statements
            results = self.rule(eqn, operands)
            weights_alone = all(value.weight for value in results)
            if weights_alone:
                self.lineage += self.coupling.pairs_since(seen)
            frame.inner.append(self._inner)
            if not self._inner:
                self._note_use(eqn, operands, weights_alone)
                pairs = zip(results, known_results(eqn, operands), strict=True)
                results = [dataclasses.replace(value, known=known) for value, known in pairs]
            self._inner = outer
            for var, value in zip(eqn.outvars, results, strict=True):
                assert len(value.labels) == len(var.aval.shape), (eqn.primitive.name, value, var.aval)
                frame.values[var] = value
        return [frame.read(atom) for atom in jaxpr.outvars], frame

    def rule(self, eqn, operands: list[Value]) -> list[Value]:
        rule = _rules().get(eqn.primitive.name)
        if rule is None:
            return self.unknown_primitive(eqn, operands)
        results = rule(self, eqn, operands)
        return results if isinstance(results, list) else [results]

    def enter(self, closed, consts, arguments) -> list[Value]:
        """The outputs of a jaxpr inside the equation at hand; its frame is kept with it."""
        outputs, frame = self.run(closed, consts, arguments)
        self._inner.append(frame)
        return outputs

    def _note_use(self, eqn, operands: list[Value], weights_alone: bool) -> None:
        """What weights are to the activations that they meet."""
        name = eqn.primitive.name
        for place, value in enumerate(operands):
            if value.weight and (name in ("rsqrt", "sqrt") or (name == "div" and place == 1)):
                for label in value.labels:
                    self.mark("divisor", label)
            for axis, label in enumerate(value.labels):
                if value.weight and not weights_alone and (id(value), axis) not in self.summed:
                    self.mark(_ROLES.get(name, "term"), label)

    def forget(self) -> None:
        """Drops the frames of the equation at hand: another pass replaces them."""
        self._inner.clear()

    def unknown_primitive(self, eqn, operands: list[Value]) -> list[Value]:
        reason = f"the primitive {eqn.primitive.name}, for which there is no rule"
        self.unknown[eqn.primitive.name] += 1
        return self.fix_all(eqn, operands, reason)

    def fix_all(self, eqn, operands: list[Value], reason: str) -> list[Value]:
        """Nothing of the operands and the results may be removed."""
        for value in operands:
            for label in value.labels:
                self.coupling.fix(label, reason)
        weight = all(value.weight for value in operands)
        return [rigid(var.aval.shape, reason, weight) for var in eqn.outvars]

    def mark(self, kind: str, label) -> None:
        """Notes what weights are to the activations that they meet along an axis: "kernel", "factor" or "term".

        And "divisor": they divide, as a variance does.
        """
        if not isinstance(label, str):
            self.marks[kind].append(label)

    def fix(self, value: Value, axis: int, reason: str) -> str:
        self.coupling.fix(value.labels[axis], reason)
        label = value.labels[axis]
        return label if isinstance(label, str) else reason
