"""A path that opens by itself over a training of known length: ν, a schedule of the sparsity, and when W is finished.

Outside the support the coupling is a decay of W, dW/dt = −W/ν, whatever λ is. What counts is therefore no ν but the
*pull*

    p = t/ν,   t = Σα until the path is open

by which a weight that the loss does not hold has shrunk to e⁻ᵖ. With ν = t/p that is so in a short training as in a
long one. A weight that the loss does hold comes to rest where both balance, at |∇L| = |W|/ν: the longer the training,
the larger ν, the less a pull costs W, and the less of it fades. So one pull does for a W that is finished inside the
support; a W̃ that is to be as good as a dense W in a long training needs a larger one, which W pays for.

References:
  The pull is read off V⁺ and W⁺ of arXiv 1905.09449; the schedule and its defaults are ours.
"""

import math
from typing import Any, TypedDict

import optax

from ._checks import check_count, check_flag, check_part, check_positive, check_schedule
from ._path_speed import time_after
from ._sparsity_target import SparsityScope, check_sparsity


class Pace(TypedDict):
    """What `pace` gives: arguments of `split_lbi` and `inverse_scale_space`.

    Examples:
      >>> import parsimony as pm
      >>> sorted(pm.pace(0.1, steps=100, sparsity=0.5))
      ['finish', 'nu', 'sparsity', 'sparsity_scope']

    References:
      See `pace`.
    """

    nu: float
    sparsity: optax.Schedule
    sparsity_scope: SparsityScope
    finish: int | None


def pace(
    learning_rate: optax.ScalarOrSchedule,
    steps: int,
    sparsity: float,
    *,
    open_by: float = 0.5,
    pull: float | None = None,
    finish: bool = True,
    scope: SparsityScope = "layer",
) -> Pace:
    """Arguments for a path that unfolds over a training, whatever the weights do: no λ and no ν to choose.

        sparsity of Γ: from 1 along a line to q after K₀ = open_by·K steps, then q        ν = (Σα until K₀)/pull

    At first nothing is in Γ. Groups enter one after the other, those with the largest ‖V‖ first, until a share q is
    left outside. With `finish`, W meanwhile loses the groups that will not enter, those that are farthest behind first
    (‖V‖ ≤ (k/K₀)T), and is finished inside the support in the same training, so that at its end W = W̃ has the sparsity
    q; without it, W stays dense and W̃ is read by `sparse_params`.

    Args:
      learning_rate: α of the step, a number or a schedule.
      steps: K ≥ 2, the number of updates of the whole training.
      sparsity: q in [0, 1), the share of the penalised weights that is zero at the end.
      open_by: share of the steps, in (0, 1], after which the path is open.
      pull: p > 0. Default 2 with `finish`; 5 without, since W̃ is then only as good as what is outside has faded. A
        larger pull costs W more and makes W̃ more like it; without `finish`, the longer the training the larger.
      finish: whether W is finished inside the support once the path is open. A clip before it in a chain is that of
        `clip_by_support_norm`: scaled by the norm of all gradients, those inside would be left with little.
      scope: as `sparsity_scope` of `inverse_scale_space`. "layer": every layer has the sparsity q.

    Returns:
      A dictionary of `nu`, `sparsity`, `sparsity_scope` and `finish`: write `**pace(...)`.

    Raises:
      TypeError, ValueError: for what is out of its range.

    Examples:
      >>> import optax, parsimony as pm
      >>> tx = pm.split_lbi(0.1, momentum=0.9, **pm.pace(0.1, steps=10_000, sparsity=0.7))
      >>> pair = pm.pace(1e-3, steps=10_000, sparsity=0.7, finish=False)
      >>> tx = optax.chain(optax.scale_by_adam(), pm.inverse_scale_space(1e-3, **pair))
      >>> paced = pm.pace(0.1, steps=1000, sparsity=0.5)
      >>> round(paced["nu"], 3), [round(float(paced["sparsity"](k)), 3) for k in (0, 249, 499, 999)], paced["finish"]
      (25.0, [0.999, 0.75, 0.5, 0.5], 500)

    References:
      See the module; pruning along a schedule is that of Zhu and Gupta (arXiv 1710.01878), here from nothing up.
    """
    check_positive("learning_rate", learning_rate)
    check_schedule("learning_rate", learning_rate)
    check_count("steps", steps, "the number of updates of the training, an int ≥ 1")
    if sparsity is None or callable(sparsity):
        raise TypeError(f"sparsity={sparsity!r}: expected the share of zeros at the end, a number in [0, 1).")
    check_sparsity(sparsity, scope)
    check_part("open_by", open_by, "a share of the steps, in (0, 1]")
    check_flag("finish", finish)
    pull = (2.0 if finish else 5.0) if pull is None else pull
    check_positive("pull", pull)
    opened = max(1, round(open_by * steps))
    if finish and opened == steps:
        raise ValueError(
            f"open_by={open_by!r} leaves none of the {steps} steps to finish W inside the support: open the path "
            "earlier, or choose finish=False for a dense W and a sparse W̃."
        )
    time = time_after(learning_rate, opened)
    if not 0 < time < math.inf:
        raise ValueError(
            f"the learning rate adds up to {time:g} over the first {opened} steps, in which the path is to open: "
            "expected a positive rate there."
        )
    nu: Any = time / pull
    line = optax.linear_schedule(1.0, sparsity, opened)
    after = lambda count: line(count + 1)  # the share after the step of this count: q after K₀ of them
    return Pace(nu=nu, sparsity=after, sparsity_scope=scope, finish=opened if finish else None)
