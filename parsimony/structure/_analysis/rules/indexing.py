"""Rules of the primitives that read or write where a computed index says: an axis that is indexed stays whole."""

import dataclasses

import numpy as np

from ..abstract import Value
from ..coupling import Label

_INDEXED = "an axis that computed indices point into"


@dataclasses.dataclass(frozen=True)
class StaticTake:
    """Entries of one axis that fixed indices point at: `x[..., ::2]`, `x[:, order]`.

    Attributes:
      axis: of the operand.
      source: its index for each entry of the result.
      to: the axis of the result, or None where one entry is taken from it.
    """

    axis: int
    source: np.ndarray
    to: int | None


def static_take(eqn, operand: Value, indices: Value) -> StaticTake | None:
    """A gather as a `StaticTake`; None where it is another, or its indices are not known."""
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    if len(numbers.start_index_map) != 1 or numbers.operand_batching_dims or indices.ndim > 2 or indices.known is None:
        return None
    (axis,) = numbers.start_index_map
    size, rank = sizes[axis], len(eqn.outvars[0].aval.shape)
    if isinstance(operand.labels[axis], str) or any(
        sizes[a] != operand.shape[a] for a in range(operand.ndim) if a != axis
    ):
        return None
    first = np.asarray(indices.known()).ravel()
    if (first < 0).any() or (first + size > operand.shape[axis]).any():
        return None
    if axis in numbers.collapsed_slice_dims:
        to = next((a for a in range(rank) if a not in numbers.offset_dims), None)
        return StaticTake(axis, first, to)
    if indices.ndim > 1:
        return None
    return StaticTake(axis, first[0] + np.arange(size), axis)


def gather(walk, eqn, operands: list[Value]):
    """Axes that are taken whole go along; so do batch axes, with those of the indices."""
    operand, indices = operands
    take = static_take(eqn, operand, indices)
    if take is not None:
        return _taken(walk, eqn, operand, take)
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    shape = eqn.outvars[0].aval.shape
    labels: list[Label] = [""] * len(shape)
    zero: list = [False] * len(shape)
    batch_axes = list(range(indices.ndim - 1))
    for to in range(len(shape)):
        if to not in numbers.offset_dims:
            axis = batch_axes.pop(0)
            labels[to] = indices.labels[axis]
            if axis in numbers.start_indices_batching_dims:
                batched = numbers.operand_batching_dims[numbers.start_indices_batching_dims.index(axis)]
                labels[to] = walk.coupling.unite(labels[to], operand.labels[batched])
                zero[to] = operand.zero[batched]
    dropped = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    for to, axis in zip(numbers.offset_dims, (a for a in range(operand.ndim) if a not in dropped), strict=True):
        if sizes[axis] == operand.shape[axis] and axis not in numbers.start_index_map:
            labels[to], zero[to] = operand.labels[axis], operand.zero[axis]
        else:
            labels[to], zero[to] = walk.fix(operand, axis, _INDEXED), True
    for axis in numbers.collapsed_slice_dims:
        walk.fix(operand, axis, _INDEXED)
    walk.fix(indices, indices.ndim - 1, _INDEXED)
    return Value(tuple(shape), tuple(labels), tuple(zero), None, None, operand.weight and indices.weight)


def _taken(walk, eqn, operand: Value, take: StaticTake) -> Value:
    labels, zero = list(operand.labels), list(operand.zero)
    label, at_zero = labels.pop(take.axis), operand.zeros(take.axis)
    assert not isinstance(label, str)
    zero.pop(take.axis)
    if take.to is None:
        walk.coupling.fix(label[take.source], "an axis that one index is taken from")
    else:
        labels.insert(take.to, label[take.source])
        zero.insert(take.to, at_zero[take.source])
    return Value(tuple(eqn.outvars[0].aval.shape), tuple(labels), tuple(zero), None, None, operand.weight)


def scatter(walk, eqn, operands: list[Value]):
    """Axes that are written whole go along."""
    operand, indices, updates = operands
    numbers = eqn.params["dimension_numbers"]
    labels, zero = list(operand.labels), list(operand.zero)
    dropped = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
    windows = [axis for axis in range(operand.ndim) if axis not in dropped]
    for batched, axis in zip(numbers.update_window_dims, windows, strict=True):
        if updates.shape[batched] == operand.shape[axis] and axis not in numbers.scatter_dims_to_operand_dims:
            labels[axis] = walk.coupling.unite(labels[axis], updates.labels[batched])
            zero[axis] = np.logical_and(zero[axis], updates.zero[batched])
        else:
            walk.fix(updates, batched, _INDEXED)
            labels[axis], zero[axis] = walk.fix(operand, axis, _INDEXED), True
    for axis in dropped:
        labels[axis], zero[axis] = walk.fix(operand, axis, _INDEXED), True
    for axis in range(updates.ndim):
        if axis not in numbers.update_window_dims:
            walk.fix(updates, axis, _INDEXED)
    for axis in range(indices.ndim):
        walk.fix(indices, axis, _INDEXED)
    return Value(operand.shape, tuple(labels), tuple(zero), None, None, all(v.weight for v in operands))


def dynamic_slice(walk, eqn, operands: list[Value]):
    value, shape = operands[0], eqn.outvars[0].aval.shape
    labels, zero = list(value.labels), list(value.zero)
    for axis, size in enumerate(shape):
        if size != value.shape[axis]:
            labels[axis], zero[axis] = walk.fix(value, axis, _INDEXED), True
    return Value(tuple(shape), tuple(labels), tuple(zero), None, value.constant, value.weight)


def dynamic_update_slice(walk, eqn, operands: list[Value]):
    value, update = operands[:2]
    labels, zero = list(value.labels), list(value.zero)
    for axis, size in enumerate(update.shape):
        if size == value.shape[axis]:
            labels[axis] = walk.coupling.unite(labels[axis], update.labels[axis])
            zero[axis] = np.logical_and(zero[axis], update.zero[axis])
        else:
            walk.fix(update, axis, _INDEXED)
            labels[axis], zero[axis] = walk.fix(value, axis, _INDEXED), True
    return Value(value.shape, tuple(labels), tuple(zero), None, None, all(v.weight for v in operands))


RULES = {
    "gather": gather,
    "dynamic_slice": dynamic_slice,
    "dynamic_update_slice": dynamic_update_slice,
    **dict.fromkeys(
        ["scatter", "scatter-add", "scatter_add", "scatter-mul", "scatter_mul", "scatter-min", "scatter_min",
         "scatter-max", "scatter_max", "scatter-sub", "scatter_sub"], scatter
    ),
}  # fmt: skip
