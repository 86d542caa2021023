"""What the theory says of a run: how large a step may be, what descends, and where the path goes in the limit.

With z = (W, Γ), L̄(z) = L(W) + ‖W − Γ‖²/2ν, and g = V − Γ/κ = V − Prox_Ω(V), which lies in ∂Ω(Γ) since Ω is a norm,
the iteration reads

    W⁺ = W − κα∇_W L̄(z),   g⁺ + Γ⁺/κ = g + Γ/κ − α∇_Γ L̄(z).

Let λ be a smoothness constant of L̄ (`max_learning_rate` computes it). Multiply the two lines by W⁺ − W and Γ⁺ − Γ:

    α(L̄(z⁺) − L̄(z)) ≤ α⟨∇L̄(z), z⁺ − z⟩ + αλ/2·‖z⁺ − z‖² = −(1/κ − αλ/2)‖z⁺ − z‖² − ⟨g⁺ − g, Γ⁺ − Γ⟩.

The last product is B(Γ⁺; Γ) + B(Γ; Γ⁺), the Bregman distances B(x; Γ_k) = Ω(x) − Ω(Γ_k) − ⟨g_k, x − Γ_k⟩ ≥ 0. So

    F_k = αL̄(z_k) + B(Γ_k; Γ_{k−1})   obeys   F_{k+1} ≤ F_k − (1/κ − αλ/2)‖z_{k+1} − z_k‖²,

and descends for α < 2/(κλ). It holds for steps without momentum, of the whole loss, at a constant α.

Source: Fu, Liu, Li, Sun, Zeng, Yao, arXiv 1905.09449, for F; the constant is derived here.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ._checks import as_arrays, check_positive
from ._exact_path import ExactPath as ExactPath
from ._exact_path import exact_path as exact_path
from ._readout import matched


def max_learning_rate(lipschitz: float, kappa: float = 1.0, nu: float = 100.0) -> float:
    """The bound 2/(κλ) below which F descends; λ is the smoothness constant of L̄ in (W, Γ) *together*.

    If ∇L is Lip-smooth, L̄ has curvature at most Lip‖w‖² + ‖w − γ‖²/ν in the direction (w, γ): that of the matrix

        [ Lip + 1/ν   −1/ν ]
        [ −1/ν         1/ν ]      with trace Lip + 2/ν, determinant Lip/ν, and so the larger eigenvalue

        λ = Lip/2 + 1/ν + √(Lip²/4 + 1/ν²) ≤ Lip + 2/ν.

    The block of W alone has Lip + 1/ν, and 2/(κ(Lip + 1/ν)) is often quoted; it forgets that Γ moves as well, and
    the iteration can diverge below it. For a quadratic loss 2/(κλ) is sharp: z takes gradient steps of length κα on
    L̄, but for κ(g − g⁺), which is bounded, and far out they grow. A `dual_learning_rate` ≤ α keeps the bound.

    Args:
      lipschitz: Lip ≥ 0, the smoothness of L where the run goes; see `lipschitz`.
      kappa: κ.
      nu: ν.

    Returns:
      2/(κλ). Take α below it, such as 0.9 of it, for steps without momentum.

    Raises:
      ValueError, TypeError: for what is no such number.

    >>> import parsimony as pm
    >>> pm.theory.max_learning_rate(lipschitz=1.5, kappa=1.0, nu=1.0)  # λ = 3; 2/(Lip + 1/ν) would be 0.8
    0.6666666666666666

    Source: see the module; the eigenvalue is elementary.
    """
    for name, value in [("lipschitz", lipschitz), ("kappa", kappa), ("nu", nu)]:
        if isinstance(value, bool) or name != "lipschitz" or value != 0:
            check_positive(name, value)
    half, coupling = float(lipschitz) / 2, 1 / float(nu)
    return 2 / (float(kappa) * (half + coupling + math.hypot(half, coupling)))


def lipschitz(
    loss: Callable[..., jax.Array], params: optax.Params, *args: Any, iterations: int = 100, tolerance: float = 1e-3
) -> float:
    """The smoothness of L at W: the largest |eigenvalue| of ∇²L(W), by Lanczos on Hessian-vector products.

    Lanczos projects ∇²L to a tridiagonal matrix T. The Ritz value θ, the eigenvalue of T largest in modulus, lies below
    that of ∇²L and within r = β_m|s_m| of some eigenvalue, s its eigenvector. It stops when r ≤ `tolerance`·|θ|, and
    returns |θ| + r. No basis is kept: lost orthogonality repeats Ritz values, and spoils none. It costs the memory of
    three gradients, and about two gradients of time an iteration.

    Constant for quadratic losses; else a property of this W and this batch, and a bound on α for a whole run wants
    the largest along it.

    Args:
      loss: L(params, *args), a real scalar.
      params: W, any tree of real floating-point arrays.
      args: what else the loss takes, such as a batch; a new one of the same shapes does not compile again.
      iterations: the most Hessian-vector products.
      tolerance: relative, see above.

    Returns:
      |θ| + r.

    Raises:
      TypeError: a loss that is no function, or parameters that are not real and floating-point.
      ValueError: no scalar loss; no parameters; a Hessian that is not finite here; no such numbers.

    >>> import jax.numpy as jnp, parsimony as pm
    >>> loss = lambda w, scale: jnp.sum(scale * w**2) / 2
    >>> round(pm.theory.lipschitz(loss, jnp.ones(3), jnp.array([0.5, -4.0, 1.0])), 3)
    4.0

    Source: Lanczos (1950); Paige (1980) for the Ritz values without orthogonality.
    """
    check_positive("tolerance", tolerance)
    if isinstance(iterations, bool) or not isinstance(iterations, int | np.integer) or iterations < 1:
        raise ValueError(f"iterations={iterations!r}: expected the most Hessian-vector products, an int ≥ 1.")
    if not callable(loss):
        raise TypeError(f"loss={loss!r}: expected a function of the parameters, such as lambda w: jnp.sum(w**2).")
    params = as_arrays(params)
    leaves, treedef = jax.tree.flatten(params)
    if not leaves:
        raise ValueError(f"params={params!r}: expected a tree with arrays; there is nothing to differentiate by.")
    if not all(jnp.issubdtype(w.dtype, jnp.floating) for w in leaves):
        raise TypeError(f"params have {[str(w.dtype) for w in leaves]}: expected real floating-point arrays alone.")
    keys = treedef.unflatten(list(jax.random.split(jax.random.key(0), len(leaves))))
    start = jax.tree.map(
        lambda w, key: jax.random.normal(key, w.shape, jnp.promote_types(w.dtype, "float32")), params, keys
    )
    now, before, beta = _scaled(start, 1 / jnp.sqrt(_dot(start, start))), _scaled(start, 0.0), jnp.zeros(())
    diagonal, off, ritz, error = [], [], 0.0, 0.0
    for _ in range(iterations):
        alpha, beta, following = _lanczos(loss, params, args, now, before, beta)
        diagonal.append(float(alpha))
        if not math.isfinite(diagonal[-1]):
            raise ValueError("loss has no finite second derivative at these parameters: the product with it holds NaN.")
        values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(off, -1), UPLO="L")
        at = np.argmax(np.abs(values))
        ritz, error = abs(float(values[at])), float(beta) * abs(float(vectors[-1, at]))
        if error <= tolerance * ritz:
            break
        now, before = following, now
        off.append(float(beta))
    return ritz + error


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
      ValueError: states that are not of this run; see `parsimony.sparse_params`.

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

    Source: arXiv 1905.09449.
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
    subgradient = lambda own: own[2] - own[0].prox(own[2])
    bregman: Any = sum(jnp.sum(own[1] * (subgradient(own) - subgradient(former[name]))) for name, own in known.items())
    return learning_rate * (loss(params) + coupling / (2 * nu)) + bregman


@functools.partial(jax.jit, static_argnums=0)
def _lanczos(loss, params, args, now, before, beta):
    """(α_m, β_m, q_{m+1}) from q_m, q_{m−1} and β_{m−1}."""

    def gradient(w):
        return jax.grad(lambda w: _one_number(loss(w, *args)))(w)

    tangent = jax.tree.map(lambda q, w: q.astype(w.dtype), now, params)
    _, product = jax.jvp(gradient, (params,), (tangent,))
    rest = jax.tree.map(lambda h, q: h.astype(q.dtype) - beta.astype(q.dtype) * q, product, before)
    alpha = _dot(rest, now)
    rest = jax.tree.map(lambda r, q: r - alpha.astype(q.dtype) * q, rest, now)
    beta = jnp.sqrt(_dot(rest, rest))
    return alpha, beta, _scaled(rest, jnp.where(beta > 0, 1 / jnp.where(beta > 0, beta, 1), 0))


def _one_number(out):
    if (
        not jax.tree_util.treedef_is_leaf(jax.tree.structure(out))
        or jnp.shape(out)
        or not jnp.issubdtype(jnp.result_type(out), jnp.floating)
    ):
        found = jax.tree.map(lambda x: f"{jnp.result_type(x)}{list(jnp.shape(x))}", out)
        raise ValueError(f"loss returns {found}: expected one real number; of a loss per example take the mean.")
    return out


def _dot(one, other) -> Any:
    return sum(jnp.sum(a * b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))


def _scaled(tree, factor):
    return jax.tree.map(lambda x: x * jnp.asarray(factor, x.dtype), tree)
