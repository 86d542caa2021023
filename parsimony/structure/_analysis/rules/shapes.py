"""Rules of the primitives that rearrange, cut and join axes."""

import dataclasses
import math

import numpy as np

from ..abstract import Value
from ..coupling import Label


def broadcast_in_dim(walk, eqn, operands: list[Value]):
    """A repeated axis follows whatever it meets: new nodes."""
    (value, *_), shape = operands, eqn.params["shape"]
    source = {to: axis for axis, to in enumerate(eqn.params["broadcast_dimensions"])}
    labels: list[Label] = []
    zero, alike = [], []
    for to, size in enumerate(shape):
        axis = source.get(to)
        if axis is not None and value.shape[axis] == size:
            labels.append(value.labels[axis])
            zero.append(value.zero[axis])
            alike.append(value.alike[axis])
        else:
            if axis is not None:
                walk.fix(value, axis, "an axis of size one that is repeated")
            known = _ONE if size == 1 else "an axis of symbolic size"
            labels.append(walk.coupling.new(size) if isinstance(size, int) and size != 1 else known)
            zero.append(value.constant == 0)
            alike.append(True)
    return Value(tuple(shape), tuple(labels), tuple(zero), tuple(alike), value.constant, value.weight)


def reshape(walk, eqn, operands: list[Value]):
    """Blocks of axes with the same number of entries are folded into one axis and unfolded again."""
    (value, *_), shape = operands, eqn.outvars[0].aval.shape
    if eqn.params.get("dimensions") is not None:
        return walk.fix_all(eqn, operands, "a reshape with permuted dimensions")
    runs = blocks(value.shape, shape)
    if runs is None:
        return walk.fix_all(eqn, operands, f"a reshape from {value.shape} to {shape}")
    labels: list[Label] = [_ONE] * len(shape)
    zero: list = [True] * len(shape)
    alike = [True] * len(shape)
    for old, new in runs:
        if len(old) == len(new) == 1:
            axis, to = old[0], new[0]
            labels[to], zero[to], alike[to] = value.labels[axis], value.zero[axis], value.alike[axis]
            continue
        label, at_zero, size = _fold(walk, value, old)
        known = bool(np.all(at_zero))
        for i, to in enumerate(new):
            rest = math.prod(shape[j] for j in new[i + 1 :]) if not isinstance(label, str) else 1
            if i == len(new) - 1:
                labels[to], zero[to] = label, at_zero
            elif isinstance(label, str):
                labels[to], zero[to] = label, True
            else:
                matrix = np.broadcast_to(at_zero, (size,)).reshape(shape[to], rest)
                labels[to], label = walk.coupling.unfold(label, (shape[to], rest))
                zero[to], at_zero, size = matrix.all(1), matrix.all(0), rest
            alike[to] = known
    for axis, size in enumerate(value.shape):
        if size == 1 and not any(axis in old for old, _ in runs):
            walk.fix(value, axis, _ONE)
    return Value(tuple(shape), tuple(labels), tuple(zero), tuple(alike), value.constant, value.weight)


_ONE = "an axis of size one"


def blocks(old, new):
    """Pairs of runs of axes, of sizes other than one, with equal numbers of entries; None where sizes do not tell."""
    if any(isinstance(size, int) and size == 0 for size in (*old, *new)):
        return None
    olds = [axis for axis, size in enumerate(old) if size != 1]
    news = [axis for axis, size in enumerate(new) if size != 1]
    head, tail = [], []  # equal sizes on both ends pair up first: they may be symbolic
    while olds and news and old[olds[0]] == new[news[0]]:
        head.append(([olds.pop(0)], [news.pop(0)]))
    while olds and news and old[olds[-1]] == new[news[-1]]:
        tail.insert(0, ([olds.pop()], [news.pop()]))
    if not all(isinstance(old[axis], int) for axis in olds) or not all(isinstance(new[axis], int) for axis in news):
        return None
    middle = []
    while olds:
        left, right = [olds.pop(0)], [news.pop(0)]
        while (a := math.prod(old[axis] for axis in left)) != (b := math.prod(new[axis] for axis in right)):
            (left if a < b else right).append((olds if a < b else news).pop(0))
        middle.append((left, right))
    return head + middle + tail


