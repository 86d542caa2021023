"""RigL: a sparse network of constant size, whose smallest weights give way to those of the largest gradient.

Every ΔT steps up to T_end, instead of a step of the optimizer, each layer drops the share

    f(t) = f₀/2·(1 + cos(πt/T_end))

of its weights, the smallest, and grows as many where |∇L| is largest; what has grown starts at zero, without momentum.
(What is dropped and grown at once was never away: it stays as it was, as in the published code.)

References:
  Evci, Gale, Menick, Castro and Elsen, "Rigging the Lottery: Making All Tickets Winners" (arXiv 1911.11134), Algorithm
  1; the densities of layers by Erdős-Rényi-Kernel: section 3, after Mocanu et al. (2018).
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from .magnitude import MaskedState
from .masking import cut, inside, k_largest, need, prunable, removed


def erdos_renyi_densities(shapes: list[tuple[int, ...]], sparsity):
    """Density of each layer, in proportion to Σ(dimensions)/Π(dimensions) and at most 1, all together as asked.

    Args:
      shapes: of the kernels.
      sparsity: of all of them together; may be traced.

    Returns:
      [layers] float32.

    Examples:
      >>> [f"{density:.2f}" for density in erdos_renyi_densities([(784, 300), (300, 100), (100, 10)], 0.9)]
      ['0.08', '0.23', '1.00']
    """
    sizes = jnp.array([math.prod(shape) for shape in shapes], jnp.float32)
    raw = jnp.array([sum(shape) / math.prod(shape) for shape in shapes], jnp.float32)
    budget = (1 - jnp.asarray(sparsity, jnp.float32)) * jnp.sum(sizes)
    full = jnp.zeros(len(shapes), bool)
    for _ in shapes:  # a layer that would be more than full hands on what it cannot hold
        scale = (budget - jnp.sum(jnp.where(full, sizes, 0))) / jnp.sum(jnp.where(full, 0, sizes * raw))
        full = full | (scale * raw >= 1)
    return jnp.where(full, 1.0, scale * raw)


def rigl(
    tx: optax.GradientTransformation,
    sparsity,
    key,
    end,
    every: int = 100,
    drop=0.3,
    distribution: str = "erk",
) -> optax.GradientTransformationExtraArgs:
    """Wraps an optimizer; begins with a random mask, and rewires it.

    Args:
      tx: the optimizer; it sees the gradient inside the mask.
      sparsity: share of the prunable weights that are zero, constant from the first step on; may be traced.
      key: of the first mask.
      end: T_end, steps after which the mask stays; may be traced.
      every: ΔT ≥ 1.
      drop: f₀, the share of a layer's weights that change first; may be traced.
      distribution: of the weights over the layers: "erk" or "uniform".
    """
    if distribution not in ("erk", "uniform"):
        raise ValueError(f"distribution={distribution!r}: expected 'erk' or 'uniform'.")
    inner = optax.with_extra_args_support(tx)

    def init_fn(params) -> Any:
        leaves, treedef = jax.tree.flatten(params)
        keys = jax.random.split(key, len(leaves))
        counts = _counts(leaves, sparsity, distribution)
        drawn = lambda w, leaf_key, n: k_largest(jax.random.uniform(leaf_key, (w.size,)), n).reshape(w.shape)
        masks = [
            jnp.ones(w.shape, bool) if n is None else drawn(w, leaf_key, n)
            for w, leaf_key, n in zip(leaves, keys, counts, strict=True)
        ]
        return MaskedState(jnp.zeros((), jnp.int32), treedef.unflatten(masks), inner.init(params))

    def update_fn(updates, state, params=None, **extra_args) -> tuple[Any, Any]:
        need(params)
        due = (state.count > 0) & (state.count < end) & (state.count % every == 0)
        share = drop / 2 * (1 + jnp.cos(jnp.pi * state.count / end))

        def rewire():
            masks = jax.tree.map(lambda mask, w, g: _rewired(mask, w, g, share), state.masks, params, updates)
            survive = jax.tree.map(jnp.logical_and, masks, state.masks)
            still = jax.tree.map(jnp.zeros_like, updates)
            memory = optax.tree.map_params(
                inner, lambda x, kept: jnp.where(kept, x, jnp.zeros_like(x)), state.inner_state, survive
            )
            return cut(survive, still, params), masks, memory

        def step():
            given = inside(state.masks, updates)
            step_updates, inner_state = inner.update(given, state.inner_state, params, **extra_args)
            return cut(state.masks, step_updates, params), state.masks, inner_state

        updates, masks, inner_state = jax.lax.cond(due, rewire, step)
        return updates, MaskedState(optax.safe_increment(state.count), masks, inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _counts(leaves, sparsity, distribution) -> list:
    """Weights that each prunable parameter keeps, as many together as the sparsity says."""
    sizes = [w.size for w in leaves if prunable(w)]
    if not sizes:  # Optax initialises on a placeholder without leaves (optax.tree.map_params)
        return [None] * len(leaves)
    if distribution == "erk":
        densities = erdos_renyi_densities([w.shape for w in leaves if prunable(w)], sparsity)
    else:
        densities = jnp.full(len(sizes), 1 - jnp.asarray(sparsity, jnp.float32))
    budget = sum(sizes) - removed(sparsity, sum(sizes))
    # What is left over by rounding goes to the largest layer, which notices it least.
    kept = [jnp.round(density * size).astype(jnp.int32) for density, size in zip(densities, sizes, strict=True)]
    largest = sizes.index(max(sizes))
    kept[largest] += budget - sum(kept)
    remaining = iter(kept)
    return [next(remaining) if prunable(w) else None for w in leaves]


def _rewired(mask, w, g, share):
    """The mask of a layer without its smallest weights and with as many of the largest gradient."""
    if not prunable(w):
        return mask
    kept = jnp.sum(mask)
    survivors = kept - jnp.floor(share * kept).astype(jnp.int32)
    survive = k_largest(jnp.where(mask, jnp.abs(w), -1.0).ravel(), survivors)
    grown = k_largest(jnp.where(survive, -1.0, jnp.abs(g).ravel()), kept - survivors)
    return (survive | grown).reshape(w.shape)
