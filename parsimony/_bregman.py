"""Related methods, in which W itself is sparse: LinBreg, AdaBreg, regularised dual averaging, proximal SGD.

Each is one choice in the step of `_mirror_descent`; what they share, and why every read-out works, is explained there.
A `sparsity` in the place of a strength: see `_sparsity_target`.
"""

from typing import Any

import optax

from ._checks import check_decay, check_momentum, check_positive, weight_decay_of
from ._mirror_descent import latent_and_prox
from ._penalties.penalty import Penalty
from ._penalties.rules import Rules
from ._penalties.unit_penalty import UnitPenalty
from ._sparsity_target import SparsityScope


def linbreg(
    learning_rate: optax.ScalarOrSchedule,
    kappa: float = 1.0,
    penalty: Penalty | UnitPenalty | Rules | None = None,
    *,
    momentum: float | None = None,
    nesterov: bool = False,
    sparsity: optax.ScalarOrSchedule | None = None,
    sparsity_scope: SparsityScope = "global",
) -> optax.GradientTransformationExtraArgs:
    """Linearized Bregman iterations: an inverse scale space on W itself, from few weights to more.

        V⁺ = V − α·∇L(W),     W⁺ = κ·Prox_Ω(V⁺),     V₀ = W₀/κ + p₀,  p₀ ∈ ∂Ω(W₀)

    V₀ gives W₀ back, zeros included: start it sparse, because what is not zero at the start stays until its V falls
    below the threshold. What is zero enters once |Σα·∇L| exceeds λ, without the bias of a lasso: at rest ∇L(W) = 0 on
    all weights. Parameters without a penalty take W⁺ = W − κα∇L.

    W is a function of V here and in `adabreg` and `rda`: what else changes W between two steps (surgery, masks,
    averaging) is undone by the next one. After it, begin anew with `init`.

    Args:
      learning_rate: α > 0, or a schedule of the step count.
      kappa: κ > 0, the δ of the paper; a step of W is κα.
      penalty: Ω, as in `inverse_scale_space`.
      momentum: decay in [0, 1) of `optax.trace` before the step of V, or None. The paper's has 1 − momentum times our
        step. Clipping, decay and preconditioning go before it in a chain.
      nesterov: Nesterov's momentum; needs `momentum`.
      sparsity: None for the strengths as given; or the share of zero weights in [0, 1), or a schedule of it: the
        strengths are scaled so that after each step just that share of the penalised weights is zero, all parameters
        together, groups as wholes. A ramp is gentler than a number:
        `optax.polynomial_schedule(0.0, 0.9, power=3, transition_steps=2000)`. What is left of the method is then κ:
        with κ = 1 it is `rda`.
      sparsity_scope: see `inverse_scale_space`.

    Returns:
      A `GradientTransformationExtraArgs`; `update` needs `params`. The last part of its state is a `SplitLBIState`,
      with V in float32 at least: Γ of the read-outs (`gamma`, `support`, ...) is W.

    Raises:
      ValueError, TypeError: as `inverse_scale_space`; and for a momentum or sparsity out of range.

    Examples:
      >>> import jax.numpy as jnp, optax, parsimony as pm
      >>> params, goal = {"kernel": jnp.array([[0.0, 0.0, 1.0]])}, jnp.array([[2.0, 0.5, 2.0]])
      >>> tx = pm.linbreg(0.5, penalty=pm.Lasso(1.0))
      >>> state = tx.init(params)
      >>> for _ in range(2):
      ...     updates, state = tx.update({"kernel": params["kernel"] - goal}, state, params)
      ...     params = optax.apply_updates(params, updates)
      >>> params["kernel"].tolist()  # the first enters at V = 2, the second is on its way, V = 0.5
      [[1.0, 0.0, 1.75]]

    References:
      Bungert, Roith, Tenbrinck and Burger, arXiv 2105.04319, Algorithms 1 and 2; the iteration is that of Yin, Osher,
      Goldfarb and Darbon (2008).
    """
    return _after_momentum(
        momentum, nesterov, latent_and_prox(learning_rate, kappa, penalty, sparsity, sparsity_scope, None)
    )


def adabreg(
    learning_rate: optax.ScalarOrSchedule,
    kappa: float = 1.0,
    penalty: Penalty | UnitPenalty | Rules | None = None,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    sparsity: optax.ScalarOrSchedule | None = None,
    sparsity_scope: SparsityScope = "global",
) -> optax.GradientTransformationExtraArgs:
    """`linbreg` with Adam's step of V.

        V⁺ = V − α·m̂/(√ŝ + ε),     W⁺ = κ·Prox_Ω(V⁺),     m̂, ŝ: Adam's bias-corrected moments of ∇L

    Every V moves by about α a step, so that a weight of steady gradient enters after λ/α steps.

    Args:
      learning_rate, kappa, penalty, sparsity, sparsity_scope: see `linbreg`.
      b1, b2, eps: as in `optax.scale_by_adam`.

    Returns:
      As `linbreg`: a `GradientTransformationExtraArgs` with a `SplitLBIState` at the end of its state.

    Raises:
      ValueError, TypeError: see `linbreg`.

    Examples:
      >>> import jax.numpy as jnp, optax, parsimony as pm
      >>> params, tx = {"kernel": jnp.zeros((1, 2))}, pm.adabreg(0.25, penalty=pm.Lasso(0.5))
      >>> state = tx.init(params)
      >>> for _ in range(3):
      ...     updates, state = tx.update({"kernel": jnp.array([[-0.01, 0.0]])}, state, params)
      ...     params = optax.apply_updates(params, updates)
      >>> params["kernel"].round(3).tolist()
      [[0.25, 0.0]]

    References:
      ArXiv 2105.04319, Algorithm 3, with Adam's own correction of both moments; their code corrects ŝ alone.
    """
    for name, value in [("b1", b1), ("b2", b2)]:
        check_decay(name, value)
    check_positive("eps", eps)
    core = latent_and_prox(learning_rate, kappa, penalty, sparsity, sparsity_scope, None)
    return optax.chain(optax.scale_by_adam(b1, b2, eps), core)


