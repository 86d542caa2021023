"""W finished inside the support: V and T stay as they are, the coupling ends, and what is outside Γ is exactly zero."""

from typing import Any

import jax
import jax.numpy as jnp

from ._penalties.nuclear_norm import NuclearNorm


def check_can_finish(penalties: list[Any]) -> None:
    """Raises for a penalty whose Γ leaves out no weights."""
    if any(isinstance(omega, NuclearNorm) for omega in penalties):
        raise ValueError(
            "finish: W is zero outside the support from then on, and under NuclearNorm no weight is outside; "
            "read its W̃ by pm.sparse_params."
        )


def at_rest(over, duals: list, steps: list) -> list:
    """(V⁺, (W − Γ)/ν) of each parameter; once it is over, (V, 0)."""
    return [
        (v, None) if c is None else (jnp.where(over, v, new), jnp.where(over, jnp.zeros_like(c), c))
        for v, (new, c) in zip(duals, steps, strict=True)
    ]


def frozen(over, before, wanted) -> list:
    """T of each parameter or of all; once it is over, that of before."""
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(wanted), strict=True)
    return [jnp.where(over, t, new.astype(t.dtype)) for t, new in pairs]


def cut_outside(over, gammas: list, updates: list, weights: list) -> list:
    """The updates; once it is over, −W where Γ = 0."""
    return [
        u if structure is None else jnp.where(over & (structure == 0), -w, u)
        for structure, u, w in zip(gammas, updates, weights, strict=True)
    ]
