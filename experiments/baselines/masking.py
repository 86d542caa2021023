"""The k largest of many numbers where k is a traced array, and masks of weights or filters made so."""

import math

import jax
import jax.numpy as jnp

# What a sparsity counts. The groups are the filters of the convolutions.
LEVELS = {"weight": "weights", "group": "filters"}


@jax.jit  # outside of a compiled step the loop would be compiled anew at every call
def k_largest(scores, k):
    """Which of n numbers are the k largest; of equals the first.

    Bit patterns of floats that are not negative are ordered as they are: 31 halvings find the level above which at most
    k lie. That is exact, takes a traced k, and on a CPU is several times faster than to sort.

    Args:
      scores: float32 [n]; negative ones are never among the k.
      k: int, may be traced; n or more takes all that are not negative.

    Examples:
      >>> k_largest(jnp.array([3.0, 1.0, 3.0, -1.0, 3.0]), 2).tolist()
      [True, False, True, False, False]
    """
    bits = jax.lax.bitcast_convert_type(scores.astype(jnp.float32), jnp.int32)

    def halve(_, bounds):
        low, high = bounds  # more than k lie above low, at most k above high
        middle = low + (high - low) // 2
        few = jnp.sum(bits > middle) <= k
        return jnp.where(few, low, middle), jnp.where(few, middle, high)

    infinity = 0x7F800000
    _, level = jax.lax.fori_loop(0, 31, halve, (jnp.int32(-1), jnp.int32(infinity)))
    above, tied = bits > level, bits == level
    return above | (tied & (jnp.cumsum(tied) <= k - jnp.sum(above)))


def prunable(w, level: str = "weight") -> bool:
    """Whether a parameter is pruned: kernels of rank 2 and more by weights, those of convolutions by groups."""
    return w.ndim >= 2 if level == "weight" else w.ndim == 4


def magnitude_masks(params, sparsity, level: str = "weight"):
    """Masks without the smallest weights, or filters of the smallest root mean square, of the whole network.

    Args:
      params: a tree of arrays; filters are indexed by the last axis.
      sparsity: share of the prunable weights (filters) that go, rounded down to a whole number; may be traced.
      level: "weight", or "group": the filters of convolutions.

    Returns:
      A tree of bools; all True where a parameter is not prunable.

    Examples:
      >>> magnitude_masks({"kernel": jnp.array([[1.0, -3.0, 2.0, 0.5]]), "bias": jnp.zeros(1)}, 0.5)["kernel"].tolist()
      [[False, True, True, False]]
    """
    leaves, treedef = jax.tree.flatten(params)
    masks = masks_within([scores_of(w, level) if prunable(w, level) else None for w in leaves], sparsity)
    every = [
        jnp.ones(w.shape, bool) if mask is None else jnp.broadcast_to(mask, w.shape)
        for w, mask in zip(leaves, masks, strict=True)
    ]
    return treedef.unflatten(every)


def masks_within(scores: list, sparsity) -> list:
    """For each array of scores that is there a mask of its shape; the largest of all of them together."""
    there = [s for s in scores if s is not None]
    total = sum(s.size for s in there)
    flat = k_largest(jnp.concatenate([s.ravel() for s in there]), total - removed(sparsity, total))
    masks, start = [], 0
    for s in scores:
        if s is None:
            masks.append(None)
            continue
        masks.append(flat[start : start + s.size].reshape(s.shape))
        start += s.size
    return masks


def scores_of(w, level: str):
    """|w| of each weight, or the root mean square of each filter, [1, ..., filters]."""
    if level == "weight":
        return jnp.abs(w).astype(jnp.float32)
    axes = tuple(range(w.ndim - 1))
    return jnp.sqrt(jnp.sum(jnp.square(w), axes, keepdims=True) / math.prod(w.shape[:-1])).astype(jnp.float32)


def removed(sparsity, total: int):
    """⌊q·n⌋ of a share in float32, in which 0.9·n may fall a little short of what 9n/10 is."""
    return jnp.floor(jnp.asarray(sparsity, jnp.float32) * total + 0.05).astype(jnp.int32)


def inside(masks, tree):
    """The tree with zeros where the masks are False."""
    return jax.tree.map(lambda mask, x: jnp.where(mask, x, jnp.zeros_like(x)), masks, tree)


def cut(masks, updates, params):
    """Updates after which the weights outside the masks are exactly zero."""
    return jax.tree.map(lambda mask, u, w: jnp.where(mask, u, -w).astype(w.dtype), masks, updates, params)


def need(params) -> None:
    if params is None:
        raise ValueError("weights are set to zero here, so they are needed: call tx.update(grads, opt_state, params).")
