"""When structure appeared: the step and the path time at which each group first entered the support.

    k_g = min{k : Γ_k,g ≠ 0},   t_g = t(k_g)        for every group g, updated inside the compiled step

References:
  ArXiv 1905.09449, section 3 (structure enters along the inverse scale space, the important first).
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ._checks import transformation
from ._penalties.penalty import inside, over, strength_of_each
from ._penalties.rules import resolve
from ._readout import merge
from ._state import SplitLBIState, check_state, nodes, split_lbi_states
from ._words import shown

NEVER = -1
"""Entry step and entry time of a group that has not entered."""


class RecordPathState(NamedTuple):
    """State of `record_path`.

    Attributes:
      steps: for each Split LBI state in `inner_state`, a tree like its V: int32, one entry a group; the
        scalar `NEVER` where unpenalised.
      times: the same for the path time, float32.
      inner_state: state of the wrapped transformation.

    Examples:
      >>> import jax.numpy as jnp, parsimony as pm
      >>> state = pm.record_path(pm.split_lbi(0.1)).init({"kernel": jnp.ones((1, 2)), "bias": jnp.ones(2)})
      >>> state.steps[0]["kernel"].tolist(), state.steps[0]["bias"].tolist()
      ([[-1, -1]], -1)

    References:
      See `record_path`.
    """

    steps: tuple[Any, ...]
    times: tuple[Any, ...]
    inner_state: optax.OptState


def record_path(tx: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Wraps a transformation that contains Split LBI, and remembers when each group first entered the support.

    The updates are those of `tx`. After a step, every group that was never in the support and has Γ ≠ 0 gets the
    number of steps that Split LBI has taken, and t. A group that leaves and returns keeps its first step.

    Args:
      tx: any transformation with Split LBI in it: `split_lbi` itself, a chain, a wrapper. Around `optax.MultiSteps`
        (give it `.gradient_transformation()`) and `optax.apply_if_finite` the steps that were really taken count.

    Returns:
      A `GradientTransformationExtraArgs` with state `RecordPathState`: 8 bytes a group more than that of `tx`.

    Raises:
      TypeError: `tx` is not a transformation.
      ValueError: there is no Split LBI in it (at `init`).

    Examples:
      >>> import jax.numpy as jnp, optax, parsimony as pm
      >>> params = {"kernel": jnp.array([[4.0, 0.1]])}
      >>> tx = pm.record_path(pm.split_lbi(0.5, nu=2.0))
      >>> state = tx.init(params)
      >>> for _ in range(2):
      ...     updates, state = tx.update({"kernel": jnp.zeros((1, 2))}, state, params)
      ...     params = optax.apply_updates(params, updates)
      >>> pm.entry_steps(state)["kernel"].tolist(), pm.entry_times(state)["kernel"].tolist()
      ([[2, -1]], [[1.0, -1.0]])

    References:
      ArXiv 1905.09449, section 3; the authors' code keeps the epoch of entry in the place of the step.
    """
    inner = transformation(f"record_path({shown(tx)})", tx, "pm.split_lbi(0.1)")

    def init_fn(params) -> Any:
        inner_state = inner.init(params)
        states = split_lbi_states(inner_state)
        never = lambda dtype: tuple(
            _map_groups(lambda entered: jnp.full_like(entered, NEVER, dtype=dtype), state) for state in states
        )
        return RecordPathState(never(jnp.int32), never(jnp.float32), inner_state)

    def update_fn(updates, state, params=None, **extra_args) -> tuple[Any, Any]:
        check_state(RecordPathState, state)
        updates, inner_state = inner.update(updates, state.inner_state, params, **extra_args)
        steps, times = [], []
        for core, core_steps, core_times in zip(split_lbi_states(inner_state), state.steps, state.times, strict=True):
            mark = lambda entered, step, now: jnp.where(entered & (step == NEVER), now, step)
            steps.append(_map_groups(functools.partial(mark, now=core.count), core, core_steps))
            times.append(
                _map_groups(functools.partial(mark, now=jnp.asarray(core.time, jnp.float32)), core, core_times)
            )
        return updates, RecordPathState(tuple(steps), tuple(times), inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def entry_steps(opt_state: optax.OptState):
    """The step at which each group first entered the support, counted from 1; `NEVER` (-1) where it has not.

    Args:
      opt_state: any state with that of `record_path` in it.

    Returns:
      The tree of the parameters with int32 arrays, one entry a group, shaped by the axes that index a group (an HWIO
      kernel under `GroupLasso(-1)`: its output filters); None where unpenalised.

    Raises:
      ValueError: the path was not recorded; and as `parsimony.gamma`.

    Examples:
      >>> import jax.numpy as jnp, parsimony as pm
      >>> state = pm.record_path(pm.split_lbi(0.1)).init({"kernel": jnp.ones((3, 3, 1, 2)), "bias": jnp.ones(2)})
      >>> pm.entry_steps(state)["kernel"].tolist(), pm.entry_steps(state)["bias"]  # nothing has entered yet
      ([-1, -1], None)

    References:
      ArXiv 1905.09449, section 3.
    """
    return _read(opt_state, "steps")


def entry_times(opt_state: optax.OptState):
    """The path time t = Σα at which each group first entered the support; `NEVER` (-1) where it has not.

    Args:
      opt_state: any state with that of `record_path` in it.

    Returns:
      As `entry_steps`, but float32, in units of α.

    Raises:
      ValueError: the path was not recorded; and as `parsimony.gamma`.

    Examples:
      >>> import jax.numpy as jnp, parsimony as pm
      >>> state = pm.record_path(pm.split_lbi(0.1)).init({"kernel": jnp.ones((1, 2))})
      >>> pm.entry_times(state)["kernel"].tolist()
      [[-1.0, -1.0]]

    References:
      ArXiv 1905.09449, section 3.
    """
    return _read(opt_state, "times")


def _map_groups(function, state: SplitLBIState, *records):
    """function(which groups are in the support, *record) for each parameter; a scalar False where unpenalised."""
    leaves, treedef = jax.tree.flatten(state.dual)
    strengths = strength_of_each(state.strength, len(leaves))
    penalties = resolve(state.penalty, state.dual, state.strength)
    rest = [treedef.flatten_up_to(record) for record in records]
    nothing = jnp.zeros((), bool)  # not an empty array, which Orbax cannot save
    return treedef.unflatten(
        [
            function(nothing if omega is None else inside(omega, over(v, strength)), *record)
            for v, omega, strength, *record in zip(leaves, penalties, strengths, *rest, strict=True)
        ]
    )


def _read(opt_state, field: str):
    found = nodes(RecordPathState, opt_state)
    if not found:
        raise ValueError(
            "the path was not recorded: this optimizer state holds no state of pm.record_path. "
            "Wrap the transformation before training: tx = pm.record_path(pm.split_lbi(...))."
        )
    trees = []
    for record in found:
        for state, tree in zip(split_lbi_states(record.inner_state), getattr(record, field), strict=True):
            penalties = resolve(state.penalty, state.dual)
            leaves, treedef = jax.tree.flatten(tree)
            read = [None if omega is None else leaf for omega, leaf in zip(penalties, leaves, strict=True)]
            trees.append(treedef.unflatten(read))
    return functools.reduce(merge, trees)
