"""What the theory says of a run: how large a step may be, what descends, and where the path goes in the limit.

With z = (W, Γ), L̄(z) = L(W) + ‖W − Γ‖²/2ν, and g = V − Γ/κ = V − Prox_Ω(V), which lies in ∂Ω(Γ) since Ω is a norm,
the iteration reads

    W⁺ = W − κα∇_W L̄(z),   g⁺ + Γ⁺/κ = g + Γ/κ − α∇_Γ L̄(z).

Let λ be a smoothness constant of L̄ (`max_learning_rate` computes it). Multiply the two lines by W⁺ − W and Γ⁺ − Γ:

    α(L̄(z⁺) − L̄(z)) ≤ α⟨∇L̄(z), z⁺ − z⟩ + αλ/2·‖z⁺ − z‖² = −(1/κ − αλ/2)‖z⁺ − z‖² − ⟨g⁺ − g, Γ⁺ − Γ⟩.

The last product is B(Γ⁺; Γ) + B(Γ; Γ⁺), the Bregman distances B(x; Γ_k) = Ω(x) − Ω(Γ_k) − ⟨g_k, x − Γ_k⟩ ≥ 0. So

    F_k = αL̄(z_k) + B(Γ_k; Γ_{k−1})   obeys   F_{k+1} ≤ F_k − (1/κ − αλ/2)‖z_{k+1} − z_k‖²,

and descends for α < 2/(κλ). It holds for steps without momentum, of the whole loss, at a constant α.

References:
  Fu, Liu, Li, Sun, Zeng, Yao, arXiv 1905.09449, for F; the constant is derived here.
"""

from ._exact_path import ExactPath as ExactPath
from ._exact_path import exact_path as exact_path
from ._lyapunov import lyapunov as lyapunov
from ._step_size import lipschitz as lipschitz
from ._step_size import max_learning_rate as max_learning_rate
