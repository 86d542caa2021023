"""`choose`: the units to keep, from an order of them and a size that the model may have."""

import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from ..._checks import check_protect, one_of
from ..._ranking import in_order, layers
from ..._readout import split_lbi_states
from ..._selection import Order
from ..._tree import named_leaves
from .._surgery.compact import analysis_of
from .._surgery.opt_state import belongs
from .._units import Units, UnitSet, structs
from .count import counts


def rank_units(units: Units, params, opt_state=None, order: Order = "entry") -> dict[str, np.ndarray]:
    """The place of each unit in the order in which structure is kept: the smaller, the more important.

    A unit has the first place among the groups that make it: a filter that entered in one layer of a stream keeps the
    channel of the whole stream. Without an optimizer state the order is that of magnitude: the root mean square of all
    that makes the unit.

    Args:
      units, params: as in `compact`.
      opt_state: a state with Split LBI in it, or None for "magnitude".
      order: see `pm.rank`.

    Returns:
      {set: float for each unit}; sets without a penalised group are left out.

    Raises:
      ValueError: as `pm.rank`.

    >>> import jax, jax.numpy as jnp, parsimony as pm
    >>> params = {"w1": jnp.array([[1.0, 3.0, 2.0]]), "w2": jnp.ones((3, 2))}
    >>> fn = lambda p, x: jax.nn.relu(x @ p["w1"]) @ p["w2"]
    >>> units = pm.structure.find_units(fn, params, jnp.ones((2, 1)))
    >>> pm.structure.rank_units(units, params, order="magnitude")["w1"].tolist()  # minus the root mean square
    [-1.0, -3.0, -2.0]
    """
    leaves = dict(units.matched(params)[0])
    if opt_state is None:
        if order != "magnitude":
            raise ValueError(
                f"order={order!r} needs the opt_state of the training; without one write order='magnitude'."
            )
        return {name: -_rms(own, leaves) for name, own in units.sets.items() if own.makers}
    duals = [name for state in split_lbi_states(opt_state) for name, _ in named_leaves(state.dual)[0]]
    parameters: dict[str, str] = {}
    for name in duals:
        parameter = belongs(name, units.shapes)
        if parameter is None:
            raise ValueError(f"opt_state holds {name!r}, which is no parameter of these units.")
        parameters[name] = parameter
    ranked, _, _ = layers({name: leaves[parameter] for name, parameter in parameters.items()}, opt_state, order)
    places: dict[str, np.ndarray] = {}  # of each weight that of its group
    for layer, part in zip(ranked, in_order(ranked) if ranked else [], strict=True):
        for member in layer.members:
            place = np.where(member.inside, part[member.index], np.inf)
            parameter = parameters[member.name]
            places[parameter] = np.minimum(place, places.get(parameter, np.inf))
    found = {}
    for name, own in units.sets.items():
        makers = [place for place in own.makers if place[0] in places]
        first = [own.each(np.minimum, *place, places[place[0]], np.inf) for place in makers]
        if first and np.isfinite(best := np.minimum.reduce(first)).all():
            found[name] = best
    return found


def _rms(own: UnitSet, leaves: dict[str, Any]) -> np.ndarray:
    """Of all that makes each unit."""
    squares = lambda place: np.square(np.asarray(leaves[place[0]], np.float64))
    total = sum(own.each(np.add, *place, squares(place), 0.0) for place in own.makers)
    size = sum(own.each(np.add, *place, np.ones(np.shape(leaves[place[0]])), 0.0) for place in own.makers)
    return np.sqrt(total / np.maximum(size, 1))


