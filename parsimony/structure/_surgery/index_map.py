"""Where new units lie: each axis of each parameter, with copies put in after the last unit of a set."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from .._rewrite.cutting import back, on_host, taken
from .._units import Units


@dataclasses.dataclass(frozen=True)
class Layout:
    """One axis of one parameter after growth.

    Attributes:
      source: for each index the one that it was, or is modelled on.
      owner: for each index the set whose new unit it belongs to; "" for what was there.
      copy: the number of that new unit in its set, from 1; 0 for what was there.
    """

    source: np.ndarray
    owner: np.ndarray
    copy: np.ndarray

    @property
    def new(self) -> np.ndarray:
        return self.copy > 0


Places = dict[str, dict[int, Layout]]
"""{parameter: {axis: Layout}} of the axes that change."""


def layouts(units: Units, widths: dict[str, int]) -> Places:
    """{parameter: {axis: Layout}} of the axes that grow.

    A unit that occupies a run of neighbouring indices, such as the columns of a head, is copied as a run: what was an
    axis of (heads × features) stays one.
    """
    found: dict[str, dict[int, Layout]] = {}
    for name, width in widths.items():
        unit_set = units.sets[name]
        for parameter, axes in unit_set.members.items():
            for axis, unit in axes.items():
                size = units.shapes[parameter][axis]
                before = Layout(np.arange(size), np.full(size, "", dtype=object), np.zeros(size, int))
                before = found.setdefault(parameter, {}).get(axis, before)
                found[parameter][axis] = _after_runs(
                    before, unit[before.source] == unit_set.size - 1, name, width - unit_set.size
                )
    return found


def _after_runs(before: Layout, last: np.ndarray, name: str, copies: int) -> Layout:
    """The layout with so many copies of each run of `last` behind it."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], last, [False]])))
    parts, start = [], 0
    for begin, end in edges.reshape(-1, 2):
        parts.append((slice(start, end), 0))
        parts += [(slice(begin, end), copy) for copy in range(1, copies + 1)]
        start = end
    parts.append((slice(start, len(last)), 0))
    source = np.concatenate([before.source[part] for part, _ in parts])
    owner = [np.where(copy > 0, name, before.owner[part]) for part, copy in parts]
    number = [np.where(copy > 0, copy, before.copy[part]) for part, copy in parts]
    return Layout(source, np.concatenate(owner).astype(object), np.concatenate(number))


def cut_layouts(removed: dict[str, dict[int, np.ndarray]]) -> Places:
    """{parameter: {axis: Layout}} of what is left."""
    left = lambda gone: np.flatnonzero(~gone)
    plain = lambda source: Layout(source, np.full(len(source), "", dtype=object), np.zeros(len(source), int))
    return {name: {axis: plain(left(gone)) for axis, gone in axes.items()} for name, axes in removed.items()}


def spread(leaf, axes: dict[int, Layout], fill):
    """An array of a parameter's shape in the new layout; the new entries are those of `fill`."""
    if on_host(leaf):
        return back(np.asarray(spread(np.asarray(leaf), axes, fill)), leaf)
    leaf = taken(leaf, {axis: layout.source for axis, layout in axes.items()})
    new = np.zeros([1] * np.ndim(leaf), bool)
    for axis, layout in axes.items():
        new = new | layout.new.reshape([-1 if a == axis else 1 for a in range(np.ndim(leaf))])
    if not new.any():
        return leaf
    if isinstance(leaf, np.ndarray):
        return np.where(new, np.asarray(fill).astype(leaf.dtype), leaf)
    return jnp.where(new, fill, leaf)
