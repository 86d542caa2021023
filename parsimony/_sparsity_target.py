"""An adaptive strength: at every step the one at which a stated share of the penalised weights is zero.

Users of sparsity penalties want a sparsity and get to choose λ. Split LBI and its neighbours all threshold a latent
variable U, W or Γ = κ·Prox_{TΩ}(U), so the strength that gives a share q of zeros can be read off U itself:

    T = min{T > 0 : the share of zeros in Prox_{TΩ}(U) is at least q}

No search over λ, no gain to tune and no state: T is a quantile of the levels at which the groups leave (|U_i|/λ under
`Lasso`, ‖U_g‖/λc_g under `GroupLasso`, σ_i/λ under `NuclearNorm`), so it moves by no more than U does, and what enters
or leaves does so at zero. The strengths that the penalties carry keep their ratios, T scales them all.

The share counts the weights of all penalised parameters together; under `NuclearNorm`, whose Γ is of low rank but has
no zeros, the singular directions of a matrix stand for its weights. With groups the share is met from above, to within
one group. Entries of U that are exactly zero stay zero at any strength.

Source: the rule is ours: the k largest of iterative hard thresholding (Blumensath and Davies 2009), with a soft
threshold. The code of Bungert et al. (arXiv 2105.04319) steps λ up and down by a constant each epoch instead.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from ._checks import check_scalar, concrete
from ._nuclear_norm import NuclearNorm
from ._penalties import over
from ._rules import resolve

LEAST = 1e-20
"""The least T, in place of 0: U/T must be finite. It thresholds below the rounding of any weight."""


def check_sparsity(sparsity: Any) -> None:
    """Refuses what is no share, where that can be seen."""
    if sparsity is None or callable(sparsity):
        return
    check_scalar("sparsity", sparsity, "a number in [0, 1), a schedule of them, or None")
    if concrete(sparsity):
        # An injected schedule may begin at 1, and hands over arrays.
        whole = isinstance(sparsity, jax.Array) and sparsity == 1
        if not 0 <= float(sparsity) < 1 and not whole:
            hint = f"; for {sparsity} % write {float(sparsity) / 100:g}" if 1 < float(sparsity) < 100 else ""
            raise ValueError(f"sparsity={sparsity!r}: expected the share of zero weights, in [0, 1){hint}.")


def threshold_at(penalty: Any, latent: Any, sparsity: optax.ScalarOrSchedule, count: Any = 0) -> jax.Array:
    """T at which the share q of zeros in Prox_{TΩ}(U) is reached; `LEAST` or more.

    The zeros grow with T, and so do the bit patterns of the positive floats: 31 halvings find the very number. It is
    raised by 1e-5 of itself, lest another order of summation let in the group that lies on the threshold.

    Args:
      penalty: Ω, as in `inverse_scale_space`.
      latent: U, a tree of the parameters.
      sparsity: q in [0, 1], or a schedule of `count`.

    Returns:
      T, a float32 scalar.

    >>> import parsimony as pm
    >>> U = {"kernel": jnp.array([[4.0, -3.0, 2.0, 1.0]])}
    >>> round(float(threshold_at(pm.Lasso(0.5), U, 0.75)), 3)  # three of four are zero where λT = 3
    6.0
    """
    leaves = jax.tree.leaves(latent)
    owns = resolve(penalty, latent)
    total = sum(u.size for u, own in zip(leaves, owns, strict=True) if own is not None)
    if total == 0:
        return jnp.ones((), jnp.float32)
    levels = {
        place: own.group_norms(leaves[place]) / own.strength
        for place, own in enumerate(owns)
        if isinstance(own, NuclearNorm)
    }

    def share(threshold):
        counts = [
            u.size / total * jnp.mean(levels[place] <= threshold)
            if place in levels
            else jnp.sum(own.prox(over(u, threshold)) == 0) / total
            for place, (own, u) in enumerate(zip(resolve(penalty, latent, threshold), leaves, strict=True))
            if own is not None
        ]
        return sum(counts)

    q = jnp.asarray(sparsity(count) if callable(sparsity) else sparsity, jnp.float32) - 1e-6  # rounding of the share

    def halve(_, bounds):
        low, high = bounds
        middle = low + (high - low) // 2
        enough = share(jax.lax.bitcast_convert_type(middle, jnp.float32)) >= q
        return jnp.where(enough, low, middle), jnp.where(enough, middle, high)

    most = jax.lax.bitcast_convert_type(jnp.float32(jnp.finfo(jnp.float32).max), jnp.int32)
    # The first one is outside the loop: inside `shard_map` its results have the type of the data, as a carry must.
    _, bits = jax.lax.fori_loop(1, 31, halve, halve(0, (jnp.int32(0), most)))
    return jnp.maximum(jax.lax.bitcast_convert_type(bits, jnp.float32) * (1 + 1e-5), LEAST)
