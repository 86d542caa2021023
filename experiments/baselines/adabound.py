"""AdaBound: Adam's step for each weight, between bounds that close in on SGD's.

    W⁺ = W − clip(α√(1 − β₂ᵗ)/(1 − β₁ᵗ)/(√s + ε), l_t, u_t)·m,    l_t = α*(1 − 1/(γt + 1)),   u_t = α*(1 + 1/(γt))

m, s: the running means of ∇L and ∇L²; α* the step at the end, which falls with α.

References:
  Luo, Xiong, Liu and Sun, "Adaptive Gradient Methods with Dynamic Bound of Learning Rate" (arXiv 1902.09843), Algorithm
  1, with the bias correction and the bounds of the published code.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax


def scale_by_adabound(
    learning_rate, final_learning_rate=0.1, b1: float = 0.9, b2: float = 0.999, gamma: float = 1e-3, eps: float = 1e-8
) -> optax.GradientTransformation:
    """The step of the module's docstring with its sign turned: a last `optax.scale(-1)` makes it a descent."""

    def init_fn(params) -> Any:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return optax.ScaleByAdamState(jnp.zeros((), jnp.int32), zeros, jax.tree.map(jnp.zeros_like, params))

    def update_fn(updates, state, params=None) -> tuple[Any, Any]:
        del params
        rate: Any = learning_rate if callable(learning_rate) else lambda count: learning_rate
        alpha, first = rate(state.count), rate(0)
        t = optax.safe_increment(state.count)
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, updates)
        nu = jax.tree.map(lambda s, g: b2 * s + (1 - b2) * g * g, state.nu, updates)
        step = alpha * jnp.sqrt(1 - b2**t) / (1 - b1**t)
        end = final_learning_rate * alpha / first
        low, high = end * (1 - 1 / (gamma * t + 1)), end * (1 + 1 / (gamma * t))
        updates = jax.tree.map(lambda m, s: jnp.clip(step / (jnp.sqrt(s) + eps), low, high) * m, mu, nu)
        return updates, optax.ScaleByAdamState(t, mu, nu)

    return optax.GradientTransformation(init_fn, update_fn)


def adabound(learning_rate, final_learning_rate=0.1, **arguments) -> optax.GradientTransformation:
    """AdaBound; `learning_rate` is Adam's α, a number, a traced array or a schedule.

    Examples:
      >>> params, tx = {"w": jnp.zeros(1)}, adabound(1e-3)
      >>> updates, _ = tx.update({"w": jnp.ones(1)}, tx.init(params), params)
      >>> round(float(updates["w"][0]), 5)  # Adam's first step is α; the lower bound is near 0 still
      -0.001
    """
    return optax.chain(scale_by_adabound(learning_rate, final_learning_rate, **arguments), optax.scale(-1.0))
