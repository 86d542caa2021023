"""An exported program as a function of JAX: it is differentiated by its exported derivative, and mapped by a loop."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def differentiable(program: Any, missing: str) -> Callable[..., Any]:
    """program.call, with `jax.grad` and `jax.vmap`.

    StableHLO has no rules of differentiation and of batching. The derivative was exported beside the program; a mapped
    call runs the program once for each element.

    Args:
      program: a `jax.export.Exported`.
      missing: why there is no derivative, or "".
    """
    mapped = jax.custom_batching.sequential_vmap
    value = mapped(lambda arguments: program.call(*arguments))
    run = jax.custom_vjp(value)

    @mapped
    def pull(arguments, cotangents):
        leaves, treedef = jax.tree.flatten(arguments)

        def of_floats(floats):
            rest = iter(floats)
            whole = [next(rest) if _is_float(leaf) else leaf for leaf in leaves]
            return [out for out in jax.tree.leaves(program.call(*treedef.unflatten(whole))) if _is_float(out)]

        _, derivative = jax.vjp(of_floats, [leaf for leaf in leaves if _is_float(leaf)])
        return derivative(cotangents)[0]

    def forward(arguments):
        return value(arguments), arguments

    def backward(arguments, cotangents):
        if missing:
            raise ValueError(f"this model was exported without its derivative: {missing}")
        # A cotangent of an integer has the dtype float0, which is no number.
        known = [cotangent for cotangent in jax.tree.leaves(cotangents) if cotangent.dtype != jax.dtypes.float0]
        found = iter(pull(arguments, known))
        return (jax.tree.map(lambda leaf: next(found) if _is_float(leaf) else None, arguments),)

    run.defvjp(forward, backward)
    return lambda *arguments: run(arguments)


def _is_float(leaf) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)
