"""`rank_units`: the units in the order of the path, or of their magnitude."""

from typing import Any

import numpy as np

from ..._checks import check_finite
from ..._penalties.rules import resolve
from ..._penalties.unit_penalty import UnitSlices
from ..._ranking import in_order, layers
from ..._selection import Criterion
from ..._state import split_lbi_states
from ..._tree import named_leaves
from .._surgery.opt_state import parameter_of
from .._units import Units, UnitSet, check_units


def rank_units(units: Units, params, opt_state=None, order: Criterion = "dual") -> dict[str, np.ndarray]:
    """The place of each unit in the order in which structure is kept: the smaller, the more important.

    A unit has the first place among the groups that make it, or that read it where the penalty is of those: a filter
    that entered in one layer of a stream keeps the channel of the whole stream. Without an optimizer state the order is
    that of magnitude: the root mean square of all that makes the unit.

    Args:
      units, params: as in `compact`.
      opt_state: a state with Split LBI in it, or None for "magnitude".
      order: see `pm.rank`.

    Returns:
      {set: float for each unit}; sets without a penalised group are left out.

    Raises:
      ValueError: as `pm.rank`.

    Examples:
      >>> import jax, jax.numpy as jnp, parsimony as pm
      >>> params = {"w1": jnp.array([[1.0, 3.0, 2.0]]), "w2": jnp.ones((3, 2))}
      >>> fn = lambda p, x: jax.nn.relu(x @ p["w1"]) @ p["w2"]
      >>> units = pm.structure.find_units(fn, params, jnp.ones((2, 1)))
      >>> pm.structure.rank_units(units, params, order="magnitude")["w1"].tolist()  # minus the root mean square
      [-1.0, -3.0, -2.0]
    """
    check_units("rank_units(units, params, opt_state)", units, params, opt_state)
    leaves = dict(units.matched(params)[0])
    if opt_state is None:
        if order != "magnitude":
            raise ValueError(
                f"order={order!r} needs the opt_state of the training; without one write order='magnitude'."
            )
        check_finite("W", leaves.items())
        return {name: -_rms(unit_set, leaves) for name, unit_set in units.sets.items() if unit_set.makers}
    parameters: dict[str, str] = {}
    along: dict[str, int] = {}  # the axis that the units of a penalty lie along
    for state in split_lbi_states(opt_state):
        for (name, _), omega in zip(named_leaves(state.dual)[0], resolve(state.penalty, state.dual), strict=True):
            parameters[name] = parameter_of(name, units.shapes)
            if isinstance(omega, UnitSlices):
                along[parameters[name]] = omega.part.axis
    ranked, _, _ = layers({name: leaves[parameter] for name, parameter in parameters.items()}, opt_state, order)
    places: dict[str, np.ndarray] = {}  # of each weight that of its group
    for layer, part in zip(ranked, in_order(ranked) if ranked else [], strict=True):
        for member in layer.members:
            place = np.where(member.inside, part[member.index], np.inf)
            parameter = parameters[member.name]
            places[parameter] = np.minimum(place, places.get(parameter, np.inf))
    found = {}
    for name, unit_set in units.sets.items():
        groups = [
            (parameter, axis)
            for parameter, axis in (*unit_set.makers, *unit_set.readers)
            if parameter in places
            and (axis == along[parameter] if parameter in along else (parameter, axis) in unit_set.makers)
        ]
        first = [unit_set.each(np.minimum, *place, places[place[0]], np.inf) for place in groups]
        if first and np.isfinite(best := np.minimum.reduce(first)).all():
            found[name] = best
    return found


def ranks(x: np.ndarray) -> np.ndarray:
    """The place of each in ascending order, ties as they stand."""
    return np.argsort(np.argsort(x, kind="stable"))


def _rms(unit_set: UnitSet, leaves: dict[str, Any]) -> np.ndarray:
    """Of all that makes each unit."""
    size = sum(unit_set.each(np.add, *place, np.ones(np.shape(leaves[place[0]])), 0.0) for place in unit_set.makers)
    return np.sqrt(unit_set.squares(unit_set.makers, leaves) / np.maximum(size, 1))
