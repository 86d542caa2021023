"""Staying inside a support: masks put on weights, and a wrapper that keeps any optimizer inside them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ._checks import as_arrays, transformation
from ._state import check_params, check_state
from ._tree import named_leaves
from ._words import shown


def apply_masks(params: optax.Params, masks):
    """W where the mask is True, exact zeros elsewhere.

    Args:
      params: the weights.
      masks: a tree of bool arrays of their shapes, from `select` or `support`; a parameter absent from it
        (`optax.MaskedNode`, None) is kept.

    Returns:
      The tree of `params`, with its dtypes.

    Raises:
      TypeError: a mask is not bool.
      ValueError: the masks have other shapes, or belong to other parameters.

    Examples:
      >>> import jax.numpy as jnp, parsimony as pm
      >>> pm.apply_masks({"kernel": jnp.array([1.0, 2.0])}, {"kernel": jnp.array([True, False])})["kernel"].tolist()
      [1.0, 0.0]
    """
    check_params(params)
    weights, treedef = named_leaves(params)
    if weights and all(_is_mask(w) for _, w in weights) and not any(_is_mask(m) for _, m in named_leaves(masks)[0]):
        raise TypeError("apply_masks: params are bool arrays; the arguments are swapped: apply_masks(params, masks).")
    inside = _by_name(masks, weights)
    return treedef.unflatten([_inside(inside.get(name), w) for name, w in weights])


class KeepSupportState(NamedTuple):
    """State of `keep_support`: its masks, which so follow the parameters to devices and checkpoints.

    Attributes:
      masks: a tree of bool arrays, those that `keep_support` was given.
      inner_state: state of the wrapped transformation.

    Examples:
      >>> import jax.numpy as jnp, optax, parsimony as pm
      >>> tx = pm.keep_support(optax.sgd(0.5), {"kernel": jnp.array([True, False])})
      >>> optax.tree.get(tx.init({"kernel": jnp.ones(2)}), "masks")["kernel"].tolist()
      [True, False]

    References:
      See `keep_support`.
    """

    masks: Any
    inner_state: optax.OptState


def keep_support(tx: optax.GradientTransformation, masks) -> optax.GradientTransformationExtraArgs:
    """Any Optax optimizer inside a fixed support: weights outside it are exactly zero after every step.

    Gradient and weights are zero outside the masks before `tx` sees them, so that norms (clipping), moments (Adam) and
    averages (`optax.contrib.schedule_free`) are those of the small network; the update is −W there, so that W + update
    is zero whatever `tx` adds: decay, noise, momentum from before. Place it around everything else,
    `optax.MultiSteps` excepted.

    Args:
      tx: any transformation.
      masks: as in `apply_masks`.

    Returns:
      A `GradientTransformationExtraArgs` with state `KeepSupportState`; `update` needs `params`.

    Raises:
      TypeError: `tx` is not a transformation, or a mask is not bool.
      ValueError: the masks do not fit the parameters (at `init`), or `params` is missing (at `update`).

    Examples:
      >>> import jax.numpy as jnp, optax, parsimony as pm
      >>> params, masks = {"kernel": jnp.array([1.0, 2.0])}, {"kernel": jnp.array([True, False])}
      >>> tx = pm.keep_support(optax.sgd(0.5), masks)
      >>> updates, state = tx.update({"kernel": jnp.ones(2)}, tx.init(params), params)
      >>> optax.apply_updates(params, updates)["kernel"].tolist()
      [0.5, 0.0]

    References:
      Projected steps; Han et al., "Learning both Weights and Connections" (arXiv 1506.02626), for fine-tuning inside a
      support.
    """
    if hasattr(masks, "init") and hasattr(masks, "update"):
        raise TypeError(
            "keep_support: expected an Optax transformation first, then masks; the arguments are swapped: call "
            "keep_support(tx, masks)."
        )
    inner = transformation(f"keep_support({shown(tx)}, ...)", tx, "optax.sgd(0.01)")
    _check_bool(named_leaves(masks)[0])

    def init_fn(params) -> Any:
        # Optax initialises on a placeholder without leaves (optax.tree.map_params).
        small = apply_masks(params, masks) if named_leaves(params)[0] else params
        # A copy: the state must share no buffer with the caller's masks, or donating it would delete them.
        return KeepSupportState(jax.tree.map(lambda mask: jnp.array(mask), masks), inner.init(small))

    def update_fn(updates, state, params=None, **extra_args) -> tuple[Any, Any]:
        if params is None:
            raise ValueError("keep_support sets weights to zero and needs them: call tx.update(grads, state, params).")
        check_state(KeepSupportState, state)
        updates, params = as_arrays((updates, params))
        weights = named_leaves(params)[0]
        inside = _by_name(state.masks, weights)
        grads, treedef = named_leaves(updates)
        updates = treedef.unflatten([_inside(inside.get(name), g) for name, g in grads])
        small = treedef.unflatten([_inside(inside.get(name), w) for name, w in weights])
        updates, inner_state = inner.update(updates, state.inner_state, small, **extra_args)
        new = [
            u if name not in inside else jnp.where(inside[name], u, -w)
            for (name, w), u in zip(weights, treedef.flatten_up_to(updates), strict=True)
        ]
        return treedef.unflatten(new), KeepSupportState(state.masks, inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _inside(mask, w):
    return jnp.array(w) if mask is None else jnp.where(mask, w, jnp.zeros_like(w))


def _by_name(masks, weights) -> dict[str, Any]:
    """{name: mask}, checked to be of these weights."""
    found, _ = named_leaves(masks)
    _check_bool(found)
    shapes = {name: jnp.shape(w) for name, w in weights}
    for name, mask in found:
        if shapes.get(name) != jnp.shape(mask):
            given = f"shape {shapes[name]} there" if name in shapes else f"only {sorted(shapes)[:8]}"
            raise ValueError(
                f"masks and params do not match: there is a mask of shape {jnp.shape(mask)} for {name!r}, "
                f"params have {given}. Masks are made for one network by pm.select or pm.support."
            )
    return dict(found)


def _is_mask(leaf) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray) and leaf.dtype == bool


def _check_bool(masks) -> None:
    for name, mask in masks:
        if not _is_mask(mask):
            kind = getattr(mask, "dtype", type(mask).__name__)
            raise TypeError(f"masks: expected bool arrays, got {kind} for {name!r}; for 0 and 1 write mask != 0.")
