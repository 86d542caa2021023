"""The exact path of a quadratic loss under the Lasso: Split LBI for κ → ∞ and α → 0.

Let L(W) = ½WᵀHW − qᵀW and A = νH + I. With κ → ∞ the weights follow Γ at once, and V flows:

    0 = ∇L(W) + (W − Γ)/ν,   so   W = A⁻¹(νq + Γ)
    V' = (W − Γ)/ν = A⁻¹(q − HΓ),   V ∈ ∂Ω(Γ),   V(0) = 0

That is the inverse scale space flow V' = −∇R(Γ) of the reduced loss

    R(Γ) = min_W L̄(W, Γ) = ½ΓᵀH_νΓ − q_νᵀΓ + const,   H_ν = A⁻¹H = (I − A⁻¹)/ν,   q_ν = A⁻¹q.

With H = Q diag(h) Qᵀ, C = diag(√(h/(1 + νh)))Qᵀ and d = diag(1/√(h(1 + νh)))Qᵀq (rows with h > 0), CᵀC = H_ν and
Cᵀd = q_ν: R is ½‖CΓ − d‖² but for a constant. For Ω = λ‖·‖₁ the flow goes by jumps. At the time t_j of one, let

    Γ = argmin R(Γ)   subject to   Γ_iV_i ≥ 0 where |V_i| = λ,   Γ_i = 0 elsewhere     (non-negative least squares).

Its optimality conditions say of r = −∇R(Γ): r_i = 0 where Γ_i ≠ 0, so V_i stays at ±λ; r_iV_i ≤ 0 where |V_i| = λ and
Γ_i = 0, so V_i does not pass it. So V + (t − t_j)r ∈ ∂Ω(Γ), and Γ stays, until the next |V_i| reaches λ. R is less
after each jump and there are finitely many supports with signs, so the path ends, with r = 0: HΓ = q.

References:
  Burger, Möller, Benning and Osher, "An Adaptive Inverse Scale Space Method for Compressed Sensing" (2013), for the
  jumps; Huang, Sun, Xiong and Yao, "Split LBI: An Iterative Regularization Path with Structural Sparsity" (2016), for
  the reduced loss.
"""

# ruff: noqa: N806

import dataclasses
import math
from typing import Any

import numpy as np

from .._checks import check_positive
from .._path import NEVER
from .._penalties.lasso import Lasso


