"""What the analysis knows of one array in a program."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .coupling import Coupling, Label


@dataclasses.dataclass(frozen=True)
class Value:
    """An array, seen by the analysis.

    Attributes:
      shape: its shape; a size may be symbolic where the label is rigid.
      labels: of each axis its nodes, or why it is rigid.
      zero: of each axis, for each index (or one bool for all), whether the slice there is zero once the unit of that
        index has all its members at zero.
      alike: of each axis whether the slices of removed units are all equal to what the program computes from equal
        slices of its operands; a sum over them is then exact too (a variance about a mean). None: where they are zero.
      constant: the number that every entry is, where that is known.
      weight: whether it depends on the parameters alone.
      known: its numbers, where they follow from the program alone; computed when they are asked for.
    """

    shape: tuple[Any, ...]
    labels: tuple[Label, ...]
    zero: tuple[Any, ...]
    alike: Any = None
    constant: float | None = None
    weight: bool = False
    known: Callable[[], np.ndarray] | None = None

    def __post_init__(self):
        # Of an axis that is rigid nothing is removed: what holds of its removed slices holds of all.
        pairs = zip(self.labels, self.zero, strict=True)
        object.__setattr__(self, "zero", tuple(isinstance(label, str) or zero for label, zero in pairs))
        if self.alike is None:
            object.__setattr__(self, "alike", tuple(bool(np.all(zero)) for zero in self.zero))

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def zeros(self, axis: int) -> np.ndarray:
        """`zero` of a labelled axis, an entry an index."""
        return np.broadcast_to(self.zero[axis], (self.shape[axis],))

    def harmless(self, axis: int) -> bool:
        """Whether a sum over the axis can be taken without its removed slices, or be corrected for them."""
        return self.alike[axis] or bool(np.all(self.zero[axis]))


def rigid(shape, reason: str, weight: bool = False) -> Value:
    """An array of which nothing can be removed."""
    n = len(shape)
    return Value(tuple(shape), (reason,) * n, (True,) * n, (True,) * n, None, weight)


def constant(coupling: Coupling, array) -> Value:
    """An array that the program was traced with: it can be cut, but it is not zeroed."""
    shape = np.shape(array)
    try:
        values = np.asarray(array)
        flat = values.astype(float).ravel() if values.dtype.kind in "biufV" else None
    except (TypeError, ValueError):  # random keys and the like
        return rigid(shape, "an array that the function was traced with")
    zero = tuple((values == 0).all(axis=tuple(a for a in range(len(shape)) if a != axis)) for axis in range(len(shape)))
    known = float(flat[0]) if flat is not None and flat.size and (flat == flat[0]).all() else None
    labels = tuple(coupling.new(n) for n in shape)
    alike = (known is not None,) * len(shape)
    finite = known if known is None or math.isfinite(known) else None
    return Value(shape, labels, zero, alike, finite, False, lambda: values)


def scalar(number: Any) -> Value:
    """A literal of the program."""
    known = float(number) if np.asarray(number).dtype.kind in "biufV" else None
    return Value((), (), (), (), known, True, lambda: np.asarray(number))
