"""Which new units to add: of several random candidates those whose reading weights have the largest gradient.

A new unit u is read by weights a_u = 0, so that nothing changes, and the loss falls at first by η‖∂L/∂a_u‖². What makes
the unit decides how much that is. Candidates are added in a network of their own, one gradient is taken, and so many
are chosen one after the other,

    u = argmax ‖G_u‖,   then   G ← G − G d dᵀ,  d = G_u/‖G_u‖,      G_u = ∂L/∂a_u

each for what the gradients of those before it leave, so that no two do the same.

References:
  GradMax (Evci et al., arXiv 2201.05125) maximises the gradient of new units, TINY (Verbockhaven et al., arXiv
  2405.19816) what they add to the functional gradient, both by a singular value decomposition for one kind of layer;
  candidates and the choice among them hold for any program.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..._tree import named_leaves
from ..._words import shown
from .._units import Units
from .index_map import Places

Gradient = Callable[[Callable[..., Any], Any], Any]
"""gradient(fn, params) → ∂L/∂params, a tree like params."""


def chosen_births(units: Units, widths: dict[str, int], places: Places, many, grads) -> dict[str, np.ndarray]:
    """For each set the numbers, from 1, of the candidates that are chosen, in the order in which they are.

    Args:
      widths: {set: units there are to be} of the sets that have candidates.
      places: where old units and candidates lie in the parameters `many`.
      grads: ∂L/∂many.
    """
    leaves, treedef = named_leaves(many)
    if jax.tree.structure(grads) != jax.tree.structure(many) or any(
        jnp.shape(g) != jnp.shape(p) for g, p in zip(jax.tree.leaves(grads), jax.tree.leaves(many), strict=True)
    ):
        raise ValueError(f"gradient: expected a tree like params, as jax.grad gives it, got {shown(grads)}.")
    by_name = {name: grad for (name, _), grad in zip(leaves, treedef.flatten_up_to(grads), strict=True)}
    found = {}
    for name, width in widths.items():
        unit_set = units.sets[name]
        parts = []
        for parameter, axes in unit_set.members.items():
            for axis in axes:
                if (parameter, axis) not in unit_set.makers:
                    parts.append(_of_each(by_name[parameter], axis, places[parameter][axis], name))
        found[name] = 1 + _greedy(np.concatenate(parts, axis=1), width - unit_set.size)
    return found


def _of_each(grad, axis: int, layout, name: str) -> np.ndarray:
    """The gradient of each candidate's slices along an axis, (candidates, entries)."""
    rows = np.moveaxis(np.asarray(grad, np.float64), axis, 0)
    copy = np.where(layout.owner == name, layout.copy, 0)
    return np.stack([rows[copy == number].ravel() for number in range(1, copy.max() + 1)])


def _greedy(gradients: np.ndarray, count: int) -> np.ndarray:
    left, taken = gradients.copy(), []
    for _ in range(count):
        norms = np.sum(np.square(left), axis=1)
        norms[taken] = -1
        taken.append(int(np.argmax(norms)))
        length = np.linalg.norm(left[taken[-1]])
        if length > 0:
            direction = left[taken[-1]] / length
            left -= np.outer(left @ direction, direction)
    return np.array(taken, int)


def without_others(leaf, axes: dict[int, Any], chosen: dict[str, np.ndarray]):
    """A parameter that has candidates, with those that are chosen alone, first chosen first."""
    array = np.asarray(leaf)
    for axis, layout in axes.items():
        order = np.arange(len(layout.copy))
        for name, numbers in chosen.items():
            place = order.copy()
            mine = layout.owner == name
            # The k-th new unit's indices get the entries of the k-th that was chosen; the rest go.
            for number, taken in enumerate(numbers.tolist(), 1):
                place[mine & (layout.copy == number)] = order[mine & (layout.copy == taken)]
            gone = mine & (layout.copy > len(numbers))
            order = np.where(gone, -1, place)
        array = np.take(array, order[order >= 0], axis)
    return jnp.asarray(array)
