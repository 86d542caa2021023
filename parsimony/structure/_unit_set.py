"""A set of units of one kind: which indices of which axes belong to each."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class UnitSet:
    """Units of one kind, such as the filters of a layer.

    Attributes:
      name: the layer in which the function first uses one of its parameters, e.g. "conv1".
      size: the number of units.
      members: {parameter: {axis: the unit that each index belongs to, −1 for none}}, int arrays of the axis's size.
      reason: why a removal is not exact, or "": the function reduces over values that are not zero when the units are.
      makers: (parameter, axis) of the members that make the units' activations; once these are zero, so are they. The
        other members only take activations in.

    Examples:
      >>> import numpy as np
      >>> unit_set = UnitSet("w1", 2, {"w1": {1: np.array([0, 1])}, "w2": {0: np.array([0, 1])}}, makers=(("w1", 1),))
      >>> unit_set.reduced, unit_set.each(np.add, "w1", 1, np.ones((4, 2)), 0.0).tolist()
      (False, [4.0, 4.0])
    """

    name: str
    size: int
    members: dict[str, dict[int, np.ndarray]]
    reason: str = ""
    makers: tuple[tuple[str, int], ...] = ()

    @property
    def reduced(self) -> bool:
        """Whether a removal is not exact."""
        return bool(self.reason)

    @property
    def readers(self) -> tuple[tuple[str, int], ...]:
        """(parameter, axis) of the members that only take activations in."""
        places = ((name, axis) for name, axes in self.members.items() for axis in axes)
        return tuple(place for place in places if place not in self.makers)

    def at_width(self, width: int) -> np.ndarray:
        """How many there are of each unit at another width: copies of the last, or the first ones only."""
        number = (np.arange(self.size) < width).astype(int)
        number[-1] += max(0, width - self.size)
        return number

    def each(self, ufunc: np.ufunc, parameter: str, axis: int, values, start) -> np.ndarray:
        """For each unit `values`, an array of the parameter's shape, put together by `ufunc` over what is its own."""
        values, unit = np.asarray(values), self.members[parameter][axis]
        by_index = ufunc.reduce(values, axis=tuple(a for a in range(values.ndim) if a != axis))
        found = np.full(self.size, start)
        ufunc.at(found, unit[unit >= 0], by_index[unit >= 0])
        return found

    def squares(self, places: Iterable[tuple[str, int]], arrays: Mapping[str, Any]) -> np.ndarray:
        """For each unit ‖x_u‖², over what is its own at these (parameter, axis); float64."""
        square = lambda parameter: np.square(np.asarray(arrays[parameter], np.float64))
        return sum((self.each(np.add, *place, square(place[0]), 0.0) for place in places), np.zeros(self.size))
