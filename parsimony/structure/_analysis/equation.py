"""Equations of a program as a function, and the numbers that one gives where its operands are known."""

import functools
from collections.abc import Callable

import jax
import numpy as np
from jax.api_util import debug_info
from jax.extend import core as jex


def as_program(eqns, invars, outvars) -> jex.ClosedJaxpr:
    """Equations in their order as a program from these variables to those."""
    origin = debug_info(
        "equations", lambda *operands: None, invars, {}, result_paths_thunk=lambda: ("",) * len(outvars)
    )
    effects = frozenset().union(*(eqn.effects for eqn in eqns))
    return jex.ClosedJaxpr(jex.Jaxpr([], invars, outvars, eqns, effects, origin), [])


def as_function(eqn):
    """The equation as a function of its operands."""
    atoms = list(dict.fromkeys(atom for atom in eqn.invars if not isinstance(atom, jex.Literal)))
    program = as_program([eqn], atoms, eqn.outvars)

    def function(*arrays):
        given = {a: x for a, x in zip(eqn.invars, arrays, strict=True) if not isinstance(a, jex.Literal)}
        return jex.jaxpr_as_fun(program)(*(given[atom] for atom in atoms))

    return function


def interpreted(program, results: Callable) -> Callable[..., list]:
    """The program as a function in which `results(eqn, operands)` stands for each equation."""

    def run(*args):
        values = dict(zip(program.jaxpr.constvars, program.consts, strict=True))
        values |= dict(zip(program.jaxpr.invars, args, strict=True))
        read = lambda atom: atom.val if isinstance(atom, jex.Literal) else values[atom]
        for eqn in program.jaxpr.eqns:
            values |= dict(zip(eqn.outvars, results(eqn, [read(atom) for atom in eqn.invars]), strict=True))
        return [read(atom) for atom in program.jaxpr.outvars]

    return run


def known_results(eqn, operands) -> list:
    """For each result how to compute its numbers, or None where they depend on more than the program."""
    if eqn.effects or any(value.known is None for value in operands):
        return [None] * len(eqn.outvars)

    @functools.cache
    def compute():
        with jax.ensure_compile_time_eval():
            return [np.asarray(array) for array in as_function(eqn)(*(value.known() for value in operands))]

    return [functools.partial(lambda place: compute()[place], place) for place in range(len(eqn.outvars))]
