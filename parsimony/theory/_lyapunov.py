"""What descends along a run: the Lyapunov function F."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from .._checks import check_positive
from .._readout import matched


def lyapunov(
    loss: Callable[[Any], jax.Array],
    params: optax.Params,
    opt_state: optax.OptState,
    previous: optax.OptState,
    learning_rate: float,
    nu: float,
) -> jax.Array:
    """F_k = αL̄(W_k, Γ_k) + Ω(Γ_k) + Ω*(g_{k−1}) − ⟨Γ_k, g_{k−1}⟩, what descends along a run.

    The last three are the Bregman distance B(Γ_k; Γ_{k−1}). Since Ω is a norm, Ω* is zero on its subgradients and
    Ω(Γ) = ⟨Γ, g⟩ for each of them, so

        F_k = αL̄(W_k, Γ_k) + ⟨Γ_k, g_k − g_{k−1}⟩,   g = V − Prox_Ω(V),

    which rounds less, and asks a penalty for its prox only. Each step with α < `max_learning_rate(Lip, κ, ν)` takes
    at least (1/κ − αλ/2)·(‖W⁺ − W‖² + ‖Γ⁺ − Γ‖²) from F, if α, κ and ν are constant, there is no momentum, and each
    step sees the whole loss. With a `dual_learning_rate` ≤ α in the place of α, F descends too.

    Args:
      loss: L(params), a scalar.
      params: W_k.
      opt_state: the state after k steps, with that of Split LBI in it, however deep.
      previous: the state after k − 1 steps; at the start `opt_state` itself, with F_0 = αL̄(W_0, 0).
      learning_rate: the step of V: α of the run, or its `dual_learning_rate` where that is given.
      nu: ν of the run.

    Returns:
      F_k, a scalar. May be called inside `jit` and `scan`.

    Raises:
      ValueError: the states are not those of this run; see `parsimony.sparse_params`.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, parsimony as pm
      >>> loss = lambda params: jnp.sum((params["w"] - 3) ** 2) / 2
      >>> alpha = 0.9 * pm.theory.max_learning_rate(1.0, kappa=1.0, nu=1.0)
      >>> tx = pm.inverse_scale_space(alpha, kappa=1.0, nu=1.0, penalty=pm.Lasso())
      >>> params, values = {"w": jnp.zeros((1, 1))}, []
      >>> state = previous = tx.init(params)
      >>> for _ in range(8):
      ...     values.append(float(pm.theory.lyapunov(loss, params, state, previous, alpha, 1.0)))
      ...     updates, following = tx.update(jax.grad(loss)(params), state, params)
      ...     params, state, previous = optax.apply_updates(params, updates), following, state
      >>> sorted(values, reverse=True) == values
      True

    References:
      ArXiv 1905.09449.
    """
    check_positive("learning_rate", learning_rate)
    check_positive("nu", nu)
    if callable(learning_rate):
        raise TypeError("learning_rate is a schedule: expected the number α of the run; F descends for a constant one.")
    weights, _, known = matched(params, opt_state)
    _, _, former = matched(params, previous)
    if known.keys() != former.keys():
        raise ValueError(
            f"opt_state penalises {sorted(known)[:6]}, previous {sorted(former)[:6]}: expected states of one run, "
            "one step apart."
        )
    coupling: Any = sum(jnp.sum(jnp.square(w - known[name][1])) for name, w in weights if name in known)
    subgradient = lambda state: state[2] - state[0].prox(state[2])
    bregman: Any = sum(
        jnp.sum(state[1] * (subgradient(state) - subgradient(former[name]))) for name, state in known.items()
    )
    return learning_rate * (loss(params) + coupling / (2 * nu)) + bregman