@dataclasses.dataclass(frozen=True)
class ExactPath:
    """A path of J constant pieces: Γ and W on [t_j, t_{j+1}), V on a line from t_j to t_{j+1}, constant after the last.

    Attributes:
      times: (J,) float64, t_0 = 0 and the times of the jumps.
      gammas: (J, *shape), Γ from t_j on; zero in the first piece.
      weights: (J, *shape), W = A⁻¹(νq + Γ).
      duals: (J, *shape), V at t_j.

    Examples:
      >>> import numpy as np, parsimony as pm
      >>> path = pm.theory.exact_path(np.eye(1), np.array([4.0]), nu=1.0)
      >>> path.entry_times.tolist(), path.at([0.25, 1.0])[1].round(9).tolist()  # Γ before and after the jump
      ([0.5], [[0.0], [4.0]])

    References:
      See `exact_path`.
    """

    times: np.ndarray
    gammas: np.ndarray
    weights: np.ndarray
    duals: np.ndarray

    def at(self, time) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(W, Γ, V) at one time or many ≥ 0, of the shape (*time.shape, *shape); Γ at a jump is that after it."""
        time = np.asarray(time, np.float64)
        if not (time >= 0).all():
            raise ValueError(f"at({time}): expected times ≥ 0 on the path, where V(0) = 0.")
        piece = np.searchsorted(self.times, time, side="right") - 1
        following = np.minimum(piece + 1, len(self.times) - 1)
        length = np.where(following > piece, self.times[following] - self.times[piece], 1)
        share = ((time - self.times[piece]) / length).reshape(time.shape + (1,) * (self.duals.ndim - 1))
        dual = self.duals[piece] + share * (self.duals[following] - self.duals[piece])
        return self.weights[piece], self.gammas[piece], dual

    @property
    def entry_times(self) -> np.ndarray:
        """The time at which each weight first entered the support of Γ; `NEVER` (-1) where it has not."""
        entered = self.gammas != 0
        times = self.times.reshape((-1,) + (1,) * (entered.ndim - 1))
        return np.where(entered.any(0), np.min(np.where(entered, times, np.inf), axis=0), NEVER)


def exact_path(hessian, linear, penalty: Lasso | None = None, nu: float = 100.0) -> ExactPath:
    """The path of L(W) = ½WᵀHW − qᵀW under Ω = λ‖·‖₁ for κ → ∞ and α → 0, from V = 0 to its end.

    Least squares ‖XW − y‖²/2n have H = XᵀX/n and q = Xᵀy/n; for an intercept, centre X and y. V and the times of
    entry of the iteration are within O(1/κ) + O(α) of it. For ν → 0, R is L itself; for ν → ∞ and a regular H,
    weights enter in the order of |H⁻¹q|.

    Only for the Lasso is Γ constant between jumps. A group's V_g may move on the sphere ‖V_g‖ = λ while it is inside,
    and Γ_g turns with it, so that the path bends.

    Args:
      hessian: H, (n, n), symmetric and positive semidefinite. Eigenvalues below n·ε of the largest count as zero, ε
        the precision of its dtype.
      linear: q, n numbers in any shape, in the range of H.
      penalty: `Lasso`, with its λ; None for `Lasso()`.
      nu: ν > 0.

    Returns:
      The path, float64 NumPy arrays in the shape of `linear`. Where H is singular on the support, Γ is one of several
      minimisers; V and HΓ are unique.

    Raises:
      TypeError: a penalty other than `Lasso`.
      ValueError: H, q or ν is not as above; the loss has no minimum.

    Examples:
      >>> import numpy as np, parsimony as pm
      >>> path = pm.theory.exact_path(np.eye(2), np.array([4.0, -1.0]), pm.Lasso(), nu=1.0)
      >>> path.times.tolist(), path.gammas.round(9).tolist()  # λ(1 + ν)/|q|, and q
      ([0.0, 0.5, 2.0], [[0.0, 0.0], [4.0, 0.0], [4.0, -1.0]])
      >>> W, gamma, V = path.at(1.0)
      >>> V.round(9).tolist()
      [1.0, -0.5]

    References:
      Burger et al. (2013), Huang et al. (2016); see the module.
    """
    from scipy.optimize import nnls

    if penalty is not None and not isinstance(penalty, Lasso):
        raise TypeError(
            f"penalty={penalty!r}: expected Lasso(strength). Under another penalty Γ is not constant between entries: "
            "a group's V moves on while its norm stays at the threshold. Approach its path by "
            "pm.inverse_scale_space with a large kappa and a small learning_rate."
        )
    check_positive("nu", nu)
    strength, nu, shape = 1.0 if penalty is None else penalty.strength, float(nu), np.shape(linear)
    C, d = _least_squares(hessian, linear, nu)
    rounding = 100 * len(d) * np.finfo(np.float64).eps * np.linalg.norm(C, axis=0) * np.linalg.norm(d)

    time, v, inside, pieces = 0.0, np.zeros(C.shape[1]), np.zeros(C.shape[1], bool), []
    while True:
        gamma, sign = np.zeros_like(v), np.sign(v[inside])
        if inside.any():
            gamma[inside] = sign * nnls(C[:, inside] * sign, d, maxiter=100 * len(v))[0]
        rate = C.T @ (d - C @ gamma)
        weights = gamma + nu * rate
        # What the optimality conditions make zero, or of a known sign, is so to the last bit.
        rate[(np.abs(rate) <= rounding) | (gamma != 0) | (inside & (rate * v > 0))] = 0
        pieces.append((time, gamma, weights, v))
        moving = rate != 0
        if not moving.any():
            break
        reaches = np.where(moving, (strength * np.sign(rate) - v) / np.where(moving, rate, 1), math.inf)
        step = reaches.min()
        hit = reaches <= step + 1e-12 * (time + step)  # those of equal size reach it together
        time, v = time + step, np.where(hit, strength * np.sign(rate), v + step * rate)
        inside = (inside & ~moving) | hit
    times, *rest = (np.array(column) for column in zip(*pieces, strict=True))
    return ExactPath(times, *(x.reshape((len(times), *shape)) for x in rest))


def _least_squares(hessian, linear, nu: float) -> tuple[np.ndarray, np.ndarray]:
    """C and d with R(Γ) = ½‖CΓ − d‖² + const, from H and q that have been checked."""
    H, q = np.asarray(hessian), np.ravel(np.asarray(linear))
    eps: Any = max(np.finfo(x.dtype).eps if x.dtype.kind == "f" else np.finfo(np.float64).eps for x in (H, q))
    H, q = H.astype(np.float64), q.astype(np.float64)
    if H.ndim != 2 or H.shape != (q.size, q.size) or not q.size:
        raise ValueError(
            f"hessian {H.shape}, linear {np.shape(linear)}: expected an (n, n) matrix and n numbers, n ≥ 1."
        )
    if not (np.isfinite(H).all() and np.isfinite(q).all()):
        raise ValueError("hessian or linear holds NaN or infinity: expected finite numbers.")
    off = np.abs(H - H.T).max()
    if off > math.sqrt(eps) * np.abs(H).max():
        raise ValueError(f"hessian differs from its transpose by {off:.3g}: expected a symmetric one; (H + H.T)/2?")
    h, Q = np.linalg.eigh((H + H.T) / 2)
    zero = len(h) * eps * np.abs(h).max()
    if h[0] < -10 * zero:
        raise ValueError(f"hessian has the eigenvalue {h[0]:.3g}: expected a positive semidefinite one, a convex loss.")
    kept = h > zero
    rotated = Q.T @ q
    outside = np.linalg.norm(rotated[~kept])
    if outside > math.sqrt(eps) * np.linalg.norm(q):
        raise ValueError(
            f"linear has a part of norm {outside:.3g} outside the range of hessian, so the loss has no minimum; "
            "with H = XᵀX take q = Xᵀy."
        )
    h, rotated = h[kept], rotated[kept]
    return np.sqrt(h / (1 + nu * h))[:, None] * Q[:, kept].T, rotated / np.sqrt(h * (1 + nu * h))
