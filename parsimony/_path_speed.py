"""The speed of the path: penalties so strong that the support fills over a stated share of the training.

Before a group enters, Γ_g = 0 and V⁺ = V + αW/ν, so with the weights of the start V_k = t_k·W₀/ν, where t_k = Σα over
the first k steps. A group enters when its V passes the threshold, which is proportional to the strength λ. Turning that
round, for a share s of K steps, and for each kind of group (the parameters with one and the same penalty),

    λ = the strength for which half of the kind's groups are inside at V = t_{sK}·W₀/ν.

Groups whose weights training keeps up or makes larger enter around and before sK; those that the coupling pulls to zero
never do: V gains no more than W₀/κ where the loss does not hold W. Without a normalisation V comes to about 0.7 of the
prediction. Before one it does not hold at all: W shrinks to a norm of its own (docs/reference/theory.md), and V grows
by that.

References:
  ArXiv 1905.09449, equation for V; the choice of λ is ours.
"""

import dataclasses
import math
import re
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ._checks import as_arrays, check_count, check_finite, check_part, check_positive, check_schedule
from ._penalties.penalty import Penalty, inside
from ._penalties.rules import Rules, check_penalty, resolve
from ._penalties.unit_penalty import UnitPenalty, UnitSlices
from ._state import check_params
from ._tree import named_leaves


def path_speed(
    params: optax.Params,
    steps: int,
    learning_rate: optax.ScalarOrSchedule,
    nu: float = 100.0,
    penalty: Penalty | UnitPenalty | Rules | None = None,
    *,
    share: float = 0.5,
) -> Rules:
    """The penalty of a path that unfolds over a training of known length: a strength for each kind of group.

    A kind of group is what has one penalty: with the paper's choice, all filters are one and all weights of matrices
    another.

    The strength of a penalty and the step of V set the same speed; the strength is the better handle, since Γ follows W
    at the rate α/ν once a group has entered, and a smaller step of V would make it lag behind and hold W back.

    Where the parameters have vectors of ones, as the scales of a normalisation have at the start, there is a warning:
    before a normalisation the prediction does not hold. `pace` needs no strength and holds for any network.

    Args:
      params: the weights that training starts from.
      steps: K ≥ 1, the number of updates.
      learning_rate: the step of V: α, or `dual_learning_rate` where that is given; a number or a schedule.
      nu: ν.
      penalty: as in `inverse_scale_space`; its strengths are replaced (and where they differ, the kinds do).
      share: s in (0, 1]: the share of the steps after which half of the groups of a kind would have entered with the
        weights of the start. The larger, the fewer enter, and the more must a group have earned it.

    Returns:
      `Rules` with a pattern for each penalised parameter, for `split_lbi` and `inverse_scale_space`.

    Raises:
      ValueError: steps, rate, ν or share is not positive; half of the groups are zero at the start, so that their
        speed is unknown; and as `inverse_scale_space` for the penalty.

    Examples:
      >>> import jax.numpy as jnp, parsimony as pm
      >>> params = {"kernel": jnp.array([[3.0, 0.1, 0.2], [4.0, 0.1, 0.1]])}
      >>> rules = pm.path_speed(params, steps=1000, learning_rate=0.1, nu=20.0, penalty=pm.GroupLasso(-1), share=0.4)
      >>> round(float(rules.rules[0][1].strength), 3)  # 0.1·400 steps/ν·‖(0.2, 0.1)‖, the middle one of three filters
      0.447

    References:
      See the module: V⁺ = V + α(W − Γ)/ν of arXiv 1905.09449; the choice of λ is ours.
    """
    check_count("steps", steps, "the number of updates of the training, an int ≥ 1")
    check_positive("learning_rate", learning_rate)
    check_schedule("learning_rate", learning_rate)
    check_positive("nu", nu)
    check_part("share", share, "a share of the steps, in (0, 1]")
    check_penalty(None if isinstance(penalty, Rules) else penalty, "penalty")
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(params)):
        raise TypeError("path_speed: params are shapes only; the speed of the path is that of the weights themselves.")
    check_params(params)
    params = as_arrays(params)
    until = max(1, round(share * steps))
    time = time_after(learning_rate, until)
    if not 0 < time < math.inf:
        raise ValueError(
            f"path_speed: the learning rate adds up to {time:g} over the first {until} steps (a share of {share!r}), "
            "so that V stands still: expected a positive rate, and a warm-up shorter than that."
        )
    named, kinds = named_leaves(params)[0], {}
    check_finite("W", named)
    _warn_of_normalisation(named)
    for (name, w), omega in zip(named, resolve(penalty, params), strict=True):
        if omega is not None:
            kind = omega.tree.whole if isinstance(omega, UnitSlices) else omega
            kinds.setdefault(kind, {})[name] = w.astype(jnp.float32) * (time / nu)
    paced = {omega: _paced(omega, duals) for omega, duals in kinds.items()}
    return Rules([(f"^{re.escape(name)}$", paced[omega]) for omega, duals in kinds.items() for name in duals])


def _warn_of_normalisation(named: list[tuple[str, Any]]) -> None:
    ones = [name for name, w in named if w.ndim == 1 and w.size > 1 and bool(jnp.all(w == 1))]
    if ones:
        warnings.warn(
            f"path_speed: {ones[0]!r} is a vector of ones, as the scale of a normalisation is. Before a normalisation "
            "weights shrink whatever the loss needs, so that groups enter far later than this predicts. Let a sparsity "
            "pace the path: **pm.pace(learning_rate, steps, sparsity=0.7).",
            UserWarning,
            stacklevel=3,
        )


def time_after(learning_rate, steps: int) -> float:
    """t = Σ α over the first `steps` steps."""
    if isinstance(learning_rate, Callable):
        return float(jnp.sum(jax.vmap(lambda count: jnp.asarray(learning_rate(count), jnp.float32))(jnp.arange(steps))))
    return float(learning_rate) * steps


def _paced(penalty: Any, duals: dict[str, jax.Array]) -> Any:
    """The penalty with the strength for which half of the groups of V are inside."""
    of = lambda strength: dataclasses.replace(penalty, strength=strength)

    def share(strength: float) -> float:
        omega: Any = of(strength)
        entered = [inside(omega, v) for v in ([duals] if isinstance(omega, UnitPenalty) else duals.values())]
        return sum(int(jnp.sum(x)) for x in entered) / max(1, sum(x.size for x in entered))

    low, high = 1e-30, 1.0
    if share(low) < 0.5:
        raise ValueError(
            f"path_speed: half of the groups of {', '.join(duals)} are zero at the start, so that their speed is not "
            "known. Leave these parameters out by Rules, and give them rules with a strength of your own."
        )
    while share(high) > 0.5:
        low, high = high, 2 * high
    while high / low > 1 + 1e-4:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if share(middle) > 0.5 else (low, middle)
    return of(high)
