"""A program evaluated with whole and with cut parameters side by side, each reader refitted where the walk meets it.

So that a reader sees what the layers before it give after the cut, their own readers refitted already.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex

from .._analysis.equation import as_function
from .._analysis.rules.control import ENTERED, called
from .._analysis.rules.elementwise import IDENTITIES
from .readers import reader
from .ridge import Fit, fitted


@dataclasses.dataclass(frozen=True)
class Origin:
    """The parameter that an operand is, under other axes or another dtype; `of`: from the one to the other."""

    name: str
    parameter: jax.ShapeDtypeStruct
    of: Callable


@dataclasses.dataclass(frozen=True)
class Pair:
    """An array in the whole program, and in the cut one."""

    whole: Any
    cut: Any
    origin: Origin | None = None


class Lockstep:
    """The walk.

    `lost`: {parameter: bool of its shape, True where an entry goes}, of those that may be refitted.
    `fits`, `matrices`: {parameter: Fit}, {parameter: from an array of its shape to (inputs, outputs)}; filled by `run`.
    """

    def __init__(self, lost: dict[str, np.ndarray], ridge: float):
        self.lost, self.ridge = lost, ridge
        self.fits: dict[str, Fit] = {}
        self.matrices: dict[str, Callable] = {}

    def run(self, jaxpr, consts, arguments: list[Pair]) -> list[Pair]:
        known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*(Pair(x, x) for x in consts), *arguments], strict=True))
        read = lambda atom: Pair(atom.val, atom.val) if isinstance(atom, jex.Literal) else known[atom]
        last = {id(atom): number for number, eqn in enumerate(jaxpr.eqns) for atom in eqn.invars}
        last |= {id(atom): len(jaxpr.eqns) for atom in jaxpr.outvars}
        for number, eqn in enumerate(jaxpr.eqns):
            results = self._equation(eqn, [read(atom) for atom in eqn.invars])
            known.update(zip(eqn.outvars, results, strict=True))
            for var in [*eqn.invars, *eqn.outvars]:  # activations of many inputs are large
                if not isinstance(var, jex.Literal) and last.get(id(var), -1) <= number:
                    known.pop(var, None)
        return [read(atom) for atom in jaxpr.outvars]

    def _equation(self, eqn, operands: list[Pair]) -> list[Pair]:
        name = eqn.primitive.name
        if name in IDENTITIES:
            return operands
        if name in ENTERED:
            program = called(eqn)
            return self.run(program.jaxpr, program.consts, operands)
        function = as_function(eqn)
        whole = function(*(value.whole for value in operands))
        cut = whole
        if any(value.cut is not value.whole for value in operands):
            cut = function(*(value.cut for value in operands))
        origin = _moved(eqn, operands, function)
        results = [Pair(*both, origin) for both in zip(whole, cut, strict=True)]
        return self._refitted(eqn, operands, results, function) if len(operands) == 2 else results

    def _refitted(self, eqn, operands: list[Pair], results: list[Pair], function) -> list[Pair]:
        """The results of an equation, with a refitted parameter if it is a reader that has lost inputs."""
        for place, (kernel, other) in enumerate(zip(operands, operands[::-1], strict=True)):
            if kernel.origin is None or kernel.origin.name not in self.lost or other.origin is not None:
                continue
            its, origin = reader(eqn, place), kernel.origin
            if its is None:
                continue
            matrix = lambda w, its=its, of=origin.of: its.weights(of(w))
            gone = np.asarray(matrix(jnp.asarray(self.lost[origin.name], origin.parameter.dtype))) != 0
            if not inputs_go(gone):
                continue
            rows, outputs = its.rows(other.cut), its.results(results[0].whole)
            missing = outputs - its.results(results[0].cut)
            try:
                fit = fitted(rows, its.weights(kernel.cut), missing, outputs, gone, self.ridge)
            except ValueError as error:
                where = f"where parameter {origin.name!r} reads them"
                raise ValueError(f"refit: {error} {where}; check the inputs and the parameters.") from None
            operand = its.operand(jnp.asarray(fit.weights, kernel.cut.dtype))
            # The parameter has the same entries under other axes, so that the transposed map is the inverse one.
            back = jax.linear_transpose(origin.of, origin.parameter)
            self.matrices[origin.name] = matrix
            self.fits[origin.name] = dataclasses.replace(fit, weights=back(operand)[0])
            given = [other.cut, other.cut]
            given[place] = operand
            return [Pair(results[0].whole, function(*given)[0])]
        return results


def inputs_go(gone: np.ndarray) -> bool:
    """Whether of a matrix (inputs, outputs) some inputs go, but not all."""
    return bool(gone.all(1).any() and not gone.all())


_MOVES = ("transpose", "squeeze", "reshape", "broadcast_in_dim", "convert_element_type")


def _moved(eqn, operands: list[Pair], function) -> Origin | None:
    """The parameter that the result is, entry by entry."""
    origin = operands[0].origin if len(operands) == 1 else None
    if origin is None or eqn.primitive.name not in _MOVES:
        return None
    var, whole = eqn.outvars[0], operands[0].whole
    same = eqn.primitive.name == "transpose" or _longer(var.aval.shape) == _longer(whole.shape)
    if not same or not jnp.issubdtype(var.aval.dtype, jnp.floating):
        return None
    return Origin(origin.name, origin.parameter, lambda w: function(origin.of(w))[0])


def _longer(shape) -> list[int]:
    """The axes that are not of size one, by their sizes."""
    return [n for n in shape if n != 1]
