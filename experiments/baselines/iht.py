"""Iterative hard thresholding: after every step only the k largest weights are left.

    W⁺ = H_k(W − α·ĝ),      H_k: the k entries of largest magnitude, zero elsewhere

The gradient is that of all weights, so that one outside can return as soon as its step is among the k largest.

References:
  Blumensath and Davies, "Iterative hard thresholding for compressed sensing" (2009); for networks Jin, Yuan, Feng and
  Yan, "Training skinny deep neural networks with iterative hard thresholding" (arXiv 1607.05423).
"""

from typing import Any

import optax

from .magnitude import MaskedState, unmasked
from .masking import cut, magnitude_masks, need


def iterative_hard_thresholding(
    tx: optax.GradientTransformation, sparsity, level: str = "weight"
) -> optax.GradientTransformationExtraArgs:
    """Wraps an optimizer; its step is followed by H_k.

    Args:
      tx: the optimizer.
      sparsity: share of the prunable weights (filters) of the whole network that are zero after a step; a number, a
        traced array, or a schedule of the step count.
      level: "weight", or "group": the filters of convolutions.
    """
    inner = optax.with_extra_args_support(tx)

    def init_fn(params) -> Any:
        return unmasked(params, inner)

    def update_fn(updates, state, params: Any = None, **extra_args) -> tuple[Any, Any]:
        need(params)
        updates, inner_state = inner.update(updates, state.inner_state, params, **extra_args)
        share = sparsity(state.count) if callable(sparsity) else sparsity
        masks = magnitude_masks(optax.apply_updates(params, updates), share, level)
        return cut(masks, updates, params), MaskedState(optax.safe_increment(state.count), masks, inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
