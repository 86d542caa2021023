"""The nuclear norm: a low-rank Γ by thresholding singular values."""

import dataclasses

import jax
import jax.numpy as jnp

from ._penalties import Shape, check_fields, check_rank, on_whole_matrix


@dataclasses.dataclass(frozen=True)
class NuclearNorm:
    """Ω(X) = λ Σσ_i(X): low rank. A group is a singular direction.

    prox(V) = U diag((σ_i − λ)₊) Vᵀ for V = U diag(σ) Vᵀ. Costs a singular value decomposition a step.

    Args:
      strength: λ > 0.

    >>> NuclearNorm(1.0).prox(jnp.diag(jnp.array([3.0, 0.5]))).round(4).tolist()
    [[2.0, 0.0], [0.0, 0.0]]

    Source: Cai, Candès and Shen, "A Singular Value Thresholding Algorithm for Matrix Completion" (2010).
    """

    strength: float = 1.0

    def __post_init__(self):
        check_fields(self)

    def check(self, shape: Shape) -> None:
        check_rank(self, shape, exactly=2)

    def prox(self, v):
        return on_whole_matrix(lambda whole: _singular_value_threshold(whole, self.strength), v)

    def value(self, x):
        return self.strength * jnp.sum(self.group_norms(x))

    def group_norms(self, x):
        singular = jnp.linalg.svd(x, compute_uv=False)
        return jnp.where(singular > _rounding(singular, x.shape), singular, 0)


def _rounding(singular, shape: Shape):
    """Below this, a singular value of a computed matrix is rounding (numpy.linalg.matrix_rank's rule)."""
    return jnp.max(singular, initial=0) * max(shape) * jnp.finfo(singular.dtype).eps


@jax.custom_jvp
def _singular_value_threshold(v, threshold):
    u, s, vt = jnp.linalg.svd(v, full_matrices=False)
    return (u * jnp.maximum(s - threshold, 0)) @ vt


@_singular_value_threshold.defjvp
def _singular_value_threshold_jvp(primals, tangents):
    """The derivative of a spectral function by divided differences of f(σ) = (σ − λ)₊.

    That of the decomposition itself is infinite where singular values coincide, at V = 0 first of all.
    Source: Lewis and Sendov, "Nonsmooth Analysis of Singular Values" (2005).
    """
    v, threshold = primals
    dv = tangents[0]
    u, s, vt = jnp.linalg.svd(v, full_matrices=False)
    f = jnp.maximum(s - threshold, 0)
    difference, total = s[:, None] - s, s[:, None] + s
    inside = ((s[:, None] > threshold) & (s > threshold)).astype(v.dtype)
    equal = jnp.abs(difference) <= jnp.finfo(v.dtype).eps * total
    minus = jnp.where(equal, inside, (f[:, None] - f) / jnp.where(equal, 1, difference))
    plus = jnp.where(total > 0, (f[:, None] + f) / jnp.where(total > 0, total, 1), 0)
    ratio = jnp.where(s > 0, f / jnp.where(s > 0, s, 1), 0)
    core = u.T @ dv @ vt.T
    inner = minus * (core + core.T) / 2 + plus * (core - core.T) / 2
    rows, columns = dv @ vt.T - u @ core, u.T @ dv - core @ vt
    return (u * f) @ vt, u @ inner @ vt + (rows * ratio) @ vt + (u * ratio) @ columns


def project(w: jax.Array, gamma: jax.Array) -> jax.Array:
    """W projected to the column and row spaces of Γ: what W·1[Γ ≠ 0] is to a Γ of low rank."""

    def onto(w, gamma):
        u, s, vt = jnp.linalg.svd(gamma, full_matrices=False)
        alive = (s > _rounding(s, gamma.shape)).astype(gamma.dtype)
        return (u * alive) @ (u.T @ w @ vt.T) @ (vt * alive[:, None])

    return on_whole_matrix(onto, w.astype(gamma.dtype), gamma).astype(w.dtype)
