"""Split LBI in the place of an optimizer: its step after decay and momentum."""

from typing import Any

import optax

from ._checks import check_momentum, weight_decay_of
from ._inverse_scale_space import inverse_scale_space
from ._penalties.penalty import Penalty
from ._penalties.rules import Rules
from ._penalties.unit_penalty import UnitPenalty
from ._sparsity_target import SparsityScope


def split_lbi(
    learning_rate: optax.ScalarOrSchedule,
    kappa: float = 1.0,
    nu: float = 100.0,
    penalty: Penalty | UnitPenalty | Rules | None = None,
    *,
    momentum: float | None = None,
    nesterov: bool = False,
    weight_decay: float | None = None,
    weight_decay_mask: Any = None,
    dual_learning_rate: optax.ScalarOrSchedule | None = None,
    inner: optax.GradientTransformation | None = None,
    sparsity: optax.ScalarOrSchedule | None = None,
    sparsity_scope: SparsityScope = "global",
    finish: int | None = None,
    accumulator_dtype: str = "float32",
) -> optax.GradientTransformationExtraArgs:
    """Split LBI in the place of `optax.sgd`.

    The chain of `optax.add_decayed_weights`, `optax.trace` and `inverse_scale_space`: decay and momentum act on
    the loss gradient, as in the authors' code. For the paper's momentum, coupling inside, give
    `inner=optax.trace(0.9)` instead of `momentum`.

    Args:
      learning_rate, kappa, nu, penalty, dual_learning_rate, inner: see `inverse_scale_space`.
      sparsity, sparsity_scope, finish, accumulator_dtype: see there too.
      momentum: decay in [0, 1) of the gradient's trace, or None.
      nesterov: Nesterov's momentum; needs `momentum`.
      weight_decay: coefficient ≥ 0 of W added to ∇L, or None.
      weight_decay_mask: tree of bools, or a function of the parameters, as in `optax.add_decayed_weights`.

    Returns:
      A `GradientTransformationExtraArgs`. Its state holds V and the trace: Adam's memory, and three scalars.

    Raises:
      ValueError, TypeError: see `inverse_scale_space`.

    Examples:
      >>> import optax, parsimony as pm
      >>> tx = pm.split_lbi(0.1, kappa=1.0, nu=20.0, momentum=0.9, weight_decay=1e-4)

    References:
      ArXiv 2007.02010.
    """
    check_momentum(momentum, nesterov)
    return optax.chain(
        weight_decay_of(weight_decay, weight_decay_mask),
        optax.identity() if momentum is None else optax.trace(momentum, nesterov),
        inverse_scale_space(
            learning_rate, kappa, nu, penalty,
            dual_learning_rate=dual_learning_rate, inner=inner, sparsity=sparsity, sparsity_scope=sparsity_scope,
            finish=finish, accumulator_dtype=accumulator_dtype,
        ),
    )  # fmt: skip
