"""One step of Split Linearized Bregman Iteration (Split LBI), as an Optax transformation.

| paper | here | meaning |
|---|---|---|
| W | `params` | dense weights |
| Γ | `gamma` | sparse structure weights, Γ = κ·Prox_Ω(V) |
| V | `dual` | sub-gradient variable, V₀ = 0 |
| α_k | `learning_rate` | step; a W step is κ·α |
| κ, ν | `kappa`, `nu` | damping; coupling (1/2ν)‖W − Γ‖² |
| Ω | `penalty` | the sparsity penalty |
| t = Σα | `time` | inverse-scale-space time |

References:
  Fu, Liu, Li, Sun, Zeng, Yao, arXiv 1905.09449; DessiLBI, arXiv 2007.02010.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ._checks import (
    accumulators,
    as_arrays,
    check_count,
    check_floating,
    check_positive,
    check_schedule,
    transformation,
)
from ._dual_step import recovery_is_exact, step_leaf
from ._finish import at_rest, check_can_finish, cut_behind, frozen
from ._penalties.penalty import Penalty, strength_of_each
from ._penalties.rules import Rules, check_penalty, resolve
from ._penalties.unit_penalty import UnitPenalty
from ._sparsity_target import SparsityScope, check_sparsity, strength_at_start, strength_like, threshold_at
from ._state import SplitLBIState, check_params, check_state, scalar_like, static
from ._sums import add
from ._tree import aligned, is_numeric
from ._words import shown


def inverse_scale_space(
    learning_rate: optax.ScalarOrSchedule,
    kappa: float = 1.0,
    nu: float = 100.0,
    penalty: Penalty | UnitPenalty | Rules | None = None,
    *,
    dual_learning_rate: optax.ScalarOrSchedule | None = None,
    inner: optax.GradientTransformation | None = None,
    sparsity: optax.ScalarOrSchedule | None = None,
    sparsity_scope: SparsityScope = "global",
    finish: int | None = None,
    accumulator_dtype: str = "float32",
) -> optax.GradientTransformationExtraArgs:
    """One Split LBI step, from a (transformed) loss gradient; the last link of a chain.

    With L̄(W, Γ) = L(W) + ‖W − Γ‖²/2ν and both gradients at the old W and Γ:

        W⁺ = W − κα·(∇L(W) + (W − Γ)/ν)
        V⁺ = V + α·(W − Γ)/ν
        Γ⁺ = κ·Prox_Ω(V⁺)

    It takes the place of `optax.scale_by_learning_rate`: α drives V as well. What stands before it in a chain
    (momentum, Adam, clipping, decay) acts on ∇L alone; `inner` acts on ∇_W L̄, coupling included. Parameters
    without a penalty take W⁺ = W − κα∇L. Place it inside `optax.flatten`, and the groups are lost.

    Args:
      learning_rate: α > 0, or a schedule of the step count. Steps of (W, Γ) descend for
        α < 2/(κ(Lip/2 + 1/ν + √(Lip²/4 + 1/ν²))), Lip the smoothness of L.
      kappa: κ > 0. Large κ comes near the continuous dynamics.
      nu: ν > 0. Small ν binds W to Γ.
      penalty: Ω; a penalty for every kernel (rank 2 or more, not a bias or scale by name), `Rules` by name, or None
        for the paper's: a group lasso on the filters of convolutions, whose axis the layout tells, and a lasso on the
        single weights of all other kernels. Where that cannot be determined, the error shows the rule to write.
      dual_learning_rate: the α of V⁺ where it differs: the speed of the path. Default `learning_rate`.
      inner: transformation of ∇_W L̄; `optax.trace(0.9)` is the paper's momentum.
      sparsity: None for the strengths as given; or the share of the penalised weights that are zero in Γ, all
        parameters together, in [0, 1), or a schedule of it: after each step the strengths are scaled to give it. The
        path then unfolds as `optax.linear_schedule(1.0, 0.9, 2000)` says, whatever the weights do (`pace` makes one).
      sparsity_scope: "global": the share is that of all penalised weights together, under one T. "layer": every
        parameter, or all those that share units, has that share and a T of its own, and keeps one group at least.
        Networks with normalisation need this: the coupling shrinks a layer's groups together, and a share of all
        together would leave whole layers empty.
      finish: None for the pair of a dense W and a sparse W̃. Or K₀, the number of steps after which W is finished inside
        the support, which needs a `sparsity`. Until then W loses the groups that are far behind, those with
        ‖V_g‖ ≤ (k/K₀)T under the threshold T of step k. From then on what is outside Γ is exactly zero, the coupling
        ends and V stays, so that W = W̃ has the sparsity reached by then.
      accumulator_dtype: least precision of V (a float64 parameter has a float64 V). V gains about α|W|/ν a step;
        a million such steps add up to within 1e-4 of their sum in float32, and to two digits in bfloat16.

    Returns:
      A `GradientTransformationExtraArgs` with state `SplitLBIState`; `update` needs `params`.

    Raises:
      ValueError, TypeError: a number is not positive and finite, `penalty` is not a penalty, or the dtype is not
        floating-point; rules or penalties do not fit the parameters (at `init`); `params` is missing, or trees do
        not match (at `update`).

    Examples:
      >>> import jax.numpy as jnp, optax, parsimony as pm
      >>> params = {"kernel": jnp.array([[4.0, 0.1]])}
      >>> tx = pm.inverse_scale_space(learning_rate=0.5, nu=2.0)
      >>> state = tx.init(params)
      >>> for _ in range(2):
      ...     updates, state = tx.update({"kernel": jnp.zeros((1, 2))}, state, params)
      ...     params = optax.apply_updates(params, updates)
      >>> pm.gamma(state)["kernel"].tolist(), state.time.tolist()
      ([[0.75, 0.0]], 1.0)

    References:
      ArXiv 1905.09449.
    """
    for name, value in [
        ("learning_rate", learning_rate),
        ("kappa", kappa),
        ("nu", nu),
        ("dual_learning_rate", dual_learning_rate),
    ]:
        check_positive(name, value)
    check_penalty(None if isinstance(penalty, Rules) else penalty, "penalty")
    check_floating("accumulator_dtype", accumulator_dtype)
    inner_or_none = optax.identity() if inner is None else inner
    inner_tx = transformation(f"inner={shown(inner)}", inner_or_none, "optax.trace(0.9)")
    dual_rate = learning_rate if dual_learning_rate is None else dual_learning_rate
    # At the first update, not now: naming the backend would start it before jax.distributed.initialize could.
    recovers = functools.cache(lambda: recovery_is_exact(dual_rate, kappa, nu))
    check_sparsity(sparsity, sparsity_scope)
    if finish is not None:
        check_count("finish", finish, "the steps before W is finished inside the support, an int ≥ 1, or None")
        if sparsity is None:
            raise ValueError(
                f"finish={finish!r} needs a sparsity, e.g. sparsity=0.9: its threshold says what W loses on the way. "
                "W of fixed strengths stays dense; read W̃ by pm.sparse_params."
            )

    def init_fn(params) -> Any:
        check_params(params)
        params = as_arrays(params)
        penalties = resolve(penalty, params)  # before any work: what does not fit is an error here
        if finish is not None:
            check_can_finish(penalties)
        check_schedule("learning_rate", learning_rate)
        check_schedule("dual_learning_rate", dual_learning_rate)
        check_schedule("sparsity", sparsity)
        scalar = lambda value: jnp.array(value, jnp.result_type(float))  # a copy: donation fails on shared buffers
        return SplitLBIState(
            count=jnp.zeros((), jnp.int32),
            time=scalar(0.0),
            kappa=scalar(kappa),
            strength=strength_at_start(1.0, params, sparsity, sparsity_scope),
            dual=jax.tree.map(jnp.zeros_like, accumulators(params, accumulator_dtype)),
            inner_state=inner_tx.init(params),
            static_penalty=static(penalty),
        )

    def update_fn(updates, state, params=None, **extra_args) -> tuple[Any, Any]:
        if params is None:
            raise ValueError(
                "Split LBI couples W to Γ and needs the weights: call tx.update(grads, opt_state, params)."
            )
        check_state(SplitLBIState, state)
        updates, params = as_arrays((updates, params))
        treedef, (grads, weights, duals) = aligned(grads=updates, params=params, dual=state.dual)
        alpha, dual_alpha = (r(state.count) if callable(r) else r for r in (learning_rate, dual_rate))
        strength = None if sparsity is None else state.strength

        penalties = resolve(penalty, state.dual, strength)
        each = strength_of_each(strength, len(duals))
        step = functools.partial(
            step_leaf, count=state.count, alpha=dual_alpha, kappa=kappa, nu=nu, in_place=recovers()
        )
        steps = [step(*leaf) for leaf in zip(penalties, weights, duals, each, strict=True)]
        over = False if finish is None else state.count >= finish
        if finish is not None:
            steps = at_rest(over, duals, steps)
        totals = [  # ∇_W L̄ = ∇L + (W − Γ)/ν
            g if c is None else (g + c).astype(g.dtype if inner is not None else c.dtype)
            for g, (_, c) in zip(grads, steps, strict=True)
        ]
        totals, inner_state = inner_tx.update(treedef.unflatten(totals), state.inner_state, params, **extra_args)
        new_updates = [  # W⁺ − W = −κα·∇_W L̄
            (-(jnp.asarray(kappa, h.dtype) * jnp.asarray(alpha, h.dtype)) * h).astype(w.dtype) if is_numeric(w) else h
            for h, w in zip(treedef.flatten_up_to(totals), weights, strict=True)
        ]
        dual = treedef.unflatten([v for v, _ in steps])
        if sparsity is not None:
            wanted = functools.partial(threshold_at, penalty, dual, sparsity, state.count, sparsity_scope)
            strength = frozen(over, state.strength, wanted)
        if finish is not None:
            part = jnp.minimum((state.count + 1) / finish, 1.0)
            thresholds = strength_of_each(strength, len(duals))
            new_updates = cut_behind(part, penalty, dual, thresholds, new_updates, weights)
        new_state = SplitLBIState(
            count=optax.safe_increment(state.count),
            time=add(state.time, dual_alpha, state.count),
            kappa=scalar_like(state.kappa, kappa),
            strength=strength_like(state.strength, 1.0 if strength is None else strength),
            dual=dual,
            inner_state=inner_state,
            static_penalty=static(penalty),
        )
        return treedef.unflatten(new_updates), new_state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
