"""Gradual magnitude pruning: while it trains, a network loses its smallest weights along a cubic schedule.

    q_t = q_f·(1 − (1 − (t − t₀)/nΔ)³)      at t = t₀, t₀ + Δ, …, t₀ + nΔ

References:
  Zhu and Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model compression" (arXiv
  1710.01878), equation 1.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from .masking import cut, inside, magnitude_masks, need


class MaskedState(NamedTuple):
    """Steps taken, the masks (True: kept), and the state of the wrapped optimizer."""

    count: Any
    masks: Any
    inner_state: Any


def unmasked(params, inner) -> MaskedState:
    """The state before the first step: everything is kept."""
    masks = jax.tree.map(lambda w: jnp.ones(w.shape, bool), params)
    return MaskedState(jnp.zeros((), jnp.int32), masks, inner.init(params))


def step_inside(masks, inner, updates, state: MaskedState, params, **extra_args) -> tuple[Any, MaskedState]:
    """A step of the wrapped optimizer by the gradient inside the masks; what is outside of them is zero after it."""
    updates, inner_state = inner.update(inside(masks, updates), state.inner_state, params, **extra_args)
    return cut(masks, updates, params), MaskedState(optax.safe_increment(state.count), masks, inner_state)


def cubic_sparsity(final, begin, end) -> optax.Schedule:
    """q_t: 0 up to `begin`, the final share from `end` on; all three may be traced.

    Examples:
      >>> [round(float(cubic_sparsity(0.8, 10, 20)(t)), 3) for t in (0, 10, 15, 20, 99)]
      [0.0, 0.0, 0.7, 0.8, 0.8]
    """

    def schedule(count):
        part = jnp.clip((jnp.asarray(count, jnp.float32) - begin) / (end - begin), 0.0, 1.0)
        return final * (1 - (1 - part) ** 3)

    return schedule


def gradual_magnitude_pruning(
    tx: optax.GradientTransformation, sparsity, begin, end, every: int, level: str = "weight"
) -> optax.GradientTransformationExtraArgs:
    """Wraps an optimizer; every Δ steps the smallest of the whole network go, and stay away.

    What was removed is zero and gets no gradient, so it never comes back: its magnitude is the smallest of all.

    Args:
      tx: the optimizer.
      sparsity: q_f, the share of the prunable weights or filters at the end; may be traced.
      begin, end: t₀ and the last step of the schedule, counted from 0; where Δ does not divide the way between them it
        ends earlier by the rest, but takes one Δ at least. May be traced.
      every: Δ ≥ 1.
      level: "weight", or "group": the filters of convolutions.
    """
    inner = optax.with_extra_args_support(tx)

    def init_fn(params) -> Any:
        return unmasked(params, inner)

    def update_fn(updates, state, params=None, **extra_args) -> tuple[Any, Any]:
        need(params)
        last = begin + jnp.maximum((end - begin) // every, 1) * every
        due = (state.count >= begin) & (state.count <= last) & ((state.count - begin) % every == 0)
        share = cubic_sparsity(sparsity, begin, last)(state.count)
        masks = jax.lax.cond(
            due,
            lambda: jax.tree.map(jnp.logical_and, state.masks, magnitude_masks(params, share, level)),
            lambda: state.masks,
        )
        return step_inside(masks, inner, updates, state, params, **extra_args)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
