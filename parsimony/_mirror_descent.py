"""A step of a latent variable U and one proximal map: what the methods related to Split LBI have in common.

    U⁺ = U − α·ĝ,     W⁺ = κ·Prox_{TΩ}(U⁺)          ĝ: ∇L(W), as what stands before in a chain has changed it

| | U | U₀ | T | κ |
|---|---|---|---|---|
| `linbreg`, `adabreg` | the sub-gradient variable | W₀/κ + p₀, p₀ ∈ ∂Ω(W₀) | 1 | their δ |
| `rda` | W₀ less all steps | W₀ | t = Σα | 1 |
| `prox_sgd` | W, forgotten every step | W₀ | α | 1 |
| any of them with a `sparsity` | | W₀/κ | what gives that share of zeros (`_sparsity_target`) | |

The state is that of Split LBI with U for V and T for its strength: Γ is W, and every read-out holds.

References:
  The common form is that of McMahan, "A Survey of Algorithms and Analysis for Adaptive Online Learning" (2017); those
  of the methods are in `_bregman`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ._checks import accumulators, as_arrays, check_positive, check_schedule
from ._penalties.penalty import gamma_of, strength_of_each
from ._penalties.rules import Rules, check_penalty, resolve
from ._penalties.unit_penalty import UnitSlices
from ._sparsity_target import LEAST, SparsityScope, check_sparsity, strength_at_start, strength_like, threshold_at
from ._state import SplitLBIState, check_params, check_state, scalar_like, static
from ._sums import add
from ._tree import aligned, is_numeric


def latent_and_prox(
    learning_rate: Any,
    kappa: Any,
    penalty: Any,
    sparsity: Any,
    sparsity_scope: SparsityScope,
    threshold: Callable[[Any, Any], Any] | None,
    forgets: bool = False,
    decay: optax.GradientTransformation | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The step of the module's docstring.

    `threshold(α, t)` is T, and None the T = 1 of a sub-gradient variable; `decay` acts on U, and on W where there is no
    penalty.
    """
    check_positive("learning_rate", learning_rate)
    check_positive("kappa", kappa)
    check_penalty(None if isinstance(penalty, Rules) else penalty, "penalty")
    check_sparsity(sparsity, sparsity_scope)
    bregman = threshold is None and sparsity is None

    def init_fn(params) -> Any:
        check_params(params)
        check_schedule("learning_rate", learning_rate)
        check_schedule("sparsity", sparsity)
        # As of every optimizer, the state can be planned from shapes alone.
        params = jax.tree.map(lambda w: jnp.zeros_like(w) if isinstance(w, jax.ShapeDtypeStruct) else w, params)
        # V adds up steps that bfloat16 cannot, and takes W divided by a small T, which float16 cannot hold.
        weights, treedef = jax.tree.flatten(accumulators(as_arrays(params), "float32"))
        omegas = resolve(penalty, treedef.unflatten(weights))
        slopes = _subgradient(penalty, treedef, weights) if bregman else [0.0] * len(weights)
        duals = [
            jnp.zeros_like(w) if omega is None else w / jnp.asarray(kappa, w.dtype) + p
            for omega, w, p in zip(omegas, weights, slopes, strict=True)
        ]
        scalar = lambda value: jnp.array(value, jnp.result_type(float))  # a copy: the state must share no buffer
        return SplitLBIState(
            count=jnp.zeros((), jnp.int32),
            time=scalar(0.0),
            kappa=scalar(kappa),
            strength=strength_at_start(1.0 if bregman else LEAST, params, sparsity, sparsity_scope),
            dual=treedef.unflatten(duals),
            inner_state=optax.EmptyState(),
            static_penalty=static(penalty),
        )

    def update_fn(updates, state, params=None, **extra_args) -> tuple[Any, Any]:
        del extra_args
        if params is None:
            raise ValueError("the step goes from the weights: call tx.update(grads, opt_state, params).")
        check_state(SplitLBIState, state)
        updates, params = as_arrays((updates, params))
        treedef, (grads, weights, duals) = aligned(grads=updates, params=params, dual=state.dual)
        omegas = resolve(penalty, state.dual)
        if decay is not None:
            at = treedef.unflatten(
                [w if omega is None else u for omega, w, u in zip(omegas, weights, duals, strict=True)]
            )
            grads = treedef.flatten_up_to(decay.update(updates, decay.init(at), at)[0])
        alpha = learning_rate(state.count) if callable(learning_rate) else learning_rate
        time = add(state.time, alpha, state.count)

        latents = []  # U⁺
        for omega, g, w, u in zip(omegas, grads, weights, duals, strict=True):
            if omega is not None:
                step = -jnp.asarray(alpha, u.dtype) * g.astype(u.dtype)
                u = w.astype(u.dtype) + step if forgets else add(u, step, state.count)
            latents.append(u)
        dual = treedef.unflatten(latents)

        strength = None  # T
        if sparsity is not None:
            strength = threshold_at(penalty, dual, sparsity, state.count, sparsity_scope)
        elif threshold is not None:
            strength = jnp.maximum(threshold(alpha, time), LEAST)
        moves = [
            g
            if not is_numeric(w)
            else -(jnp.asarray(kappa, g.dtype) * jnp.asarray(alpha, g.dtype)) * g
            if omega is None
            else gamma_of(omega, u, kappa, strength_of_leaf) - w
            for omega, g, w, u, strength_of_leaf in zip(
                resolve(penalty, dual, strength),
                grads,
                weights,
                latents,
                strength_of_each(strength, len(latents)),
                strict=True,
            )
        ]
        new_state = SplitLBIState(
            count=optax.safe_increment(state.count),
            time=time,
            kappa=scalar_like(state.kappa, kappa),
            strength=strength_like(state.strength, 1.0 if strength is None else strength),
            dual=dual,
            inner_state=state.inner_state,
            static_penalty=static(penalty),
        )
        return treedef.unflatten(
            [m.astype(w.dtype) if is_numeric(w) else m for m, w in zip(moves, weights, strict=True)]
        ), new_state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _subgradient(penalty, treedef, weights):
    """p ∈ ∂Ω(W): the gradient where there is one, 0 where a group is zero."""

    def value(weights):
        omegas = resolve(penalty, treedef.unflatten(weights))
        units = {id(omega.tree): omega.tree for omega in omegas if isinstance(omega, UnitSlices)}
        alone = [
            omega.value(w)
            for omega, w in zip(omegas, weights, strict=True)
            if omega is not None and not isinstance(omega, UnitSlices)
        ]
        return sum([*alone, *(tree.value() for tree in units.values())], jnp.zeros(()))

    # Ω is even, so that p is odd; JAX's derivative of |x| at 0 is 1.
    slope = jax.grad(value, allow_int=True)
    pairs = zip(weights, slope(weights), slope([-w for w in weights]), strict=True)
    return [(p - q) / 2 if jnp.issubdtype(w.dtype, jnp.inexact) else 0 for w, p, q in pairs]