def choose(
    units: Units,
    params,
    opt_state=None,
    *,
    at_most: float,
    target: Literal["units", "parameters", "macs"] = "units",
    order: Order | dict[str, np.ndarray] = "entry",
    scope: Literal["global", "layer"] = "global",
    round_to: int = 1,
    minimum: int = 1,
    protect: Sequence[str] = (),
) -> dict[str, np.ndarray]:
    """The units to keep so that the model has at most a given size, the last of the order removed first.

    Args:
      units, params, opt_state: as in `compact`.
      at_most: what may be left: a share in (0, 1) of what the whole model has, or a number of at least 1.
      target: of what: "units"; "parameters" of the function; "macs", its multiply-adds (see `count`).
      order: see `pm.rank`; or {set: numbers}, smallest first. Without `opt_state`: "magnitude".
      scope: "global": one order of the units of all sets; "layer": every set gives up the same share, which suits
        orders that do not compare between layers (magnitudes) and hurts small layers.
      round_to: the number of units that a set keeps is rounded up to a multiple of it (8 for tensor cores).
      minimum: a set keeps at least so many.
      protect: regular expressions; sets whose names they are found in are kept whole. So are sets that are `reduced`.

    Returns:
      {set: bool for each unit}, for `compact`; sets that are kept whole are left out.

    Raises:
      ValueError: a target that cannot be reached (with what can be), and as `pm.rank`.

    >>> import jax, jax.numpy as jnp, parsimony as pm
    >>> params = {"w1": jnp.array([[1.0, 3.0, 2.0, 4.0]]), "w2": jnp.ones((4, 2))}
    >>> fn = lambda p, x: jax.nn.relu(x @ p["w1"]) @ p["w2"]
    >>> units = pm.structure.find_units(fn, params, jnp.ones((2, 1)))
    >>> pm.structure.choose(units, params, at_most=0.5, order="magnitude")["w1"].tolist()
    [False, True, False, True]
    """
    one_of("target", target, ("units", "parameters", "macs"))
    one_of("scope", scope, ("global", "layer"))
    for name, value in (("round_to", round_to), ("minimum", minimum)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}={value!r}: expected an int of at least 1.")
    check_protect(protect, list(units.sets))
    if not isinstance(at_most, int | float) or isinstance(at_most, bool) or not at_most > 0:
        raise ValueError(f"at_most={at_most!r}: expected a share in (0, 1), or a number of {target} of at least 1.")
    given = order if isinstance(order, dict) else rank_units(units, params, opt_state, order)
    scores = {}
    for name, numbers in given.items():
        numbers = np.asarray(numbers, float)
        if name not in units.sets or numbers.shape != (units.sets[name].size,):
            raise ValueError(f"order[{name!r}]: expected a number for each unit of a set of {list(units.sets)[:8]}.")
        if not units.sets[name].reduced and not any(re.search(pattern, name) for pattern in protect):
            scores[name] = numbers
    if not scores:
        raise ValueError("nothing to choose from: every set is protected, not exact or without an order.")

    places = _places(scores, scope)
    measure = _measure(units, params, target)
    goal = at_most * measure({}) if at_most < 1 else at_most
    total = sum(map(len, scores.values()))
    cut = lambda removed: _keep(places, removed, round_to, minimum)
    if (least := measure(cut(total))) > goal:
        raise ValueError(
            f"at_most={at_most!r}: the least that this order can leave is {least:,} of {measure({}):,} "
            f"{target} (minimum={minimum}, round_to={round_to}, {len(scores)} of {len(units.sets)} sets)."
        )
    low, high = -1, total  # the fewest units whose removal suffices, in (low, high]
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if measure(cut(middle)) <= goal else (middle, high)
    return {name: mask for name, mask in cut(high).items() if not mask.all()}


def _places(scores: dict[str, np.ndarray], scope: str) -> dict[str, np.ndarray]:
    """For each unit its place in the one order in which units are kept."""
    if scope == "layer":  # each set by itself, in equal shares
        scores = {name: (_ranks(x) + 0.5) / len(x) for name, x in scores.items()}
    place = _ranks(np.concatenate(list(scores.values())))
    return dict(zip(scores, np.split(place, np.cumsum([len(x) for x in scores.values()])[:-1]), strict=True))


def _ranks(x: np.ndarray) -> np.ndarray:
    """The place of each in ascending order, ties as they stand."""
    return np.argsort(np.argsort(x, kind="stable"))


def _keep(places: dict[str, np.ndarray], removed: int, round_to: int, minimum: int) -> dict[str, np.ndarray]:
    """All but the last `removed` units of the order, and what the multiples and the minimum ask for."""
    total = sum(map(len, places.values()))
    keep = {}
    for name, place in places.items():
        left = max(int((place < total - removed).sum()), minimum)
        left = min(-(-left // round_to) * round_to, len(place))
        keep[name] = _ranks(place) < left
    return keep


def _measure(units: Units, params, target: str) -> Callable[[dict[str, np.ndarray]], int]:
    if target == "units":
        total = sum(own.size for own in units.sets.values())
        return lambda keep: total - sum(int((~mask).sum()) for mask in keep.values())
    if units.fn is None or not units.arguments:
        raise ValueError(f"target={target!r} needs the function: these units came from JSON; call find_units.")
    whole = structs(params)
    found = analysis_of(units, whole, units.arguments)
    return lambda keep: getattr(counts(found, whole, keep), target)
