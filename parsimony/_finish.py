"""W finished inside the support: on the way it lets go of the groups that will not enter, and at the end W = W̃.

A path that is open after K₀ steps has the threshold T of that moment, and V of most groups has grown towards it at a
steady rate. So a group that is to enter by then is expected at φT or above after a part φ of the steps:

    ‖V_g‖ ≤ φT,  φ = min(k/K₀, 1)      ⇒      W_g = 0 after step k

What goes early is what is far behind; with φ = 1 just the support is left, V and T stay as they are and the coupling
ends. The network so adapts to a loss of few groups at a time. (V_g does not move where W_g = Γ_g = 0, so what has been
let go stays so, unless T falls below it.)

References:
  Ours; pruning bit by bit, by magnitude along a schedule, is that of Zhu and Gupta (arXiv 1710.01878).
"""

from typing import Any

import jax
import jax.numpy as jnp

from ._penalties.nuclear_norm import NuclearNorm
from ._penalties.penalty import over
from ._penalties.rules import resolve
from ._sparsity_target import LEAST


def check_can_finish(penalties: list[Any]) -> None:
    """Raises for a penalty whose Γ leaves out no weights."""
    if any(isinstance(omega, NuclearNorm) for omega in penalties):
        raise ValueError(
            "finish: W is zero outside the support from then on, and under NuclearNorm no weight is outside; "
            "read its W̃ by pm.sparse_params."
        )


def at_rest(finished, duals: list, steps: list) -> list:
    """(V⁺, (W − Γ)/ν) of each parameter; once W is finished, (V, 0)."""
    return [
        (v, None) if c is None else (jnp.where(finished, v, new), jnp.where(finished, jnp.zeros_like(c), c))
        for v, (new, c) in zip(duals, steps, strict=True)
    ]


def frozen(finished, before, wanted) -> list:
    """T of each parameter or of all, as `wanted` finds it; once W is finished, that of before, without a search."""
    old = jax.tree.leaves(before)
    search = lambda: [new.astype(t.dtype) for t, new in zip(old, jax.tree.leaves(wanted()), strict=True)]
    return search() if finished is False else jax.lax.cond(finished, lambda: old, search)


def cut_behind(part, penalty, dual, strengths: list, updates: list, weights: list) -> list:
    """The updates; −W for the groups with ‖V_g‖ ≤ φT. Where V is zero nothing is known yet: that goes at the end.

    Args:
      part: φ.
      dual: V⁺, a tree; strengths: T of each parameter.
    """
    levels = [jnp.maximum(part * t, LEAST) for t in strengths]

    def cut(omega, v, level, update, w):
        if omega is None:
            return update
        behind = (omega.prox(over(v, level)) == 0) & ((v != 0) | (part >= 1))
        return jnp.where(behind, -w, update)

    leaves = zip(resolve(penalty, dual, levels), jax.tree.leaves(dual), levels, updates, weights, strict=True)
    return [cut(*leaf) for leaf in leaves]
