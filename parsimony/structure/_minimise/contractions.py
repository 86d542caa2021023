"""Sums over products, some of whose terms are one number each: what they give, and what they read."""

import math

import numpy as np

from .kinds import of_convolution
from .known import Known, Reader, Term


def dot_general(reading, eqn, operands, numbers):
    (sums, (left_batch, right_batch)) = eqn.params["dimension_numbers"]
    batch, shape = (left_batch, right_batch), tuple(eqn.outvars[0].aval.shape)
    free = [
        [a for a in range(value.ndim) if a not in (*s, *b)] for value, s, b in zip(operands, sums, batch, strict=True)
    ]
    place = [{a: len(left_batch) + i for i, a in enumerate(free[0])}]
    place.append({a: len(left_batch) + len(free[0]) + i for i, a in enumerate(free[1])})
    slices, terms, kinds = {}, (), {}
    for this, other in ((0, 1), (1, 0)):
        for axis, to in place[this].items():
            if (its := operands[this].kinds_along(axis)) is not None:
                kinds[to] = its
            zero = operands[this].silent(axis)
            slices[to] = zero, np.zeros(len(zero), eqn.outvars[0].aval.dtype)
        if operands[this].array is None or operands[other].array is not None or len(sums[0]) != 1:
            continue
        weights, constant, number = operands[this], *_constants(operands[other], sums[other][0])
        for axis, to in place[this].items():
            window = [] if not left_batch else list(batch[this])
            rest = [a for a in free[this] if a != axis] + window
            slices[to] = _sums(weights.array, sums[this][0], axis, rest, constant, number, eqn)
        if not left_batch:
            read = constant, number, operands[other].kinds_along(sums[other][0])
            terms = _terms(reading, weights, sums[this][0], place[this], read, False, len(shape))
    return Known(shape, numbers[0], slices if numbers[0] is None else {}, terms=terms, kinds=kinds)


def conv_general_dilated(reading, eqn, operands, numbers):
    (data, kernel), params = operands, eqn.params
    spec, shape = params["dimension_numbers"], tuple(eqn.outvars[0].aval.shape)
    (channel, out, into), to = (spec.lhs_spec[1], *spec.rhs_spec[:2]), spec.out_spec[1]
    if params["batch_group_count"] != 1:
        return Known(shape, numbers[0])
    zeros = np.zeros(shape[to], eqn.outvars[0].aval.dtype)
    groups = params["feature_group_count"]
    kinds = of_convolution(data.kinds_along(channel), kernel.kinds_along(out), groups)
    kinds = {} if kinds is None else {to: kinds}
    if groups > 1 or kernel.array is None:
        silent = data.silent(channel).reshape(groups, -1).all(1)
        slices = {to: (np.repeat(silent, shape[to] // groups) | kernel.silent(out), zeros)}
        return Known(shape, numbers[0], slices, kinds=kinds)
    border = any(map(any, params["padding"])) or set(params["lhs_dilation"]) != {1}
    constant, number = _constants(data, channel)
    inside = constant & (number == 0) if border else constant
    rest = [axis for axis in range(kernel.ndim) if axis not in (into, out)]
    slices = {to: _sums(kernel.array, into, out, [], inside, number, eqn, rest)}
    read = constant, number, data.kinds_along(channel)
    terms = _terms(reading, kernel, into, {out: to}, read, border, len(shape))
    return Known(shape, numbers[0], slices if numbers[0] is None else {}, terms=terms, kinds=kinds)


def _constants(value: Known, axis: int):
    known = value.along(axis)
    if known is None:
        return np.zeros(value.shape[axis], bool), np.zeros(value.shape[axis])
    return known[0] & np.isfinite(known[1].astype(float)), known[1].astype(float)


def _sums(weights, axis: int, out: int, rest: list[int], constant, number, eqn, window=()):
    """For each index of `out` whether the sum is one number, and this number."""
    order = (out, *rest, *window, axis)
    matrix = np.transpose(weights, order).astype(float)
    matrix = matrix.reshape(matrix.shape[0], math.prod(matrix.shape[1 : 1 + len(rest)]), -1, matrix.shape[-1])
    known = (matrix[..., ~constant] == 0).all((1, 2, 3))
    total = (matrix.sum(2) * np.where(constant, number, 0)).sum(-1)  # of [out, rest]
    known &= (total == total[:, :1]).all(1)
    return known, total[:, 0].astype(eqn.outvars[0].aval.dtype)


def _terms(reading, weights: Known, axis: int, place: dict[int, int], read, border, ndim):
    """The reader that a sum over an axis of a parameter is, if it reads anything that is one number, or there twice."""
    origin, (constant, number, kinds) = weights.origin, read
    kinds = np.arange(len(constant)) if kinds is None else kinds
    its_axes = [] if origin is None else [a for a in origin.axes if a is not None]
    plain = not constant.any() and len(np.unique(kinds)) == len(kinds)
    if origin is None or plain or len(its_axes) < weights.ndim:
        return ()
    reader = Reader(origin.name, its_axes[axis], constant, number, kinds, border, tuple(its_axes[a] for a in place))
    reading.readers.append(reader)
    axes = {to: its_axes[a] for a, to in place.items()}
    return (Term(reader, tuple(axes.get(to) for to in range(ndim))),)
