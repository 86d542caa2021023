"""Network slimming: ℓ1 on the scales of the normalisations, a cut by them, and fine-tuning.

    ∇L(W) + s·sign(γ)  up to step T;   then the filters of smallest |γ| of the whole network go, and stay away

References:
  Liu, Li, Shen, Huang, Yan and Zhang, "Learning efficient convolutional networks through network slimming" (arXiv
  1708.06519).
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ..training.network import by_name
from .magnitude import step_inside, unmasked
from .masking import masks_within, need


def network_slimming(
    tx: optax.GradientTransformation, filters: Sequence[Sequence[str]], strength, sparsity, at
) -> optax.GradientTransformationExtraArgs:
    """Wraps an optimizer; before step T the scales are penalised, at step T the filters are cut.

    Args:
      tx: the optimizer.
      filters: of each convolution the names of what belongs to a filter alone, which goes with it: its kernel, whose
        last axis counts filters, and vectors, one of which is named "…/scale".
      strength: s ≥ 0; may be traced.
      sparsity: share of the filters of the whole network that go; may be traced.
      at: T, counted from 0; may be traced.

    Raises:
      ValueError: a convolution without a scale.
    """
    scales = [[name for name in names if name.endswith("/scale")] for names in filters]
    if not filters or not all(scales):
        raise ValueError(
            "network slimming cuts by the scales of normalisations: expected a scale for every convolution, found "
            f"those of {sum(map(len, scales))} of {len(filters)}."
        )
    scale_of = [names[0] for names in scales]
    convolution = {name: place for place, names in enumerate(filters) for name in names}
    inner = optax.with_extra_args_support(tx)

    def init_fn(params) -> Any:
        return unmasked(params, inner)

    def update_fn(updates, state, params: Any = None, **extra_args) -> tuple[Any, Any]:
        need(params)
        weights, (leaves, treedef) = by_name(params), jax.tree.flatten(updates)

        def masks_by_scale():
            kept = masks_within([jnp.abs(weights[name]).astype(jnp.float32) for name in scale_of], sparsity)
            of = lambda name: kept[convolution[name]] if name in convolution else jnp.ones((), bool)
            return treedef.unflatten([jnp.broadcast_to(of(name), w.shape) for name, w in weights.items()])

        penalty = jnp.where(state.count < at, strength, 0.0)
        updates = treedef.unflatten(
            [
                g + (penalty * jnp.sign(w)).astype(g.dtype) if name in scale_of else g
                for g, (name, w) in zip(leaves, weights.items(), strict=True)
            ]
        )
        masks = jax.lax.cond(state.count == at, masks_by_scale, lambda: state.masks)
        return step_inside(masks, inner, updates, state, params, **extra_args)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
