"""What is ranked and selected: the groups of each parameter, or the units of each set, with the keys of their order."""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._checks import check_finite, check_not_nan
from ._path import NEVER, entry_steps
from ._penalties.unit_penalty import UnitSlices
from ._readout import matched
from ._tree import named_leaves
from ._words import one_of

ORDERS = ("entry", "dual", "gamma", "magnitude")


@dataclasses.dataclass(frozen=True)
class Member:
    """One parameter in a layer.

    Attributes:
      name: of the parameter.
      index: for each weight the number of its group in the layer; −1 for none.
      groups: the same for each entry of the parameter's own array of groups (`entry_steps`).
    """

    name: str
    index: np.ndarray
    groups: np.ndarray

    @property
    def inside(self) -> np.ndarray:
        return self.index >= 0


@dataclasses.dataclass(frozen=True)
class Layer:
    """The groups that are selected from together, and the keys of their order: ascending `first`, descending `rms`."""

    members: tuple[Member, ...]
    sizes: np.ndarray
    first: np.ndarray
    rms: np.ndarray
    magnitudes: np.ndarray  # |W|, member after member

    def by_weight(self, alone: bool) -> "Layer":
        """The same with every weight a group of its own."""
        first = np.concatenate([self.first[member.index[member.inside]] for member in self.members])
        members, start = [], 0
        for member in self.members:
            index = np.full(member.index.shape, -1)
            index[member.inside] = np.arange(start, start + member.inside.sum())
            start += int(member.inside.sum())
            members.append(dataclasses.replace(member, index=index))
        return Layer(
            tuple(members), np.ones(start, int), 0 * first if alone else first, self.magnitudes, self.magnitudes
        )


def in_order(found: list[Layer]) -> list[np.ndarray]:
    """Of each layer the places of its groups in one order of all; ties go by `rms`, then as they stand."""
    first, rms = (np.concatenate(keys) for keys in zip(*((layer.first, layer.rms) for layer in found), strict=True))
    place = np.empty(len(first), int)
    place[np.lexsort((-rms, first))] = np.arange(len(first))
    return np.split(place, np.cumsum([len(layer.sizes) for layer in found])[:-1])


def layers(params, opt_state, order, protect: Sequence[str] = ()) -> tuple[list[Layer], Any, list[str]]:
    """The layers that no pattern protects, the structure of params, and all names."""
    weights, treedef, known = matched(params, opt_state)
    if isinstance(order, str):
        one_of("order", order, ORDERS)
    check_finite("W", [(name, w) for name, w in weights if name in known])
    check_finite("V", ((name, state[2]) for name, state in known.items()))
    by_entry = isinstance(order, str) and order == "entry"
    tree = entry_steps(opt_state) if by_entry else order
    given = None if isinstance(tree, str) else dict(named_leaves(tree)[0])
    by_name = dict(weights)
    protected = {name for name, _ in weights if any(re.search(pattern, name) for pattern in protect)}
    found = []
    for members in _members([(name, known[name][0], w) for name, w in weights if name in known], protected):
        count = 1 + max(int(member.groups.max(initial=-1)) for member in members)
        sizes = np.zeros(count, int)
        for member in members:
            np.add.at(sizes, member.index[member.inside], 1)
        if given is not None:
            first = np.full(count, np.inf)
            for member in members:
                keys = _given(given, member, by_entry)
                np.minimum.at(first, member.groups[member.groups >= 0], keys[member.groups >= 0])
        elif order == "dual":
            first = -_beyond_threshold(members, known, sizes)
        elif order == "gamma":
            first = -_rms(members, {member.name: known[member.name][1] for member in members}, sizes)
        else:
            first = np.zeros(count)
        magnitudes = [np.abs(np.asarray(by_name[member.name], np.float64))[member.inside] for member in members]
        found.append(Layer(members, sizes, first, _rms(members, by_name, sizes), np.concatenate(magnitudes)))
    return found, treedef, [name for name, _ in weights]


def _members(penalised, protected: set[str]) -> list[tuple[Member, ...]]:
    """The members of each layer, one parameter or those of a set of units, where none is protected."""
    found: dict[Any, list[Member]] = {}
    for name, penalty, w in penalised:
        if name in protected and not isinstance(penalty, UnitSlices):
            continue
        if not hasattr(penalty, "group_index"):
            raise ValueError(
                f"parameter {name!r}: the groups of {type(penalty).__name__} are not sets of weights, so no mask "
                "selects them; read its model by pm.sparse_params, protect it, or give it another penalty."
            )
        index = penalty.group_index(jnp.shape(w))
        shape = jax.eval_shape(penalty.group_norms, jax.ShapeDtypeStruct(jnp.shape(w), np.float32)).shape
        if not isinstance(penalty, UnitSlices):
            found[name] = [Member(name, index, np.arange(math.prod(shape)).reshape(shape))]
            continue
        for set_name, start, size in penalty.tree.whole.sets:
            units = penalty.part.units - start
            units = np.where((units >= 0) & (units < size), units, -1)
            if (units >= 0).any():
                found.setdefault((penalty.tree.whole, set_name), []).append(Member(name, units[index], units))
    return [tuple(members) for members in found.values() if not any(member.name in protected for member in members)]


def _given(given: dict[str, Any], member: Member, entry: bool) -> np.ndarray:
    if member.name not in given or jnp.shape(given[member.name]) != member.groups.shape:
        raise ValueError(
            f"order: expected the shape {member.groups.shape} for the groups of {member.name!r}, got "
            f"{jnp.shape(given[member.name]) if member.name in given else f'nothing, only {sorted(given)[:8]}'}."
        )
    keys = np.asarray(given[member.name], np.float64)
    check_not_nan("order", keys, member.name)
    return np.where(keys == NEVER, np.inf, keys) if entry else keys


def _rms(members, arrays: dict[str, Any], sizes) -> np.ndarray:
    squares = np.zeros(len(sizes))
    for member in members:
        x = np.square(np.asarray(arrays[member.name], np.float64))
        np.add.at(squares, member.index[member.inside], x[member.inside])
    return np.sqrt(squares / np.maximum(sizes, 1))


def _beyond_threshold(members, known, sizes) -> np.ndarray:
    """‖V_g‖/‖u_g − Prox_Ω(u)_g‖ for u_g ∝ V_g so long that it is inside, where v − Prox_Ω(v) has the norm of entry."""
    duals = {member.name: known[member.name][2] for member in members}
    norms = _rms(members, duals, sizes) * np.sqrt(sizes)
    penalty = known[members[0].name][0]
    if isinstance(penalty, UnitSlices):
        units = np.zeros(len(sizes), int)
        for member in members:
            inside = member.groups >= 0
            units[member.groups[inside]] = known[member.name][0].part.units[inside]
        threshold = penalty.tree.thresholds[units]
    else:
        (member,) = members
        dual = np.asarray(duals[member.name])
        inside = 2 * penalty.strength * (1 + np.sqrt(sizes))
        longer = np.divide(inside, norms, out=np.zeros(len(sizes)), where=norms > 0)
        u = jnp.asarray(dual * longer[member.index], dual.dtype)
        threshold = _rms(members, {member.name: u - penalty.prox(u)}, sizes) * np.sqrt(sizes)
    return np.divide(norms, threshold, out=np.zeros(len(sizes)), where=threshold > 0)
