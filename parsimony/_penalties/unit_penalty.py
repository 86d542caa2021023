"""A group penalty over whole units: slices of several parameters that enter together.

    Ω(x) = λ Σ_u c_u‖x_u‖₂,   ‖x_u‖² = Σ over the unit's slices of all parameters,   prox(v)_u = v_u·(1 − λc_u/‖v_u‖)₊

A filter alone is not a unit: its bias and the scale and shift of its normalisation keep a zero filter alive. Where Γ
leaves out all of them, the unit can be removed without any change of the outputs of the sparse model.

References:
  Yuan and Lin, "Model Selection and Estimation in Regression with Grouped Variables" (2006); units are the groups.
"""

import dataclasses
import functools
import hashlib
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from .._tree import named_leaves, one_ending
from .prox import Shape, check_fields, group_weight, shrink_factor, sqrt, square


@dataclasses.dataclass(frozen=True)
class Slices:
    """The units of one parameter: index i of its `axis` belongs to unit `units[i]`."""

    name: str
    shape: Shape
    axis: int
    units: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class UnitPenalty:
    """Ω(x) = λ Σ_u c_u‖x_u‖₂ over the units of a network; made by `parsimony.structure.unit_penalty`.

    Its methods act on trees of parameters, since a unit reaches over several. Parameters that the tree lacks, such as
    batch statistics, do not count; those without a unit are unpenalised.

    Attributes:
      slices: the units of each parameter.
      sets: (name, first unit, number of units) of each set.
      strength: λ > 0.
      scale: None for c_u = 1; "rms" for c_u = √|u|, so that units of unequal size enter on equal terms.

    Examples:
      >>> import jax, jax.numpy as jnp, parsimony as pm
      >>> params = {"w1": jnp.ones((4, 2)), "w2": jnp.ones((2, 3))}
      >>> fn = lambda p, x: jax.nn.relu(x @ p["w1"]) @ p["w2"]
      >>> penalty = pm.structure.unit_penalty(pm.structure.find_units(fn, params, jnp.ones((1, 4))))
      >>> isinstance(penalty, pm.UnitPenalty), penalty.sets
      (True, (('w1', 0, 2),))

    References:
      Yuan and Lin, "Model selection and estimation in regression with grouped variables" (2006).
    """

    slices: tuple[Slices, ...]
    sets: tuple[tuple[str, int, int], ...]
    strength: float = 1.0
    scale: Literal["rms"] | None = None

    def __post_init__(self):
        check_fields(self)

    @functools.cached_property
    def _key(self):
        digest = hashlib.sha256(repr(self.sets).encode())
        for part in self.slices:
            digest.update(repr((part.name, part.shape, part.axis)).encode() + part.units.tobytes())
        return self.strength, self.scale, digest.digest()

    def __eq__(self, other):
        return self is other or (isinstance(other, UnitPenalty) and self._key == other._key)

    def __hash__(self):
        return hash(self._key)

    def __repr__(self):
        return f"UnitPenalty({sum(n for *_, n in self.sets)} units, strength={self.strength}, scale={self.scale!r})"

    def bind(self, named: list[tuple[str, Any]]) -> list["UnitSlices | None"]:
        """For each named array of a tree its part of the penalty, which knows ‖x_u‖ of the whole tree."""
        parts = [self._slices_of(name, x) for name, x in named]
        if named and not any(parts):
            raise ValueError(
                f"{self!r} finds none of its parameters, {', '.join(part.name for part in self.slices[:6])}, ..., "
                f"among {', '.join(name for name, _ in named[:6])}, ...; find the units in a function of this tree."
            )
        tree = _Tree(self, [(part, x) for part, (_, x) in zip(parts, named, strict=True) if part is not None])
        return [part and UnitSlices(tree, part) for part in parts]

    def prox(self, tree):
        """Prox_Ω of a tree of arrays."""
        leaves, treedef = jax.tree.flatten(tree)
        parts = self.bind(named_leaves(tree)[0])
        return treedef.unflatten(
            [x if slices is None else slices.prox(x) for slices, x in zip(parts, leaves, strict=True)]
        )

    def value(self, tree):
        """Ω of a tree of arrays, a scalar."""
        return self._whole(tree).value()

    def group_norms(self, tree):
        """‖x_u‖ of each unit, set after set."""
        return self._whole(tree).norms

    def inside(self, tree):
        """Which units are in the support of Prox_Ω(tree)."""
        return self._whole(tree).factors > 0

    def _whole(self, tree) -> "_Tree":
        return next(slices.tree for slices in self.bind(named_leaves(tree)[0]) if slices is not None)

    def check(self, shape: Shape) -> None:
        """Every parameter is checked by name, in `bind`."""

    def moved(self, places: dict[str, dict[int, Any]]) -> "UnitPenalty":
        """The penalty after surgery: {parameter: {axis: where its indices come from, and which are new}}.

        See `_surgery.index_map.Layout`. Units of which nothing is left go; new ones follow those of their set.
        """
        alive, added, parts = np.zeros(sum(n for *_, n in self.sets), bool), {name: 0 for name, *_ in self.sets}, []
        for part in self.slices:
            axes, size = places.get(part.name, {}), part.shape[part.axis]
            shape = tuple(len(axes[axis].source) if axis in axes else n for axis, n in enumerate(part.shape))
            source, owner, copy = np.arange(size), np.full(size, "", dtype=object), np.zeros(size, int)
            if part.axis in axes:
                source, owner, copy = axes[part.axis].source, axes[part.axis].owner, axes[part.axis].copy
                copy = np.where([name in added for name in owner], copy, 0)
            for name, k in zip(owner[copy > 0], copy[copy > 0].tolist(), strict=True):
                added[name] = max(added[name], k)
            alive[part.units[source[copy == 0]]] = True
            parts.append((part, shape, source, owner, copy))
        table, number, start = [], np.zeros(len(alive), int), 0
        first_new: dict[str, int] = {}
        for name, before, n in self.sets:
            left = alive[before : before + n]
            number[before : before + n] = start + np.cumsum(left) - 1
            first_new[name] = start + int(left.sum())
            table.append((name, start, int(left.sum()) + added[name]))
            start = table[-1][1] + table[-1][2]
        slices = []
        for part, shape, source, owner, copy in parts:
            units = number[part.units[source]]
            for index in np.flatnonzero(copy):
                units[index] = first_new[owner[index]] + copy[index] - 1
            slices.append(Slices(part.name, shape, part.axis, units))
        return UnitPenalty(tuple(slices), tuple(table), self.strength, self.scale)

    @functools.cached_property
    def _by_name(self) -> dict[str, Slices]:
        return {part.name: part for part in self.slices}

    def _slices_of(self, name: str, x) -> Slices | None:
        # The optimizer may see only a part of the variables, such as Linen's variables["params"].
        full = name if name in self._by_name else one_ending(name, self._by_name)
        part = None if full is None else self._by_name[full]
        if part is not None and part.shape != tuple(jnp.shape(x)):
            raise ValueError(
                f"parameter {name!r} has shape {jnp.shape(x)}, but {self!r} was made for {part.shape}; find the units "
                "of these parameters, and make the penalty of them."
            )
        return part


