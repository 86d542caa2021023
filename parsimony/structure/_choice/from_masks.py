"""`keep_from_masks`: from masks on weights to the units that stay."""

from typing import Literal

import numpy as np

from ..._tree import named_leaves
from ..._words import one_of
from .._rewrite.flow import passes
from .._surgery.opt_state import belongs
from .._units import Units, UnitSet, check_units


def keep_from_masks(units: Units, masks, *, conflicts: Literal["error", "keep"] = "error") -> dict[str, np.ndarray]:
    """The units that masks leave alive.

    A unit goes when the masks remove everything that makes it: its filter, in each layer that adds to it. It goes as
    well when they remove everything that reads it. A bias or a normalisation without a mask of its own goes along.

    Args:
      units: what `find_units` found.
      masks: a tree of bool arrays of the parameters' shapes, from `pm.select` or `pm.support`; parameters
        absent from it are kept.
      conflicts: what becomes of a unit whose filter is removed in one place and kept in another: "error", or "keep".

    Returns:
      {set: bool for each unit}, for `compact`; sets that are kept whole are left out.

    Raises:
      ValueError: masks that contradict the units, masks of other shapes, a set that is left without a unit and that no
        shortcut leads past.

    Examples:
      >>> import jax, jax.numpy as jnp, parsimony as pm
      >>> params = {"w1": jnp.ones((4, 3)), "b1": jnp.ones(3), "w2": jnp.ones((3, 2))}
      >>> fn = lambda p, x: jax.nn.relu(x @ p["w1"] + p["b1"][None]) @ p["w2"]
      >>> units = pm.structure.find_units(fn, params, jnp.ones((2, 4)))
      >>> masks = {"w1": jnp.ones((4, 3), bool).at[:, 1].set(False)}
      >>> pm.structure.keep_from_masks(units, masks)["w1"].tolist()
      [True, False, True]
    """
    check_units("keep_from_masks(units, masks)", units, masks)
    one_of("conflicts", conflicts, ("error", "keep"))
    inside = by_parameter(units, masks)
    keep = {
        name: keep for name, unit_set in units.sets.items() if not (keep := _alive(unit_set, inside, conflicts)).all()
    }
    emptied = [name for name, alive in keep.items() if not alive.any()]
    found = next(iter(units._cache.values()), None)  # that of `find_units`
    if emptied and (found is None or not passes(found, keep)):
        raise ValueError(
            f"the masks leave no unit of the set {emptied[0]!r} ({units.sets[emptied[0]].size} units): nothing would "
            "pass through. Select fewer, with scope='layer', or protect its parameters."
        )
    return keep


def by_parameter(units: Units, masks) -> dict[str, np.ndarray]:
    """{parameter: mask}, checked to be of the parameters that the units were found in."""
    found = {}
    for name, mask in named_leaves(masks)[0]:
        parameter, mask = belongs(name, units.shapes), np.asarray(mask)
        if parameter is None:
            raise ValueError(
                f"masks: {name!r} is not a parameter of these units; they have {', '.join(list(units.shapes)[:8])}."
            )
        if mask.dtype != bool or mask.shape != units.shapes[parameter]:
            raise ValueError(
                f"masks: {name!r} has dtype {mask.dtype} and shape {mask.shape}; expected bool of shape "
                f"{units.shapes[parameter]}, from pm.select or pm.support."
            )
        found[parameter] = mask
    return found


def _alive(unit_set: UnitSet, inside: dict[str, np.ndarray], conflicts: str) -> np.ndarray:
    """For each unit whether the masks leave it."""
    kept = {}  # (parameter, axis) → for each unit whether anything of it is kept there
    for parameter, axes in unit_set.members.items():
        for axis in axes if parameter in inside else ():
            kept[parameter, axis] = unit_set.each(np.logical_or, parameter, axis, inside[parameter], False)
    of_rank = lambda place: len(inside[place[0]].shape) >= 2
    makers = [place for place in kept if place in unit_set.makers]
    # A bias that no penalty touches has a mask of True: where there are filters, they decide.
    makers = [place for place in makers if of_rank(place)] or makers
    takers = [place for place in kept if place not in unit_set.makers and of_rank(place)]
    alive = np.ones(unit_set.size, bool)
    if makers:
        made: np.ndarray = np.stack([kept[place] for place in makers])
        alive = np.logical_or.reduce(made)
        torn = alive & ~np.logical_and.reduce(made)
        if conflicts == "error" and torn.any():
            _raise_contradiction(unit_set, makers, kept, int(np.flatnonzero(torn)[0]), int(torn.sum()))
    every_taker = {(p, a) for p, axes in unit_set.members.items() for a in axes if (p, a) not in unit_set.makers}
    if takers and every_taker <= set(takers):
        alive &= np.any([kept[place] for place in takers], axis=0)
    return alive


def _raise_contradiction(unit_set: UnitSet, makers, kept, unit: int, count: int) -> None:
    show = lambda place: f"axis {place[1]} of parameter {place[0]!r}, index {_first(unit_set, place, unit)}"
    removed = next(place for place in makers if not kept[place][unit])
    stays = next(place for place in makers if kept[place][unit])
    raise ValueError(
        f"the masks contradict the units: unit {unit} of the set {unit_set.name!r} is removed on {show(removed)}, "
        f"but kept on {show(stays)}, and they can only be removed together ({count} such units in this set). Train "
        "with pm.structure.unit_penalty, whose groups are the units, take the units by pm.structure.choose, or keep "
        "such units by conflicts='keep'."
    )


def _first(unit_set: UnitSet, place: tuple[str, int], unit: int) -> int:
    return int(np.flatnonzero(unit_set.members[place[0]][place[1]] == unit)[0])
