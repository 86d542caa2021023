"""What is known of an array of a program at given parameters, whatever the inputs are."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

from .kinds import numbered


@dataclasses.dataclass(frozen=True)
class Origin:
    """A parameter that an array is, up to the order of its axes and to axes of repetition.

    Attributes:
      name: of the parameter.
      axes: of each axis of the array that of the parameter, or None where the array is repeated along it.
    """

    name: str
    axes: tuple[int | None, ...]


@dataclasses.dataclass(eq=False)
class Reader:
    """A sum over an axis of a parameter, the only use of this parameter: y = Σ_i x_i·w_i, or a convolution.

    Attributes:
      kernel: the parameter w; axis: the one that is summed over.
      constant: for each index i whether x_i is one number for all inputs and places; number: this number.
      kinds: of each index i, as in `Known`: x_i = x_j where they are of one kind.
      border: whether zeros that pad x enter the sum, so that y is not one number even where x is.
      outputs: the other axes of w that are axes of y; all but these and `axis` are the window of a convolution.
      bias, order, sign: the parameter b that y is added to (sign 1) or that is taken from it (−1); axis of b → the
        axis of w that it goes along, or None.
    """

    kernel: str
    axis: int
    constant: np.ndarray
    number: np.ndarray
    kinds: np.ndarray
    border: bool
    outputs: tuple[int, ...]
    bias: str = ""
    order: dict[int | None, int | None] = dataclasses.field(default_factory=dict)
    sign: int = 1


@dataclasses.dataclass(frozen=True)
class Term:
    """An array that is a `Reader`'s y plus something else; `axes`: of each of its axes that of w, or None."""

    reader: Reader
    axes: tuple[int | None, ...]
    sign: int = 1


@dataclasses.dataclass(frozen=True)
class Known:
    """An array.

    Attributes:
      shape: its shape.
      array: its numbers, where they follow from the parameters alone.
      slices: axis → (for each index whether the slice there is one number, this number); only where any is known.
      kinds: axis → of each index a number, the same for two of them only where their slices are equal whatever the
        inputs are: computed in the same way from the same numbers.
      origin: see `Origin`.
      terms: the readers whose sums it holds, to which a bias has not been added yet.
    """

    shape: tuple[Any, ...]
    array: np.ndarray | None = None
    slices: dict[int, tuple[np.ndarray, np.ndarray]] = dataclasses.field(default_factory=dict)
    origin: Origin | None = None
    terms: tuple[Term, ...] = ()
    kinds: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def along(self, axis: int) -> tuple[np.ndarray, np.ndarray] | None:
        """`slices` of an axis, read off the numbers where these are known; None where nothing is known."""
        if self.array is None:
            return self.slices.get(axis)
        if not self.array.size:
            return None
        rows = np.moveaxis(self.array, axis, 0).reshape(self.array.shape[axis], -1)
        return (rows == rows[:, :1]).all(1), rows[:, 0]

    def kinds_along(self, axis: int) -> np.ndarray | None:
        """`kinds` of an axis, read off the numbers where these are known."""
        if self.array is None or not self.array.size:
            return self.kinds.get(axis)
        rows = np.ascontiguousarray(np.moveaxis(self.array, axis, 0)).reshape(self.array.shape[axis], -1)
        return numbered(row.tobytes() for row in rows)

    def kinds_at(self, axes: Iterable[int | None]) -> dict[int, np.ndarray]:
        """`kinds` of an array whose axes are these ones of this array; None: an axis of which nothing is known."""
        pairs = ((new, axis) for new, axis in enumerate(axes) if axis is not None)
        return {new: its for new, axis in pairs if (its := self.kinds_along(axis)) is not None}

    def silent(self, axis: int) -> np.ndarray:
        """For each index of an axis whether the slice there is zero."""
        known = self.along(axis)
        return np.zeros(self.shape[axis], bool) if known is None else known[0] & (known[1] == 0)

    def moved(self, shape, axes: tuple[int | None, ...], array=None) -> "Known":
        """The same numbers under other axes: of each axis of the result that it was, or None where it is repeated."""
        where = {old: new for new, old in enumerate(axes) if old is not None}
        slices = {where[axis]: known for axis, known in self.slices.items() if axis in where}
        if self.array is not None and array is None:  # too many repetitions to write out
            slices = {new: known for old, new in where.items() if (known := self.along(old)) is not None}
        pick = lambda items: tuple(None if axis is None else items[axis] for axis in axes)
        origin = None if self.origin is None else Origin(self.origin.name, pick(self.origin.axes))
        terms = tuple(dataclasses.replace(term, axes=pick(term.axes)) for term in self.terms)
        kinds = {} if array is not None else self.kinds_at(axes)
        return Known(tuple(shape), array, slices, origin, terms, kinds)