class _Tree:
    """The arrays of one tree that have units."""

    def __init__(self, whole: UnitPenalty, arrays: list[tuple[Slices, Any]]):
        self.whole, self._arrays = whole, arrays
        self._count = sum(n for *_, n in whole.sets)

    @functools.cached_property
    def norms(self) -> jax.Array:
        """‖x_u‖ of each unit; computed where it is asked for."""
        squares = jnp.zeros(self._count, jnp.result_type(jnp.float32, *(x.dtype for _, x in self._arrays)))
        for part, x in self._arrays:
            squares = squares.at[part.units].add(_squares(part, x).astype(squares.dtype))
        return sqrt(squares)

    @functools.cached_property
    def factors(self) -> jax.Array:
        """(1 − λc_u/‖x_u‖)₊ of each unit."""
        return shrink_factor(self.norms, jnp.asarray(self.thresholds, self.norms.dtype))

    def value(self) -> jax.Array:
        """Ω of the tree."""
        return jnp.sum(jnp.asarray(self.thresholds, self.norms.dtype) * self.norms)

    @functools.cached_property
    def thresholds(self) -> np.ndarray:
        """λc_u."""
        sizes = np.zeros(self._count)
        for part, _ in self._arrays:
            np.add.at(sizes, part.units, math.prod(part.shape) // part.shape[part.axis])
        return self.whole.strength * group_weight(self.whole.scale, sizes)


@dataclasses.dataclass(frozen=True, eq=False)
class UnitSlices:
    """A `UnitPenalty` on one parameter, `part`, beside the others of the `tree` that it was bound to."""

    tree: _Tree
    part: Slices

    @property
    def strength(self) -> float:
        return self.tree.whole.strength

    def check(self, shape: Shape) -> None:
        assert shape == self.part.shape

    def soft(self, v):
        return v

    def shrink(self, v):
        shape = tuple(n if axis == self.part.axis else 1 for axis, n in enumerate(self.part.shape))
        return self.tree.factors[self.part.units].reshape(shape).astype(v.dtype)

    def prox(self, v):
        """Of the array that the penalty was bound to."""
        return self.shrink(v) * v

    def group_norms(self, x):
        """One norm for each index of the axis: this parameter's share of its unit."""
        return sqrt(_squares(self.part, x)).astype(x.dtype)

    def group_index(self, shape: Shape):
        shape_of_index = tuple(-1 if axis == self.part.axis else 1 for axis in range(len(shape)))
        return np.broadcast_to(np.arange(shape[self.part.axis]).reshape(shape_of_index), shape)


def _squares(part: Slices, x):
    """Σx² over each index of the axis."""
    return jnp.sum(square(x), axis=tuple(axis for axis in range(len(part.shape)) if axis != part.axis))
