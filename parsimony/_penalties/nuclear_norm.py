"""The nuclear norm: a low-rank Γ by thresholding singular values."""

import dataclasses

import jax
import jax.numpy as jnp

from .prox import Shape, check_fields, check_rank, on_whole_matrix, whole_matrix


@dataclasses.dataclass(frozen=True)
class NuclearNorm:
    """Ω(X) = λ Σσ_i(X): low rank. A group is a singular direction.

    prox(V) = U diag((σ_i − λ)₊) Vᵀ for V = U diag(σ) Vᵀ. Costs a singular value decomposition a step.

    Args:
      strength: λ > 0.

    Examples:
      >>> NuclearNorm(1.0).prox(jnp.diag(jnp.array([3.0, 0.5]))).round(4).tolist()
      [[2.0, 0.0], [0.0, 0.0]]

    References:
      Cai, Candès and Shen, "A Singular Value Thresholding Algorithm for Matrix Completion" (2010).
    """

    strength: float = 1.0

    def __post_init__(self):
        check_fields(self)

    def check(self, shape: Shape) -> None:
        check_rank(self, shape, exactly=2)

    def prox(self, v):
        return on_whole_matrix(lambda whole: _singular_value_threshold(_wide(whole), self.strength), v).astype(v.dtype)

    def value(self, x):
        return self.strength * jnp.sum(self.group_norms(x))

    def group_norms(self, x):
        singular = jnp.linalg.svd(_wide(whole_matrix(x)), compute_uv=False)
        return jnp.where(singular <= _rounding(singular, x), 0, singular).astype(x.dtype)


def _wide(x):
    """x in a dtype that has a singular value decomposition."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _rounding(singular, x):
    """Below this, a singular value of a computed matrix is rounding (numpy.linalg.matrix_rank's rule)."""
    return jnp.max(singular, initial=0) * max(x.shape) * jnp.finfo(x.dtype).eps


def _exact_products():
    """An accelerator's default rounds the factors of a product (TF32, bfloat16), and a low rank becomes a full one."""
    return jax.default_matmul_precision("highest")


@jax.custom_jvp
def _singular_value_threshold(v, threshold):
    u, s, vt = jnp.linalg.svd(v, full_matrices=False)
    with _exact_products():
        return (u * jnp.maximum(s - threshold, 0)[None, :]) @ vt


@_singular_value_threshold.defjvp
def _singular_value_threshold_jvp(primals, tangents):
    """The derivative of a spectral function by divided differences of f(σ) = (σ − λ)₊.

    That of the decomposition itself is infinite where singular values coincide, at V = 0 first of all.

    References:
      Lewis and Sendov, "Nonsmooth Analysis of Singular Values" (2005).
    """
    v, threshold = primals
    dv = tangents[0]
    u, s, vt = jnp.linalg.svd(v, full_matrices=False)
    f = jnp.maximum(s - threshold, 0)
    inside = s > threshold
    across = inside[:, None] != inside[None, :]  # else f has slope 0 or 1 from σ_i to σ_j, however near they lie
    slope = jnp.subtract.outer(f, f) / jnp.where(across, jnp.subtract.outer(s, s), 1)
    minus = jnp.where(across, slope, inside[None, :].astype(f.dtype))
    total = jnp.add.outer(s, s)
    plus = jnp.where(total > 0, jnp.add.outer(f, f) / jnp.where(total > 0, total, 1), 0)
    ratio = jnp.where(s > 0, f / jnp.where(s > 0, s, 1), 0)[None, :]
    with _exact_products():
        core = u.T @ dv @ vt.T
        inner = minus * (core + core.T) / 2 + plus * (core - core.T) / 2
        rows, columns = dv @ vt.T - u @ core, u.T @ dv - core @ vt
        return (u * f[None, :]) @ vt, u @ inner @ vt + (rows * ratio) @ vt + (u * ratio) @ columns


def project(w: jax.Array, gamma: jax.Array) -> jax.Array:
    """W projected to the column and row spaces of Γ: what W·1[Γ ≠ 0] is to a Γ of low rank.

    Like that indicator, the spaces have no derivative here; that of the decomposition is infinite at Γ = 0.
    """

    def onto(w, gamma):
        u, s, vt = jnp.linalg.svd(_wide(gamma), full_matrices=False)
        alive = (s > _rounding(s, gamma)).astype(s.dtype)
        with _exact_products():
            return (u * alive[None, :]) @ (u.T @ w @ vt.T) @ (vt * alive[:, None])

    return on_whole_matrix(onto, _wide(w), jax.lax.stop_gradient(gamma)).astype(w.dtype)
