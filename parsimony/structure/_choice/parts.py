"""A program in parts that can be timed one by one: each a product or convolution with what follows it."""

import jax
from jax.extend import core as jex

from .._analysis.equation import as_function, as_program, interpreted
from .._analysis.rules.control import CALLS, CHECKPOINTS, called

_CONTRACTIONS = ("dot_general", "conv_general_dilated", "ragged_dot_general")


def opened(program) -> jex.ClosedJaxpr:
    """The program with the products of the calls in it among its own equations."""
    return jax.make_jaxpr(interpreted(program, _opened))(*program.in_avals)


def parts(flat: jex.ClosedJaxpr) -> list[jex.ClosedJaxpr]:
    """Programs that, run in this order, compute what an `opened` program does.

    Each has one matrix product, convolution, loop or function with a derivative of its own, and the elementwise
    operations up to the next: a compiler fuses these with what is before them. The parts have the variables of the
    program, so an output of one is an input of a later one by the same name.
    """
    groups: list[list] = [[]]
    for eqn in flat.jaxpr.eqns:
        if _contracts(eqn) and any(map(_contracts, groups[-1])):
            groups.append([])
        groups[-1].append(eqn)
    found, needed = [], set(_variables(flat.jaxpr.outvars))
    for eqns in reversed(groups):
        made = [var for eqn in eqns for var in eqn.outvars]
        read = [var for eqn in eqns for var in _variables(eqn.invars)]
        invars = list(dict.fromkeys(var for var in read if var not in set(made)))
        outvars = [var for var in made if var in needed]
        needed |= set(invars)
        if outvars:
            found.append(as_program(eqns, invars, outvars))
    return found[::-1]


def _variables(atoms) -> list:
    return [atom for atom in atoms if not isinstance(atom, jex.Literal)]


def _opened(eqn, operands: list) -> list:
    """Calls that hold products are entered; not those that ask for the platform, which the compiler decides."""
    if eqn.primitive.name in (*CALLS, *CHECKPOINTS) and _contracts(eqn):
        inside = called(eqn)
        if all(inner.primitive.name != "platform_index" for inner in inside.jaxpr.eqns):
            return interpreted(inside, _opened)(*operands)
    return as_function(eqn)(*operands)


def _contracts(eqn) -> bool:
    """Whether an equation is a product or a convolution, or holds one."""
    if eqn.primitive.name in _CONTRACTIONS:
        return True
    return any(_contracts(inner) for value in eqn.params.values() for body in _bodies(value) for inner in body.eqns)


def _bodies(value) -> list[jex.Jaxpr]:
    """The programs in a parameter of an equation."""
    if isinstance(value, tuple | list):
        return [body for item in value for body in _bodies(item)]
    body = value.jaxpr if isinstance(value, jex.ClosedJaxpr) else value
    return [body] if isinstance(body, jex.Jaxpr) else []