def _fold(walk, value: Value, axes: list[int]):
    """(label, zero, size) of the axis that these become when flattened."""
    label, zero, size = value.labels[axes[-1]], value.zero[axes[-1]], value.shape[axes[-1]]
    for axis in reversed(axes[:-1]):
        rows = value.shape[axis]
        # An entry goes with its row or its column: it is zero for sure if both make it zero.
        by_row = True if isinstance(value.labels[axis], str) else value.zeros(axis)
        by_column = True if isinstance(label, str) else np.broadcast_to(zero, (size,))
        zero = (np.broadcast_to(by_row, (rows,))[:, None] & np.broadcast_to(by_column, (size,))).ravel()
        label = walk.coupling.fold(value.labels[axis], label, (rows, size))
        size = rows * size
    return label, zero, size


def transpose(walk, eqn, operands: list[Value]):
    return pick_axes(operands[0], eqn.params["permutation"])


def squeeze(walk, eqn, operands: list[Value]):
    (value,), dropped = operands, eqn.params["dimensions"]
    for axis in dropped:
        walk.fix(value, axis, "an axis that one index is taken from")
    return pick_axes(value, [axis for axis in range(value.ndim) if axis not in dropped])


def pick_axes(value: Value, axes) -> Value:
    pick = lambda items: tuple(items[axis] for axis in axes)
    return dataclasses.replace(
        value, shape=pick(value.shape), labels=pick(value.labels), zero=pick(value.zero), alike=pick(value.alike)
    )


def with_axis(value: Value, axis: int, size, index) -> Value:
    """The value with the indices of an axis replaced by `index` of them."""
    label, zero = value.labels[axis], value.zero[axis]
    if not isinstance(label, str):
        label, zero = label[index], value.zeros(axis)[index]
    put = lambda items, item: (*items[:axis], item, *items[axis + 1 :])
    shape, labels, zeros = put(value.shape, size), put(value.labels, label), put(value.zero, zero)
    return Value(shape, labels, zeros, None, value.constant, value.weight)


def slice_(walk, eqn, operands: list[Value]):
    value, params = operands[0], eqn.params
    strides = params["strides"] or (1,) * value.ndim
    bounds = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    for axis, (size, bound) in enumerate(zip(eqn.outvars[0].aval.shape, bounds, strict=True)):
        value = with_axis(value, axis, size, slice(*bound))
    return value


def split(walk, eqn, operands: list[Value]):
    axis, start, results = eqn.params["axis"], 0, []
    for var in eqn.outvars:
        size = var.aval.shape[axis]
        results.append(with_axis(operands[0], axis, size, slice(start, start + size)))
        start += size
    return results


def rev(walk, eqn, operands: list[Value]):
    value = operands[0]
    for axis in eqn.params["dimensions"]:
        value = with_axis(value, axis, value.shape[axis], slice(None, None, -1))
    return value


def iota(walk, eqn, operands: list[Value]):
    shape = eqn.params["shape"]
    if not all(isinstance(size, int) for size in shape):
        return walk.fix_all(eqn, operands, "an axis of symbolic size")
    labels = tuple(walk.coupling.new(n) for n in shape)
    alike = tuple(axis != eqn.params["dimension"] for axis in range(len(shape)))
    return Value(tuple(shape), labels, (False,) * len(shape), alike, None, True)


RULES = {
    "broadcast_in_dim": broadcast_in_dim,
    "reshape": reshape,
    "transpose": transpose,
    "squeeze": squeeze,
    "slice": slice_,
    "split": split,
    "rev": rev,
    "iota": iota,
}
