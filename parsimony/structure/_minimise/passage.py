"""A layer that all has to pass through keeps one of its units, which is zero: arrays are never empty there."""

import numpy as np

from .._analysis.analyse import Analysis
from .._rewrite.flow import passes
from .._units import Units


def passable(
    units: Units, found: Analysis, gone: dict[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], list[tuple[str, int]]]:
    """(keep, the units that stay although they could go): as few as are needed for the inputs to reach the outputs."""
    keep = {name: ~mask for name, mask in gone.items() if mask.any()}
    back: list[tuple[str, int]] = []
    while emptied := _emptied(units, keep):
        if passes(found, keep):
            break
        name, unit = emptied[0]
        keep[name][unit] = True
        back.append((name, unit))
    needed = []
    for name, unit in back:
        keep[name][unit] = False
        if not passes(found, keep):
            keep[name][unit] = True
            needed.append((name, unit))
    return {name: mask for name, mask in keep.items() if not mask.all()}, needed


def _emptied(units: Units, keep) -> list[tuple[str, int]]:
    """Of each axis that has no index left a unit that would bring one back."""
    found = []
    for parameter, axes in units.removed(keep).items():
        for axis, lost in axes.items():
            if lost.all():
                owners = [
                    (unit_set.name, int(unit[unit >= 0][0]))
                    for unit_set in units.sets.values()
                    if (unit := unit_set.members.get(parameter, {}).get(axis)) is not None
                ]
                found += [(name, unit) for name, unit in owners if name in keep and not keep[name][unit]][:1]
    return found
