"""How large a step may be: the bound on α, and the smoothness of a loss by Lanczos."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from .._checks import as_arrays, check_count, check_positive, check_scalar


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
      ValueError, TypeError: an argument is not such a number.

    Examples:
      >>> import parsimony as pm
      >>> pm.theory.max_learning_rate(lipschitz=1.5, kappa=1.0, nu=1.0)  # λ = 3; 2/(Lip + 1/ν) would be 0.8
      0.6666666666666666

    References:
      See the module; the eigenvalue is elementary.
    """
    for name, value in [("lipschitz", lipschitz), ("kappa", kappa), ("nu", nu)]:
        check_scalar(name, value, "a positive number, or 0" if name == "lipschitz" else "a positive number")
        if name != "lipschitz" or value != 0:
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
      iterations: the maximum number of Hessian-vector products.
      tolerance: relative, see above.

    Returns:
      |θ| + r.

    Raises:
      TypeError: `loss` is not a function, or the parameters are not real and floating-point.
      ValueError: the loss is not a scalar, there are no parameters, the Hessian is not finite here, or a number is out
        of range.

    Examples:
      >>> import jax.numpy as jnp, parsimony as pm
      >>> loss = lambda w, scale: jnp.sum(scale * w**2) / 2
      >>> round(pm.theory.lipschitz(loss, jnp.ones(3), jnp.array([0.5, -4.0, 1.0])), 3)
      4.0

    References:
      Lanczos (1950); Paige (1980) for the Ritz values without orthogonality.
    """
    check_positive("tolerance", tolerance)
    check_count("iterations", iterations, "the maximum number of Hessian-vector products, an int ≥ 1")
    if not callable(loss):
        raise TypeError(f"loss={loss!r}: expected a function of the parameters, such as lambda w: jnp.sum(w**2).")
    params = as_arrays(params)
    leaves, treedef = jax.tree.flatten(params)
    if not leaves:
        raise ValueError(f"params={params!r}: expected a tree with arrays to differentiate by.")
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
