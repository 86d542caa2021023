"""Rules of the primitives that join, repeat and pad."""

import numpy as np

from ..abstract import Value
from ..coupling import Label
from .shapes import pick_axes, with_axis


def concatenate(walk, eqn, operands: list[Value]):
    axis, shape = eqn.params["dimension"], eqn.outvars[0].aval.shape
    labels: list[Label] = []
    zero, alike = [], []
    for i in range(len(shape)):
        if i != axis:
            label = operands[0].labels[i]
            for value in operands[1:]:
                label = walk.coupling.unite(label, value.labels[i])
            labels.append(label)
            zero.append(np.logical_and.reduce(np.broadcast_arrays(*(value.zero[i] for value in operands))))
            alike.append(all(value.harmless(i) for value in operands) and bool(np.all(zero[-1])))
        elif all(isinstance(value.labels[i], str) for value in operands):
            labels.append(operands[0].labels[i])
            zero.append(True)
            alike.append(True)
        else:
            labels.append(np.concatenate([walk.coupling.nodes(value.labels[i], value.shape[i]) for value in operands]))
            zero.append(np.concatenate([value.zeros(i) for value in operands]))
            alike.append(bool(np.all(zero[-1])))
    weight = all(value.weight for value in operands)
    return Value(tuple(shape), tuple(labels), tuple(zero), tuple(alike), None, weight)


def stack(walk, eqn, operands: list[Value]):
    """The other axes meet; the new one stays whole."""
    axis, first = eqn.params["axis"], operands[0]
    labels, zero = list(first.labels), list(first.zero)
    for value in operands[1:]:
        labels = [walk.coupling.unite(a, b) for a, b in zip(labels, value.labels, strict=True)]
        zero = [np.logical_and(a, b) for a, b in zip(zero, value.zero, strict=True)]
    labels.insert(axis, "an axis that arrays are stacked along")
    zero.insert(axis, True)
    shape = tuple(eqn.outvars[0].aval.shape)
    return Value(shape, tuple(labels), tuple(zero), None, None, all(value.weight for value in operands))


def unstack(walk, eqn, operands: list[Value]):
    (value,), axis = operands, eqn.params["axis"]
    walk.fix(value, axis, "an axis that one index is taken from")
    return [pick_axes(value, [a for a in range(value.ndim) if a != axis]) for _ in eqn.outvars]


def tile(walk, eqn, operands: list[Value]):
    """An axis that is repeated has each of its entries several times."""
    (value,) = operands
    for axis, times in enumerate(eqn.params["reps"]):
        if times != 1:
            value = with_axis(value, axis, value.shape[axis] * times, np.tile(np.arange(value.shape[axis]), times))
    return value


def pad(walk, eqn, operands: list[Value]):
    """Entries are moved apart or cut; padded ones follow whatever they meet, and are zero if padded by zero."""
    value, filler = operands
    shape, configs = eqn.outvars[0].aval.shape, eqn.params["padding_config"]
    labels, zero = list(value.labels), list(value.zero)
    for axis, config in enumerate(configs):
        if tuple(config) == (0, 0, 0) or isinstance(labels[axis], str):
            continue
        source = padded(value.shape[axis], config)
        there = source >= 0
        nodes, at_zero = walk.coupling.new(len(source)), np.full(len(source), filler.constant == 0)
        nodes[there], at_zero[there] = labels[axis][source[there]], value.zeros(axis)[source[there]]
        labels[axis], zero[axis] = nodes, at_zero
    if filler.constant != 0 and any(tuple(config) != (0, 0, 0) for config in configs):
        zero = [
            np.zeros(n, bool) if not isinstance(label, str) else True for label, n in zip(labels, shape, strict=True)
        ]
    return Value(tuple(shape), tuple(labels), tuple(zero), None, None, value.weight and filler.weight)


def padded(size: int, config) -> np.ndarray:
    """For each index of a padded axis the one that it was, or −1: (low, high, interior), negative ones cut."""
    low, high, interior = config
    whole = np.full(max(size + (size - 1) * interior, 0), -1)
    whole[:: interior + 1] = np.arange(size)
    whole = np.concatenate([np.full(max(low, 0), -1), whole[max(-low, 0) :]])
    return np.concatenate([whole[: len(whole) - max(-high, 0)], np.full(max(high, 0), -1)])


RULES = {"concatenate": concatenate, "stack": stack, "unstack": unstack, "tile": tile, "pad": pad}
