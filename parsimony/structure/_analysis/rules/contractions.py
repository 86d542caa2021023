"""Rules of products that sum over an axis: matrix products and convolutions."""

import numpy as np

from ..abstract import Value
from ..coupling import Label

_SPATIAL = "a spatial axis of a convolution"


def dot_general(walk, eqn, operands: list[Value]):
    """Contracted axes meet, and so do batch axes; a term is gone if either of its factors is zero."""
    left, right = operands
    (left_sum, right_sum), (left_batch, right_batch) = eqn.params["dimension_numbers"]
    for one, other in zip(left_sum, right_sum, strict=True):
        _contract(walk, left, one, right, other, walk.inputs)
    labels: list[Label] = []
    zero: list = []
    alike: list[bool] = []
    for one, other in zip(left_batch, right_batch, strict=True):
        labels.append(walk.coupling.unite(left.labels[one], right.labels[other]))
        zero.append(np.logical_or(left.zero[one], right.zero[other]))
        alike.append(bool(np.all(zero[-1])))
    for value, gone in ((left, (*left_sum, *left_batch)), (right, (*right_sum, *right_batch))):
        for axis in range(value.ndim):
            if axis not in gone:
                labels.append(value.labels[axis])
                zero.append(value.zero[axis])
                alike.append(value.harmless(axis))
    shape = tuple(eqn.outvars[0].aval.shape)
    return Value(shape, tuple(labels), tuple(zero), tuple(alike), None, left.weight and right.weight)


def _contract(walk, left: Value, one: int, right: Value, other: int, inputs: bool = False) -> None:
    """`inputs`: a kernel need not read all of an axis that is rigid."""
    loose = inputs and left.weight != right.weight
    if loose and isinstance((left if right.weight else right).labels[one if right.weight else other], str):
        label = right.labels[other] if right.weight else left.labels[one]
    else:
        label = walk.coupling.unite(left.labels[one], right.labels[other])
    exact = np.logical_or(left.zero[one], right.zero[other])
    walk.coupling.inexact(label, exact, "a product that sums over an axis whose removed part is not zero there")
    _consume(walk, left, one, right, other)


def _consume(walk, left: Value, one: int, right: Value, other: int) -> None:
    """Notes the axes of weights that take in what an earlier layer gives out."""
    for value, axis, partner in ((right, other, left), (left, one, right)):
        if value.weight and not partner.weight:
            walk.summed.add((id(value), axis))


def conv_general_dilated(walk, eqn, operands: list[Value]):
    """Input channels meet the kernel's input axis; with groups, a channel goes with its group or its place in it."""
    data, kernel = operands
    params, coupling = eqn.params, walk.coupling
    numbers, groups = params["dimension_numbers"], params["feature_group_count"]
    if params["batch_group_count"] != 1:
        return walk.fix_all(eqn, operands, "a convolution with groups of its batch")
    for value, spec in ((data, numbers.lhs_spec), (kernel, numbers.rhs_spec)):
        for axis in spec[2:]:
            walk.fix(value, axis, _SPATIAL)
    (batch, channel), (out, into) = numbers.lhs_spec[:2], numbers.rhs_spec[:2]
    kernel_zero = kernel.zero[out]
    if groups == 1:
        _contract(walk, data, channel, kernel, into, walk.inputs)
    else:
        inside, outs = data.shape[channel] // groups, kernel.shape[out] // groups
        data_zero = np.broadcast_to(data.zero[channel], (groups * inside,)).reshape(groups, inside)
        rows, columns = coupling.unfold(data.labels[channel], (groups, inside))
        coupling.unite(rows, coupling.unfold(kernel.labels[out], (groups, outs))[0])
        if inside > 1:
            columns = coupling.unite(columns, kernel.labels[into])
            exact = np.logical_or(data_zero.all(0), kernel.zero[into])
            coupling.inexact(columns, exact, "a convolution over channels whose removed part is not zero there")
            _consume(walk, data, channel, kernel, into)
        if outs == 1:  # a group whose channels are all zero gives zero
            kernel_zero = np.logical_or(kernel_zero, data_zero.all(1))
    shape = tuple(eqn.outvars[0].aval.shape)
    labels: list[Label] = [_SPATIAL] * len(shape)
    zero: list = [True] * len(shape)
    labels[numbers.out_spec[0]], zero[numbers.out_spec[0]] = data.labels[batch], data.zero[batch]
    labels[numbers.out_spec[1]], zero[numbers.out_spec[1]] = kernel.labels[out], kernel_zero
    return Value(shape, tuple(labels), tuple(zero), None, None, data.weight and kernel.weight)


def ragged_dot(walk, eqn, operands: list[Value]):
    """Rows in groups, each group by a matrix of its own: contracted axes meet, the columns of the matrices go along."""
    left, right, sizes = operands[:3]
    numbers = eqn.params["ragged_dot_dimension_numbers"]
    (left_sum, right_sum), (left_batch, right_batch) = numbers.dot_dimension_numbers
    ragged, groups = tuple(numbers.lhs_ragged_dimensions), tuple(numbers.rhs_group_dimensions)
    if left_batch or right_batch or len(groups) != 1 or set(ragged) & set(left_sum):
        return walk.fix_all(eqn, operands, "a ragged product of another kind than rows by matrices")
    for value, axes in ((left, ragged), (right, groups), (sizes, range(sizes.ndim))):
        for axis in axes:
            walk.fix(value, axis, _RAGGED)
    for one, other in zip(left_sum, right_sum, strict=True):
        _contract(walk, left, one, right, other)
    rows = [(left.labels[axis], left.zero[axis]) for axis in range(left.ndim) if axis not in (*left_sum, *ragged)]
    columns = [(right.labels[a], right.zero[a]) for a in range(right.ndim) if a not in (*right_sum, *groups)]
    place = [axis for axis in range(left.ndim) if axis not in left_sum].index(ragged[0])
    kept = [*rows[:place], (_RAGGED, True), *rows[place:], *columns]
    labels, zero = zip(*kept, strict=True)
    return Value(tuple(eqn.outvars[0].aval.shape), labels, zero, None, None, False)


_RAGGED = "the rows or groups of a ragged product"

RULES = {
    "dot_general": dot_general,
    "conv_general_dilated": conv_general_dilated,
    "ragged_dot_general": ragged_dot,
}
