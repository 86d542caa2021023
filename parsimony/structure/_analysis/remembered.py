"""The analysis of a function at some shapes, made once."""

import jax

from .._units import Units
from .analyse import Analysis, analyse


def analysis_of(units: Units, whole, args) -> Analysis:
    """The analysis of the function at these shapes, remembered."""
    key = _key(whole, args)
    if key not in units._cache:
        found = analyse(units.fn, whole, args, units.inputs)
        if {name: s.size for name, s in found.sets.items()} != {name: s.size for name, s in units.sets.items()}:
            raise ValueError(
                "at these shapes of its arguments the function has other units than those it was compacted by: "
                f"{', '.join(found.sets)} instead of {', '.join(units.sets)}. Call find_units at these shapes."
            )
        units._cache[key] = found
    return units._cache[key]


def found_analysis(units: Units) -> Analysis | None:
    """The analysis that the units come from; None where they were read from JSON."""
    return next(iter(units._cache.values()), None)


def remember(units: Units, whole, args, found: Analysis) -> None:
    units._cache[_key(whole, args)] = found


def _key(whole, args):
    leaves, treedef = jax.tree.flatten((whole, args))
    return treedef, tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves)
