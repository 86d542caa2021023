"""Clipping by the global norm of the weights that are not zero, for a W that is finished inside its support."""

import jax.numpy as jnp
import optax

from ._checks import check_positive
from ._tree import aligned


def clip_by_support_norm(max_norm: float) -> optax.GradientTransformation:
    """Scales a gradient so that its global norm over the weights that are not zero is at most `max_norm`.

        g⁺ = g·min(1, max_norm/‖g_S‖),    S = {W ≠ 0}, at the first step {all}

    What a `finish` has cut off from W stays zero whatever its gradient says, and there are many more such weights than
    others, with large gradients. `optax.clip_by_global_norm` counts them: what is left would hardly move. Of a W
    without zeros both are the same.

    Args:
      max_norm: a positive number.

    Returns:
      A `GradientTransformation` for the place before `split_lbi` in a chain; its state tells the first step, when W is
      zero where it starts from zero.

    Raises:
      ValueError, TypeError: a norm that is not positive; `params` is missing (at `update`).

    Examples:
      >>> import jax.numpy as jnp, optax, parsimony as pm
      >>> tx = optax.chain(pm.clip_by_support_norm(1.0), pm.split_lbi(0.1, **pm.pace(0.1, 1000, sparsity=0.9)))

      >>> params, tx = {"w": jnp.array([0.0, 3.0])}, pm.clip_by_support_norm(1.5)
      >>> state = tx.init(params)
      >>> for _ in range(2):
      ...     updates, state = tx.update({"w": jnp.array([4.0, 3.0])}, state, params)
      ...     print([round(g, 3) for g in updates["w"].tolist()])
      [1.2, 0.9]
      [2.0, 1.5]

    References:
      Pascanu, Mikolov, Bengio, "On the difficulty of training recurrent neural networks" (arXiv 1211.5063), §3.2.
    """
    check_positive("max_norm", max_norm)

    def update_fn(updates, state, params=None):
        if params is None:
            raise ValueError("the support is where W is not zero: call tx.update(grads, opt_state, params).")
        treedef, (grads, weights) = aligned(grads=updates, params=params)
        counted = [jnp.where(~state & (w == 0), jnp.zeros_like(g), g) for g, w in zip(grads, weights, strict=True)]
        scale = jnp.minimum(1.0, max_norm / optax.tree.norm(counted))
        clipped = [(scale * g).astype(g.dtype) for g in grads]
        return treedef.unflatten(clipped), jnp.zeros_like(state)

    return optax.GradientTransformation(lambda params: jnp.ones((), bool), update_fn)