def rda(
    learning_rate: optax.ScalarOrSchedule,
    penalty: Penalty | UnitPenalty | Rules | None = None,
    *,
    momentum: float | None = None,
    nesterov: bool = False,
    weight_decay: float | None = None,
    weight_decay_mask: Any = None,
    sparsity: optax.ScalarOrSchedule | None = None,
    sparsity_scope: SparsityScope = "global",
) -> optax.GradientTransformationExtraArgs:
    """Regularised dual averaging: the proximal map of all strength so far, on all steps so far.

        U⁺ = U − α·∇L(W),     W⁺ = Prox_{tΩ}(U⁺) = argmin_w ⟨Σα∇L, w⟩ + tΩ(w) + ½‖w − W₀‖²,     t = Σα,  U₀ = W₀

    The threshold is tλ and grows, so from a dense start weights leave and return. Xiao's own prox-weight √k is that of
    α ∝ 1/√k.

    This is torchao's pruning-aware training (PAT), whose base optimizer steps from U, and whose group lasso has
    `scale="rms"`:

    - PAT on AdamW(lr, betas, eps, weight_decay=d):
      `optax.chain(optax.scale_by_adam(*betas, eps), pm.rda(lr, penalty, weight_decay=d))`
    - PAT on SGD(lr, momentum=m, weight_decay=0): `pm.rda(lr, penalty, momentum=m)`
    - PAT on SGD(lr, weight_decay=d): `pm.rda(lr, penalty, weight_decay=d)`; with a momentum, torch has the decay in it

    `optax.add_decayed_weights` before `rda` in a chain is none of these: it decays U by the sparse W.

    Args:
      learning_rate, penalty, momentum, nesterov, sparsity, sparsity_scope: see `linbreg`.
      weight_decay: d ≥ 0 of a decoupled decay, or None: U⁺ = U − α·(ĝ + d·U), with ĝ the gradient after momentum;
        where there is no penalty, W⁺ = W − α·(ĝ + d·W).
      weight_decay_mask: tree of bools, or a function of the parameters, as in `optax.add_decayed_weights`.

    Returns:
      As `linbreg`: a `GradientTransformationExtraArgs` with a `SplitLBIState` at the end of its state.

    Raises:
      ValueError, TypeError: see `linbreg`.

    Examples:
      >>> import jax.numpy as jnp, optax, parsimony as pm
      >>> params, tx = {"kernel": jnp.array([[1.0, 0.25]])}, pm.rda(0.5, pm.Lasso(1.0))
      >>> state = tx.init(params)
      >>> updates, state = tx.update({"kernel": jnp.zeros((1, 2))}, state, params)
      >>> optax.apply_updates(params, updates)["kernel"].tolist(), pm.support(state)["kernel"].tolist()
      ([[0.5, 0.0]], [[True, False]])

    References:
      Xiao, "Dual Averaging Methods for Regularized Stochastic Learning and Online Optimization" (2010); torchao,
      `prototype/pat`, `PruneOptimizer`.
    """
    core = latent_and_prox(
        learning_rate, 1.0, penalty, sparsity, sparsity_scope, lambda alpha, time: time,
        decay=weight_decay_of(weight_decay, weight_decay_mask),
    )  # fmt: skip
    return _after_momentum(momentum, nesterov, core)


def prox_sgd(
    learning_rate: optax.ScalarOrSchedule,
    penalty: Penalty | UnitPenalty | Rules | None = None,
    *,
    momentum: float | None = None,
    nesterov: bool = False,
    sparsity: optax.ScalarOrSchedule | None = None,
    sparsity_scope: SparsityScope = "global",
) -> optax.GradientTransformationExtraArgs:
    """Proximal stochastic gradient: forward-backward splitting.

        W⁺ = Prox_{αΩ}(W − α·∇L(W))

    At rest −∇L(W) ∈ ∂Ω(W), the lasso of L: its weights are smaller than those that fit best.

    Args:
      learning_rate, penalty, momentum, nesterov, sparsity, sparsity_scope: see `linbreg`. A fixed
        point at a given sparsity is a lasso of the strength that has it.

    Returns:
      As `linbreg`: a `GradientTransformationExtraArgs` with a `SplitLBIState` at the end of its state.

    Raises:
      ValueError, TypeError: see `linbreg`.

    Examples:
      >>> import jax.numpy as jnp, optax, parsimony as pm
      >>> params, tx = {"kernel": jnp.array([[1.0, 0.25]])}, pm.prox_sgd(0.5, pm.Lasso(1.0))
      >>> updates, state = tx.update({"kernel": jnp.array([[0.0, -0.25]])}, tx.init(params), params)
      >>> optax.apply_updates(params, updates)["kernel"].tolist()
      [[0.5, 0.0]]

    References:
      Duchi and Singer, "Efficient Online and Batch Learning Using Forward Backward Splitting" (2009).
    """
    core = latent_and_prox(
        learning_rate, 1.0, penalty, sparsity, sparsity_scope, lambda alpha, time: alpha, forgets=True
    )
    return _after_momentum(momentum, nesterov, core)


def _after_momentum(momentum, nesterov, core):
    check_momentum(momentum, nesterov)
    return optax.chain(optax.identity() if momentum is None else optax.trace(momentum, nesterov), core)
