"""Whether a path will open: what V after some steps says of the rest of the training."""

from typing import Literal, NamedTuple

import jax
import numpy as np
import optax

from ._checks import check_count, check_positive
from ._path_speed import time_after
from ._ranking import layers
from ._state import split_lbi_states


class PathForecast(NamedTuple):
    """What `path_forecast` says.

    Attributes:
      inside: share of the groups that are in the support now.
      expected: share that would be by the end if V kept its mean rate so far.
      done: share of the time t = Σα of the whole training that is over.
      verdict: "stays empty", "fills at once" or "unfolds".
      advice: what to change, or nothing.

    Examples:
      >>> PathForecast(0.0, 0.4, 0.1, "unfolds", "").verdict
      'unfolds'

    References:
      See `path_forecast`.
    """

    inside: float
    expected: float
    done: float
    verdict: Literal["stays empty", "fills at once", "unfolds"]
    advice: str


def path_forecast(
    params: optax.Params, opt_state: optax.OptState, learning_rate: optax.ScalarOrSchedule, steps: int
) -> PathForecast:
    """Says from the state after some steps whether a path of fixed strengths will stay empty, or has filled at once.

        V(t_end) ≈ V(t)·t_end/t

    Before a group enters, V grows by W/ν in the time t = Σα. The coupling and, before a normalisation, the shrinking of
    all filters slow it down, so that `expected` is rather too high: a path that stays empty by it will. Ask within the
    first tenth of a training. Paths under a `sparsity` open by their schedule and need no forecast.

    Args:
      params, opt_state: see `rank`.
      learning_rate: the step of V, a number or a schedule.
      steps: the number of updates of the whole training.

    Returns:
      A `PathForecast`: "stays empty" where less than 1 % of the groups are expected to enter, "fills at once" where
      more than half are inside before a fifth of the time is over, else "unfolds".

    Raises:
      ValueError: no step taken yet, a path under a sparsity, and as `rank`.

    Examples:
      >>> import jax.numpy as jnp, parsimony as pm
      >>> params = {"kernel": jnp.array([[1.0, 2.0]])}
      >>> tx = pm.split_lbi(0.1, nu=100.0)
      >>> _, state = tx.update({"kernel": jnp.zeros((1, 2))}, tx.init(params), params)
      >>> path_forecast(params, state, 0.1, steps=1000).verdict  # V = 0.1·1000/100·(1, 2) at the end, against λ = 1
      'unfolds'
      >>> path_forecast(params, state, 0.1, steps=10).verdict
      'stays empty'

    References:
      The rate of V is that of arXiv 1905.09449; the rule is ours.
    """
    check_positive("learning_rate", learning_rate)
    check_count("steps", steps, "the number of updates of the training, an int ≥ 1")
    for state in split_lbi_states(opt_state):
        if any(np.any(np.asarray(t) != 1) for t in jax.tree.leaves(state.strength)):
            raise ValueError("path_forecast: this path opens by the schedule of its sparsity, whatever V does.")
        time = float(np.asarray(jax.tree.leaves(state.time)[0]))
        if time == 0:
            raise ValueError("path_forecast: V is zero before the first step; ask after some steps.")
    found, _, _ = layers(params, opt_state, "dual")
    beyond = np.concatenate([-layer.first for layer in found]) if found else np.zeros(0)
    end = time_after(learning_rate, steps)
    inside, expected = (float(np.mean(beyond * by > 1)) if beyond.size else 0.0 for by in (1.0, max(1.0, end / time)))
    done = min(1.0, time / end)
    if expected < 0.01:
        return PathForecast(inside, expected, done, "stays empty", _OPEN + "a smaller strength or nu.")
    if inside > 0.5 and done < 0.2:
        return PathForecast(inside, expected, done, "fills at once", _OPEN + "a larger strength or nu.")
    return PathForecast(inside, expected, done, "unfolds", "")


_OPEN = "Let a sparsity pace the path, **pm.pace(learning_rate, steps, sparsity=0.7), or give it "
