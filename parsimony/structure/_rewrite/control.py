"""Narrower calls, loops, branches, and functions with derivatives of their own."""

import dataclasses

import jax
import numpy as np
from jax import lax

from .._analysis.abstract import Value
from .._analysis.equation import as_function
from .._analysis.interpreter import Frame, Walk
from .._analysis.rules.control import CALLS, CHECKPOINTS, CUSTOM_VJPS, scan_counts
from .._analysis.rules.elementwise import IDENTITIES
from .._analysis.rules.wrappers import linear_solve_parts
from .narrow import Narrowing, Part, is_split_evenly


def _plain(narrowing: Narrowing, frame: Frame):
    """The frame as a function of arrays."""
    invars = frame.jaxpr.invars

    def function(*arrays):
        parts = [Part(array, frame.read(var)) for array, var in zip(arrays, invars, strict=True)]
        return [part.array for part in narrowing.run(frame, parts)]

    return function


def _parts(arrays, values: list[Value]) -> list[Part]:
    return [Part(array, value) for array, value in zip(arrays, values, strict=True)]


def call(narrowing, eqn, operands, values, inner):
    return narrowing.run(inner[0], operands)


def checkpoint(narrowing, eqn, operands, values, inner):
    function = jax.checkpoint(
        _plain(narrowing, inner[0]), prevent_cse=eqn.params["prevent_cse"], policy=eqn.params["policy"]
    )
    return _parts(function(*(part.array for part in operands)), values)


def scan(narrowing, eqn, operands, values, inner):
    params, body = eqn.params, _plain(narrowing, inner[0])
    consts, carried = scan_counts(eqn)
    n = consts + carried
    arrays = [part.array for part in operands]

    def step(carry, element):
        outputs = body(*arrays[:consts], *carry, *element)
        return outputs[:carried], outputs[carried:]

    # A length that is told has to be a number; over a symbolic batch JAX takes it from the arrays.
    length = None if arrays[n:] else params["length"]
    carry, stacked = lax.scan(step, arrays[consts:n], arrays[n:], length, params["reverse"], params["unroll"])
    return _parts([*carry, *stacked], values)


def while_(narrowing, eqn, operands, values, inner):
    params = eqn.params
    a, b = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    condition, body = (_plain(narrowing, frame) for frame in inner)
    arrays = [part.array for part in operands]
    carry = lax.while_loop(
        lambda carry: condition(*arrays[:a], *carry)[0], lambda carry: body(*arrays[a:b], *carry), arrays[b:]
    )
    return _parts(carry, values)


def cond(narrowing, eqn, operands, values, inner):
    index, *arrays = (part.array for part in operands)
    branches = [_plain(narrowing, frame) for frame in inner]
    if (platforms := eqn.params.get("branches_platforms")) is None:
        return _parts(lax.switch(index, branches, *arrays), values)
    # So that the branches of other platforms are not compiled.
    default = dict(zip(platforms, branches, strict=True)).get(None)
    named = {name: branch for names, branch in zip(platforms, branches, strict=True) for name in names or ()}
    return _parts(lax.platform_dependent(*arrays, default=default, **named), values)


def identity(narrowing, eqn, operands, values, inner):
    """A sharding that a narrower axis cannot be split by is left to the compiler."""
    if not is_split_evenly(eqn, np.shape(operands[0].array)):
        return operands
    bound = eqn.primitive.bind(*(part.array for part in operands), **eqn.params)
    arrays = bound if eqn.primitive.multiple_results else [bound]
    return [dataclasses.replace(part, array=array) for part, array in zip(operands, arrays, strict=True)]


def shard_map(narrowing, eqn, operands, values, inner):
    params = eqn.params
    function = jax.shard_map(
        lambda *arrays: tuple(_plain(narrowing, inner[0])(*arrays)),
        mesh=params["mesh"], in_specs=tuple(params["in_specs"]), out_specs=tuple(params["out_specs"]),
        check_vma=params["check_vma"], axis_names=set(params["newly_manual_axes"]),
    )  # fmt: skip
    return _parts(function(*(part.array for part in operands)), values)


def custom_linear_solve(narrowing, eqn, operands, values, inner):
    solve, matvec, *transposed = (_plain(narrowing, frame) for frame in inner)
    parts = linear_solve_parts(eqn, [part.array for part in operands])
    with_its = lambda function, name: lambda right: function(*parts[name], *right)
    solution = lax.custom_linear_solve(
        with_its(matvec, "matvec"), parts["right"],
        solve=lambda _, right: with_its(solve, "solve")(right),
        transpose_solve=(lambda _, right: with_its(transposed[0], "transpose_solve")(right)) if transposed else None,
    )  # fmt: skip
    return _parts(solution, values)


