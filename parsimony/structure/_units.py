"""Units as data: which slices of which parameters live and die together; to and from JSON."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from .._checks import concrete
from .._state import check_params
from .._tree import named_leaves
from .._words import listed, nearest, shown
from ._files import units_json
from ._unit_set import UnitSet as UnitSet


@dataclasses.dataclass(frozen=True)
class Units:
    """What can be removed from a function, found by `find_units`.

    Attributes:
      sets: {name: UnitSet}.
      fixed: {parameter: {axis: reason}} for the axes that have an index that cannot be removed.
      unknown: {primitive: count} of the JAX primitives without a rule; what they touch is fixed.
      shapes, dtypes: of each parameter.
      fn: the function, or None when read from JSON without one.
      arguments: shapes and dtypes of the arguments that it was traced with.
      inputs: whether features of the inputs are units too, see `find_units`.

    Examples:
      >>> import jax, jax.numpy as jnp, numpy as np, parsimony as pm
      >>> params = {"w1": jnp.ones((4, 2)), "w2": jnp.ones((2, 3))}
      >>> units = pm.structure.find_units(lambda p, x: jax.nn.relu(x @ p["w1"]) @ p["w2"], params, jnp.ones((1, 4)))
      >>> units.sets["w1"].makers, units.fixed["w2"]
      ((('w1', 1),), {1: 'an axis of the output'})
      >>> units.zero({"w1": np.array([True, False])}, params)["w2"].tolist()
      [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]
      >>> pm.structure.Units.from_json(units.to_json()).shapes
      {'w1': (4, 2), 'w2': (2, 3)}
    """

    sets: dict[str, UnitSet]
    fixed: dict[str, dict[int, str]]
    unknown: dict[str, int]
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    fn: Callable[..., Any] | None = dataclasses.field(default=None, repr=False, compare=False)
    arguments: tuple[Any, ...] = dataclasses.field(default=(), repr=False, compare=False)
    inputs: bool = False
    _cache: dict[Any, Any] = dataclasses.field(default_factory=dict, repr=False, compare=False)

    def zero(self, keep, params):
        """The parameters with every member of the removed units at zero.

        Args:
          keep: {set: bool for each unit}; True stays. Sets that are left out are kept whole.
          params: parameters of the shapes that the units were found in.

        Returns:
          A tree like `params`.

        Raises:
          ValueError: an unknown set, a mask of another shape, or other parameters.
        """
        keep = self.checked(keep)
        leaves, treedef = self.matched(params)
        removed = self.removed(keep)

        def of_leaf(name, leaf):
            for axis, gone in removed.get(name, {}).items():
                shape = tuple(-1 if a == axis else 1 for a in range(jnp.ndim(leaf)))
                leaf = jnp.where(jnp.asarray(gone.reshape(shape)), jnp.zeros((), leaf.dtype), leaf)
            return leaf if name in removed else jnp.array(leaf)  # a copy: it must outlive a step that donates params

        return treedef.unflatten([of_leaf(name, leaf) for name, leaf in leaves])

    def removed(self, keep: dict[str, np.ndarray]) -> dict[str, dict[int, np.ndarray]]:
        """{parameter: {axis: bool for each index}}, True where it is removed."""
        gone: dict[str, dict[int, np.ndarray]] = {}
        for name, mask in keep.items():
            if mask.all():
                continue
            lost = np.append(~mask, False)  # the last entry is for index −1, no unit
            for parameter, axes in self.sets[name].members.items():
                for axis, unit in axes.items():
                    before = gone.setdefault(parameter, {}).get(axis, False)
                    gone[parameter][axis] = before | lost[unit]
        return gone

    def named(self, name, where: str) -> UnitSet:
        """The set of this name."""
        if name not in self.sets:
            raise ValueError(f"{where}: unknown set {name!r}{nearest(name, self.sets) or '.'}")
        return self.sets[name]

    def checked(self, keep) -> dict[str, np.ndarray]:
        """`keep` as bool arrays, one for each set that it names."""
        if not isinstance(keep, dict):
            raise TypeError(f"keep: expected a dict {{set: bool for each unit}}, got {type(keep).__name__}.")
        masks = {}
        for name, mask in keep.items():
            if name not in self.sets:
                raise ValueError(
                    f"keep: unknown set {name!r}{nearest(name, self.sets) or '.'} The sets: {listed(self.sets)}."
                )
            mask, size = np.asarray(mask), self.sets[name].size
            if mask.dtype != bool or mask.shape != (size,):
                raise ValueError(
                    f"keep[{name!r}]: expected {size} bools, one for each unit, True to keep; got dtype {mask.dtype}, "
                    f"shape {mask.shape}."
                )
            masks[name] = mask
        return masks

    def matched(self, params):
        """The named leaves of parameters that have the shapes that the units were found in."""
        check_params(params)
        leaves, treedef = named_leaves(params)
        shapes = {name: tuple(jnp.shape(leaf)) for name, leaf in leaves}
        for name in [*self.shapes, *shapes]:
            if shapes.get(name) != self.shapes.get(name):
                raise ValueError(
                    f"parameter {name!r} has shape {shapes.get(name, 'missing')} in params, but the units were found "
                    f"with {self.shapes.get(name, 'no such parameter')}; call find_units on these parameters."
                )
        return leaves, treedef

    def __str__(self) -> str:
        rows = [("set", "units", "members: parameter[axis]×indices a unit", "removal")]
        for unit_set in self.sets.values():
            members = ", ".join(
                f"{name}[{axis}]" + (f"×{n}" if (n := int((unit == 0).sum())) != 1 else "")
                for name, axes in unit_set.members.items()
                for axis, unit in axes.items()
            )
            members = members if len(members) <= 90 else members[:87] + "..."
            removal = f"not exact: {unit_set.reason}" if unit_set.reduced else "exact"
            rows.append((unit_set.name, str(unit_set.size), members, removal))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        reasons: dict[str, list[str]] = {}
        for name, axes in self.fixed.items():
            for axis, reason in axes.items():
                reasons.setdefault(reason, []).append(f"{name}[{axis}]")
        for reason, where in reasons.items():
            shown = ", ".join(where[:4]) + (f" and {len(where) - 4} more" if len(where) > 4 else "")
            lines.append(f"fixed, {reason}: {shown}")
        return "\n".join(lines)

    def to_json(self) -> str:
        """The units as JSON, without the function, and with a SHA-256 of what they say."""
        return units_json.write(self)

    @classmethod
    def from_json(cls, text: str, fn: Callable[..., Any] | None = None) -> "Units":
        """Units written by `to_json`.

        Everything is checked: types, names, sizes, indices, and the digest, which tells damage. A digest is no
        signature: who writes a file can write its digest too.

        Args:
          text: the JSON.
          fn: the function that they were found in, if its compact form is wanted too.

        Raises:
          ValueError: what `to_json` did not write; the message names the place.
        """
        return cls(**units_json.read(text), fn=fn)


def check_units(call: str, units, *others) -> None:
    """Rejects anything but units in the place of them; `call` is how the function is called."""
    if not isinstance(units, Units):
        swapped = "the arguments are swapped; " if any(isinstance(other, Units) for other in others) else ""
        raise TypeError(
            f"{call.partition('(')[0]}: expected the Units that find_units returns, got {shown(units)}: "
            f"{swapped}call {call}."
        )


def check_numbers(where: str, trees: dict[str, Any], why: str = "") -> None:
    """Rejects shapes and tracers in the place of arrays; `trees`: {what a leaf is: a tree of them}."""
    for what, tree in trees.items():
        for name, leaf in named_leaves(tree)[0]:
            if isinstance(leaf, jax.ShapeDtypeStruct | jax.core.Tracer):
                kind = "a shape without numbers" if concrete(leaf) else "traced"
                raise TypeError(f"{where}: {what} {name!r} is {kind}; expected arrays{why}. Call it outside of jit.")


def check_widths(units: Units, widths) -> None:
    """Rejects anything but {set: int}."""
    if not isinstance(widths, dict):
        raise TypeError(f"widths: expected a dict {{set: number of units}}, got {type(widths).__name__}.")
    for name, width in widths.items():
        units.named(name, "widths")
        if isinstance(width, bool) or not isinstance(width, int | np.integer):
            raise TypeError(f"widths[{name!r}]: expected an int, got {shown(width)}.")


def structs(tree):
    """Shapes and dtypes in the place of arrays."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jax.dtypes.result_type(x)), tree)
