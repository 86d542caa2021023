"""When a layer uses all it has, and how wide it is to become."""

import math
import re
from collections.abc import Sequence

import numpy as np

from ..._checks import check_count, check_finite, check_scalar
from ..._readout import gammas
from ..._state import split_lbi_states
from ..._tree import named_leaves
from ..._words import check_patterns, shown
from .._surgery.opt_state import parameter_of
from .._units import Units, check_units


def saturation(units: Units, opt_state) -> dict[str, float]:
    """For each set the share of its units that are in the support of Γ, in [0, 1].

    A unit is in when something that makes it is. Under one strength for all sets, those whose kernels have the largest
    norms, as with many inputs, fill first. Give each set a penalty of its own and let `path_speed` set its strength by
    the weights of that set: then the share tells how many units have earned their place.

    Args:
      units: of the function that is trained.
      opt_state: a state with Split LBI in it.

    Returns:
      {set: share}; sets without a penalised parameter are left out.

    Raises:
      ValueError: there is no Split LBI state, or it is of parameters of other shapes.

    Examples:
      >>> import jax, jax.numpy as jnp, parsimony as pm
      >>> params = {"w1": jnp.ones((4, 2)), "w2": jnp.ones((2, 3))}
      >>> fn = lambda p, x: jax.nn.relu(x @ p["w1"]) @ p["w2"]
      >>> units = pm.structure.find_units(fn, params, jnp.ones((2, 4)))
      >>> tx = pm.split_lbi(0.1, penalty=pm.structure.unit_penalty(units))
      >>> pm.structure.saturation(units, tx.init(params))
      {'w1': 0.0}

    References:
      ArXiv 1905.09449 grows a layer when 80 % of its filters are in supp Γ, under one strength for all layers.
    """
    check_units("saturation(units, opt_state)", units, opt_state)
    inside = {}
    for state in split_lbi_states(opt_state):
        check_finite("V", named_leaves(state.dual)[0])
        for name, penalty, structure in gammas(state):
            if penalty is not None:
                parameter = parameter_of(name, units.shapes)
                if structure.shape != units.shapes[parameter]:
                    raise ValueError(
                        f"{name!r} has shape {structure.shape} in opt_state, but the units were found with "
                        f"{units.shapes[parameter]}; find the units of the function as it is now."
                    )
                inside[parameter] = np.asarray(structure) != 0
    shares = {}
    for set_name, unit_set in units.sets.items():
        used = [
            unit_set.each(np.logical_or, *place, inside[place[0]], False)
            for place in unit_set.makers
            if place[0] in inside
        ]
        if used:
            shares[set_name] = float(np.logical_or.reduce(used).mean())
    return shares


def next_widths(
    units: Units,
    shares: dict[str, float],
    *,
    tau: float | Sequence[tuple[str, float]] = 0.8,
    step: int = 1,
    ratio: float = 0.5,
    round_to: int = 1,
    caps: Sequence[tuple[str, int]] = (),
) -> dict[str, int]:
    """The widths after a round: a set whose saturation reaches τ grows by max(step, ratio·size).

    Args:
      units, shares: the sets, and what `saturation` says of them.
      tau: τ in (0, 1], for all sets or by rule: pairs (regular expression, τ), the first that matches the set's name.
      step, ratio: units to add, at least; and as a share of those there are.
      round_to: widths that grow are rounded up to a multiple.
      caps: pairs (regular expression, most units).

    Returns:
      {set: width} of the sets that grow; empty when nothing saturates.

    Raises:
      ValueError: a τ, step, ratio or multiple out of range; a pattern that matches no set.

    Examples:
      >>> import jax, jax.numpy as jnp, parsimony as pm
      >>> params = {"w1": jnp.ones((4, 2)), "w2": jnp.ones((2, 6)), "w3": jnp.ones((6, 3))}
      >>> fn = lambda p, x: jax.nn.relu(jax.nn.relu(x @ p["w1"]) @ p["w2"]) @ p["w3"]
      >>> units = pm.structure.find_units(fn, params, jnp.ones((2, 4)))
      >>> pm.structure.next_widths(units, {"w1": 1.0, "w2": 0.5}, step=2, round_to=4)
      {'w1': 4}

    References:
      ArXiv 1905.09449 for growth at τ = 0.8; how much a set grows is ours.
    """
    check_units("next_widths(units, shares)", units, shares)
    for name, share in shares.items() if isinstance(shares, dict) else [("shares", None)]:
        if not isinstance(share, int | float | np.number) or isinstance(share, bool):
            raise TypeError(f"shares: expected {{set: share}}, as saturation gives, got {shown(share)} for {name!r}.")
        units.named(name, "shares")
    check_scalar("step", step, "a number of units")
    check_scalar("ratio", ratio, "a share of the units")
    check_count("round_to", round_to)
    rules = [("", tau)] if isinstance(tau, int | float) else _pairs("tau", tau)
    limits = _pairs("caps", caps)
    check_patterns("tau", (pattern for pattern, _ in rules), list(units.sets))
    check_patterns("caps", (pattern for pattern, _ in limits), list(units.sets))
    if any(not 0 < value <= 1 for _, value in rules):
        raise ValueError(f"tau={tau!r}: expected a share of the units, in (0, 1].")
    if not 1 <= step < math.inf or not 0 <= ratio < math.inf:
        raise ValueError(f"step={step!r}, ratio={ratio!r}: expected ≥ 1 and ≥ 0.")
    first = lambda rules, name, default: next((value for p, value in rules if re.search(p, name)), default)
    widths = {}
    for name, share in shares.items():
        size = units.sets[name].size
        width = size + max(step, math.ceil(ratio * size))
        width = min(-(-width // round_to) * round_to, first(limits, name, math.inf))
        if share >= first(rules, name, math.inf) and width > size and not units.sets[name].reduced:
            widths[name] = int(width)
    return widths


def _pairs(name: str, rules) -> list[tuple[str, float]]:
    """Rules by name as a list of (regular expression, number)."""
    pair = lambda rule: isinstance(rule, tuple | list) and len(rule) == 2 and isinstance(rule[0], str)
    number = lambda value: isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not isinstance(rules, list | tuple) or not all(pair(rule) and number(rule[1]) for rule in rules):
        raise TypeError(f"{name}={shown(rules)}: expected pairs of a regular expression and a number.")
    return [(pattern, value) for pattern, value in rules]
