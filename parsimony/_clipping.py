"""Clipping by the global norm of the support, for a W that is finished inside it."""

import jax.numpy as jnp
import optax

from ._checks import check_count, check_positive
from ._tree import aligned


def clip_by_support_norm(max_norm: float, finish: int | None) -> optax.GradientTransformation:
    """Scales a gradient so that its global norm, once W is finished that of the support, is at most `max_norm`.

        g⁺ = g·min(1, max_norm/‖g_S‖),    S = {all} up to step `finish`, {W ≠ 0} after it

    Outside a finished support W stays zero whatever its gradient says, and there are many more weights outside, with
    large gradients. `optax.clip_by_global_norm` counts them: what is inside would hardly move.

    Args:
      max_norm: a positive number.
      finish: as in `inverse_scale_space`, that of `pace`; None for a W that stays dense: `optax.clip_by_global_norm`.

    Returns:
      A `GradientTransformation` for the place before `split_lbi` in a chain, whose state counts the steps.

    Raises:
      ValueError, TypeError: a norm that is not positive, a `finish` that is no int ≥ 1; `params` is missing (at
        `update`).

    Examples:
      >>> import jax.numpy as jnp, optax, parsimony as pm
      >>> paced = pm.pace(0.1, 1000, sparsity=0.9)
      >>> tx = optax.chain(pm.clip_by_support_norm(1.0, paced["finish"]), pm.split_lbi(0.1, **paced))

      >>> params, tx = {"w": jnp.array([0.0, 3.0])}, pm.clip_by_support_norm(1.5, finish=1)
      >>> state = tx.init(params)
      >>> for _ in range(3):  # the second makes W zero outside, the third is the first inside
      ...     updates, state = tx.update({"w": jnp.array([4.0, 3.0])}, state, params)
      >>> updates["w"].tolist()
      [2.0, 1.5]

    References:
      Pascanu, Mikolov, Bengio, "On the difficulty of training recurrent neural networks" (arXiv 1211.5063), §3.2.
    """
    check_positive("max_norm", max_norm)
    if finish is None:
        return optax.clip_by_global_norm(max_norm)
    check_count("finish", finish, "the steps before W is finished, an int ≥ 1, or None")

    def update_fn(updates, state, params=None):
        if params is None:
            raise ValueError("the support is where W is not zero: call tx.update(grads, opt_state, params).")
        treedef, (grads, weights) = aligned(grads=updates, params=params)
        over = state > finish  # at that step itself W is not zero outside yet
        counted = [jnp.where(over & (w == 0), jnp.zeros_like(g), g) for g, w in zip(grads, weights, strict=True)]
        scale = jnp.minimum(1.0, max_norm / optax.tree.norm(counted))
        clipped = [(scale * g).astype(g.dtype) for g in grads]
        return treedef.unflatten(clipped), optax.safe_increment(state)

    return optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), update_fn)