def custom_jvp(narrowing, eqn, operands, values, inner):
    """With its rule of differentiation: the program of its derivative, narrowed likewise."""
    function = jax.custom_jvp(_plain(narrowing, inner[0]))
    floating, full, known = _differentiable(eqn, operands)

    @function.defjvp
    def _(arrays, tangents):
        def derivative(floats, others, tangents):
            return jax.jvp(lambda *floats: full(floats, others), floats, tangents)

        floats, others = _sorted(floating, arrays)
        tangents = [tangent for tangent, is_float in zip(tangents, floating, strict=True) if is_float]
        outputs = _narrowed(narrowing, derivative, known, [*floats, *others, *tangents])
        return outputs[: len(values)], outputs[len(values) :]

    return _parts(function(*(part.array for part in operands)), values)


def custom_vjp(narrowing, eqn, operands, values, inner):
    """As `custom_jvp`, for the transposed derivative, which runs the function once more."""
    function = jax.custom_vjp(_plain(narrowing, inner[0]))
    floating, full, known = _differentiable(eqn, operands)

    def forward(*arrays):
        return _plain(narrowing, inner[0])(*arrays), arrays

    def backward(arrays, cotangents):
        def derivative(floats, others, cotangents):
            return jax.vjp(lambda *floats: full(floats, others), *floats)[1](list(cotangents))

        floats, others = _sorted(floating, arrays)
        outputs = iter(
            _narrowed(
                narrowing,
                derivative,
                (*known[:2], [_at_zero(value) for value in values]),
                [*floats, *others, *cotangents],
            )
        )
        return tuple(next(outputs) if is_float else None for is_float in floating)

    function.defvjp(forward, backward)
    return _parts(function(*(part.array for part in operands)), values)


def _differentiable(eqn, operands: list[Part]):
    """Which operands are floating-point, the whole function of (those, the others), and the values of all."""
    floating = [jax.numpy.issubdtype(var.aval.dtype, jax.numpy.inexact) for var in eqn.invars]

    def full(floats, others):
        floats, others = iter(floats), iter(others)
        return as_function(eqn)(*(next(floats) if is_float else next(others) for is_float in floating))

    floats, others = _sorted(floating, [part.value for part in operands])
    return floating, full, (floats, others, [_at_zero(value) for value in floats])


def _at_zero(value: Value) -> Value:
    """A tangent or cotangent: what is removed does not move."""
    return dataclasses.replace(value, zero=(True,) * value.ndim, alike=(True,) * value.ndim)


def _sorted(floating, items):
    pairs = list(zip(floating, items, strict=True))
    return [item for floats, item in pairs if floats], [item for floats, item in pairs if not floats]


def _narrowed(narrowing: Narrowing, derivative, values, arrays):
    """derivative(floats, others, tangents) traced on whole arrays and run on narrow ones."""
    count = [len(group) for group in values]
    flat = [value for group in values for value in group]
    structs = [jax.ShapeDtypeStruct(value.shape, array.dtype) for value, array in zip(flat, arrays, strict=True)]

    def whole(*leaves):
        groups = np.split(np.arange(len(leaves)), np.cumsum(count)[:-1])
        return jax.tree.leaves(derivative(*([leaves[i] for i in group] for group in groups)))

    closed = jax.make_jaxpr(whole)(*structs)
    walk = Walk()
    # The same node for the same node, so that what runs in step here did so before.
    old = [value.labels for value in flat]
    nodes = np.unique(
        np.concatenate([np.zeros(0, int), *(x for labels in old for x in labels if not isinstance(x, str))])
    )
    base = walk.coupling.new(len(nodes))
    renamed = [
        Value(
            value.shape,
            tuple(x if isinstance(x, str) else base[np.searchsorted(nodes, x)] for x in value.labels),
            value.zero, value.alike, None, False,
        )
        for value in flat
    ]  # fmt: skip
    _, frame = walk.run(closed, None, renamed)
    solution = walk.coupling.solve()
    wanted = narrowing.number[nodes]
    position, atom = solution.atoms(base)
    # Of an atom there are as many as of the scarcest node that goes with it and is left.
    atoms = np.unique(atom)
    numbers = np.full(len(atoms), np.iinfo(int).max)
    left = wanted[position] > 0
    np.minimum.at(numbers, np.searchsorted(atoms, atom[left]), wanted[position][left])
    numbers[numbers == np.iinfo(int).max] = 0
    copies = solution.copies(atoms, numbers)
    if not np.array_equal(copies[base], wanted):
        raise ValueError(
            "the derivative that a function of this model defines for itself (jax.custom_jvp or custom_vjp) binds "
            "units that its value does not: it cannot be differentiated after the removal. Keep those units, or write "
            "the function without a derivative of its own."
        )
    parts = [Part(array, value) for array, value in zip(arrays, renamed, strict=True)]
    return [part.array for part in Narrowing(copies).run(frame, parts)]


RULES = {
    "scan": scan,
    "shard_map": shard_map,
    "custom_linear_solve": custom_linear_solve,
    **dict.fromkeys(IDENTITIES, identity),
    "while": while_,
    "cond": cond,
    "custom_jvp_call": custom_jvp,
    **dict.fromkeys(CUSTOM_VJPS, custom_vjp),
    **dict.fromkeys(CHECKPOINTS, checkpoint),
    **dict.fromkeys(CALLS, call),
}
