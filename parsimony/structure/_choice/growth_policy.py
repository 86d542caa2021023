"""Which of its units a layer uses, and how wide it is to become."""

import math
import re
from collections.abc import Sequence

import numpy as np

from ..._checks import check_count, check_finite, check_part, check_scalar
from ..._words import check_patterns, shown
from .._units import Units, check_units


def used_units(units: Units, params, *, least: float = 0.2) -> dict[str, np.ndarray]:
    """Which units the network uses after a paced path on what reads them, and which have faded.

        used(u) ⇔ ‖a_u‖ ≥ θ·ā,   a_u: all weights that read u,   ā: the root mean square of the larger half of ‖a_u‖

    On a path by `unit_penalty(units, of="readers")` and `pace(..., sparsity=0.0, pull=p, finish=False, scope="layer")`
    the units of every set enter one after the other, and what has not entered yet is pulled towards zero: a unit that
    the loss does not hold shrinks by up to e⁻ᵖ, and those that have entered take over what it did. New units start at
    a_u = 0 and have to earn their place. Both norms are of one layer, so that neither its scale nor a normalisation
    after it counts. The two largest of a set are always in use: a layer of one unit could not grow. The share of a set
    that is in use is its *saturation*, see `next_widths`; `compact` takes the result, and removes the others.

    Args:
      units: of the function that is trained.
      params: W after the path.
      least: θ in (0, 1].

    Returns:
      {set: bool for each unit}; sets that nothing reads, and those of which nothing can be removed, are left out.

    Raises:
      ValueError: parameters of other shapes, or that are not finite; a θ out of range.

    Examples:
      >>> import jax, jax.numpy as jnp, parsimony as pm
      >>> params = {"w1": jnp.ones((4, 3)), "w2": jnp.array([[1.0, 1.0], [0.1, 0.1], [0.5, 1.0]])}
      >>> fn = lambda p, x: jax.nn.relu(x @ p["w1"]) @ p["w2"]
      >>> units = pm.structure.find_units(fn, params, jnp.ones((2, 4)))
      >>> pm.structure.used_units(units, params)["w1"].tolist()
      [True, False, True]

    References:
      ArXiv 1905.09449 grows a layer by the share of its filters in supp Γ, under one strength for all layers; that the
      groups are what reads a unit, and the share of those held against a pull, are ours.
    """
    check_units("used_units(units, params)", units, params)
    check_part("least", least, "a share of the norm of the other units, in (0, 1]")
    leaves = dict(units.matched(params)[0])
    found = {}
    for name, unit_set in units.sets.items():
        if unit_set.readers and not unit_set.reduced:
            check_finite("W", [(parameter, leaves[parameter]) for parameter, _ in unit_set.readers])
            squares = unit_set.squares(unit_set.readers, leaves)
            ordered = np.sort(squares)
            enough = least**2 * ordered[-max(1, unit_set.size // 2) :].mean()
            found[name] = squares >= min(enough, ordered[-2:][0])  # the two largest, or the only one
    return found


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

    The *saturation* of a set is the share of its units that are in use: the mean of what `used_units` says. A set whose
    new units were not needed falls below τ; without them it is full again, and is tried once more.

    Args:
      units, shares: the sets, and {set: saturation} in [0, 1].
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
            raise TypeError(f"shares: expected {{set: share of its units in use}}, got {shown(share)} for {name!r}.")
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
