"""A walk through a program at given parameters: which slices are one number, and which sums over them have a bias.

Of a primitive without a rule here nothing is known, so that what follows is what can be proved.
"""

import collections
import dataclasses
import math

import numpy as np
from jax.extend import core as jex

from .._analysis.analyse import Analysis
from .._analysis.equation import as_function
from .._analysis.rules.control import ENTERED, called
from .._analysis.rules.elementwise import IDENTITIES
from .known import Known, Origin, Reader

_TRANSPARENT = ("broadcast_in_dim", "reshape", "squeeze", "transpose", "convert_element_type")


class Reading:
    """What a walk collects.

    Attributes:
      readers: see `Reader`; those over which something is one number, or is there twice.
      uses: how often each parameter is computed with.
    """

    def __init__(self, found: Analysis, params: dict[str, np.ndarray | None]):
        self.readers: list[Reader] = []
        self.uses: collections.Counter[str] = collections.Counter()
        variables = found.frame.jaxpr.invars
        given = [
            Known(tuple(var.aval.shape), array, origin=Origin(name, tuple(range(len(var.aval.shape)))))
            for (name, array), var in zip(params.items(), variables, strict=False)
        ]
        inputs = [Known(tuple(var.aval.shape)) for var in variables[len(given) :]]
        self.count(self._run(found.frame.jaxpr, found.frame.consts, [*given, *inputs]))

    def _run(self, jaxpr, consts, arguments: list[Known]) -> list[Known]:
        values = [*map(_constant, consts), *arguments]
        known = dict(zip([*jaxpr.constvars, *jaxpr.invars], values, strict=True))
        times = collections.Counter(
            atom for atoms in (*(eqn.invars for eqn in jaxpr.eqns), jaxpr.outvars) for atom in atoms if _named(atom)
        )

        def read(atom) -> Known:
            if not _named(atom):
                return _constant(np.asarray(atom.val, atom.aval.dtype))
            value = known[atom]
            # A bias that is added in one place only cannot make up for a sum that is used in several.
            return value if times[atom] == 1 else dataclasses.replace(value, terms=())

        for eqn in jaxpr.eqns:
            for var, value in zip(eqn.outvars, self._equation(eqn, [read(atom) for atom in eqn.invars]), strict=True):
                known[var] = value
        return [read(atom) for atom in jaxpr.outvars]

    def _equation(self, eqn, operands: list[Known]) -> list[Known]:
        from .rules import RULES

        name = eqn.primitive.name
        if name in IDENTITIES:
            return operands
        if name in ENTERED:
            program = called(eqn)
            return self._run(program.jaxpr, program.consts, operands)
        if name not in _TRANSPARENT:
            self.count(operands)
        numbers = self._numbers(eqn, operands)
        rule = RULES.get(name)
        if rule is None:
            return [Known(_shape(var), array) for var, array in zip(eqn.outvars, numbers, strict=True)]
        results = rule(self, eqn, operands, numbers)
        return results if isinstance(results, list) else [results]

    def _numbers(self, eqn, operands: list[Known]) -> list[np.ndarray | None]:
        """The results where they follow from the parameters, and are not mere repetitions."""
        grows = eqn.primitive.name == "broadcast_in_dim" and math.prod(_shape(eqn.outvars[0])) > math.prod(
            operands[0].shape
        )
        if eqn.effects or grows or any(value.array is None for value in operands):
            return [None] * len(eqn.outvars)
        try:
            return [np.asarray(array) for array in as_function(eqn)(*(value.array for value in operands))]
        except TypeError:  # random keys
            return [None] * len(eqn.outvars)

    def count(self, values: list[Known]) -> None:
        """Notes that something is computed with these."""
        self.uses.update(value.origin.name for value in values if value.origin is not None)


def _named(atom) -> bool:
    return not isinstance(atom, jex.Literal)


def _shape(var) -> tuple[int, ...]:
    return tuple(var.aval.shape)


def _constant(array) -> Known:
    try:
        return Known(np.shape(array), np.asarray(array))
    except TypeError:  # random keys
        return Known(tuple(array.shape))
