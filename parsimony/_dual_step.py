"""The step of W and V of one parameter, and how it is made in place: Γ of the old V, read off the new one."""

from typing import Any

import jax
import jax.numpy as jnp

from ._checks import SAMPLED
from ._penalties.penalty import gamma_of, over
from ._sums import add


def step_leaf(penalty, w, v, strength, *, count, alpha, kappa, nu, in_place: bool):
    """V⁺ = V + α·(W − Γ)/ν of one parameter with Γ = κ·Prox_{TΩ}(V), and (W − Γ)/ν for its W⁺."""
    if penalty is None:
        return v, None
    w, alpha, kappa, nu = (jnp.asarray(x, v.dtype) for x in (w, alpha, kappa, nu))
    gamma = gamma_of(penalty, v, kappa, strength)
    v_new = add(v, alpha * ((w - gamma) / nu), count)
    if in_place and hasattr(penalty, "shrink"):
        gamma = gamma_from_next(penalty, v, v_new, w, alpha, kappa, nu, strength)
    return v_new, (w - gamma) / nu


def gamma_from_next(penalty, v, v_new, w, alpha, kappa, nu, strength=None):
    """Γ of the old V, recovered from the new one: V's buffer can be overwritten before W's.

    W⁺ reads the old V and V⁺ reads the old W, so a donated update on a CPU has to copy one of them, which costs
    more than the arithmetic. But V⁺ is invertible. With r = ακ/ν, u = V⁺ − αW/ν = V − r·Prox(V) and
    Prox(V) = s·soft(V), s one number a group:

        soft(V) = soft(u)/(1 − r·s),   so   Γ = κ·s·soft(u)/(1 − r·s),   r < 1.

    Under a strength T, where Γ = κT·Prox_Ω(V/T), the same holds of V/T, V⁺/T and W/T.

    The barrier asks XLA not to go back to the old V, and marks this form in a traced program; on JAX 0.10 and 0.12
    XLA keeps to the new V without it too (same copies, scratch memory and time).

    An r ≥ 1 never comes here unless by a schedule that rises far above its values at 0, 1, 2, 4, 8, …; the NaN
    then says so (see `recovery_is_exact`).
    """
    r = alpha * kappa / nu
    r = jnp.where(r < 1, r, jnp.nan)
    shrink = penalty.shrink(over(v, strength))
    u = over(jax.lax.optimization_barrier(v_new) - alpha * w / nu, strength)
    factor = kappa if strength is None else jnp.asarray(kappa * strength, v.dtype)
    return factor * shrink * penalty.soft(u) / (1 - r * shrink)


def recovery_is_exact(rate: Any, kappa: Any, nu: Any) -> bool:
    """Whether r = ακ/ν is known to stay at a half or below, on a CPU, where alone the recovery pays.

    Of a schedule it looks at the counts 0, 1, 2, 4, … 2²³ and asks for a quarter.
    """
    if jax.default_backend() != "cpu":
        return False
    try:
        with jax.ensure_compile_time_eval():
            if not callable(rate):
                return float(rate) * float(kappa) / float(nu) <= 0.5
            counts: Any = [jnp.asarray(count) for count in SAMPLED]
            values: Any = map(rate, counts)
            return max(map(float, values)) * float(kappa) / float(nu) <= 0.25
    except (jax.errors.ConcretizationTypeError, TypeError):  # traced, or one value for each of many runs
        return False
