"""Kinds of indices: a number for each index of an axis, the same for two of them only where their slices are equal."""

from collections.abc import Hashable, Iterable, Sequence

import numpy as np


def numbered(things: Iterable[Hashable]) -> np.ndarray:
    """A number for each, the same for equal ones."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(thing, len(numbers)) for thing in things], int)


def together(*kinds: np.ndarray) -> np.ndarray:
    """The kinds of what is made of one thing of each of these."""
    return numbered(zip(*(its.tolist() for its in kinds), strict=True))


def side_by_side(parts: Iterable[tuple[np.ndarray | None, int]]) -> np.ndarray:
    """Of arrays put one after the other, (kinds or None, size) of each: those of one are not those of another."""
    return numbered((place, its) for place, (kinds, n) in enumerate(parts) for its in _or_all(kinds, n).tolist())


def _or_all(kinds: np.ndarray | None, size: int) -> np.ndarray:
    return np.arange(size) if kinds is None else kinds


def of_blocks(known: dict[int, np.ndarray], old: Sequence[int], new: Sequence[int]) -> dict[int, np.ndarray]:
    """Where axes of the sizes `old` become one, or one becomes several: {place among the new ones: kinds}.

    Parts of one axis are equal where each of their indices is; so are indices of the one where their parts are.
    """
    if known and len(new) == 1:
        its = [_or_all(known.get(place), n) for place, n in enumerate(old)]
        return {0: together(*(grid.ravel() for grid in np.meshgrid(*its, indexing="ij")))}
    if not known or len(old) > 1:
        return {}
    parts = known[0].reshape(new)
    rows = lambda place: np.moveaxis(parts, place, 0).reshape(parts.shape[place], -1)
    return {place: numbered(map(tuple, rows(place).tolist())) for place in range(len(new))}


def of_convolution(read: np.ndarray | None, kernels: np.ndarray | None, groups: int) -> np.ndarray | None:
    """Of the outputs of a convolution: equal kernels over inputs of equal kinds."""
    if kernels is None:
        return None
    its = _or_all(None if read is None else numbered(map(tuple, read.reshape(groups, -1).tolist())), groups)
    return together(np.repeat(its, len(kernels) // groups), kernels)
