"""One equation of a program as a function, and the numbers that it gives where its operands are known."""

import functools

import jax
import numpy as np
from jax.api_util import debug_info
from jax.extend import core as jex


def as_function(eqn):
    """The equation as a function of its operands."""
    atoms = list(dict.fromkeys(atom for atom in eqn.invars if not isinstance(atom, jex.Literal)))
    origin = debug_info(
        "an equation", lambda *operands: None, atoms, {}, result_paths_thunk=lambda: ("",) * len(eqn.outvars)
    )
    program = jex.ClosedJaxpr(jex.Jaxpr([], atoms, eqn.outvars, [eqn], eqn.effects, origin), [])

    def function(*arrays):
        given = {a: x for a, x in zip(eqn.invars, arrays, strict=True) if not isinstance(a, jex.Literal)}
        return jex.jaxpr_as_fun(program)(*(given[atom] for atom in atoms))

    return function


def known_results(eqn, operands) -> list:
    """For each result how to compute its numbers, or None where they depend on more than the program."""
    if eqn.effects or any(value.known is None for value in operands):
        return [None] * len(eqn.outvars)

    @functools.cache
    def compute():
        with jax.ensure_compile_time_eval():
            return [np.asarray(array) for array in as_function(eqn)(*(value.known() for value in operands))]

    return [functools.partial(lambda place: compute()[place], place) for place in range(len(eqn.outvars))]
