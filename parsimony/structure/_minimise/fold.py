"""Constants out of the way: what a sum over them gives moves into a bias, or into the weights of one of them.

Where x_i = c_i is one number for all inputs and places, and y = Σ_i x_i·w_i + b is the only use of w and of b,

    b ← b + Σ_i c_i·w_i,             w_i ← 0                     leaves y as it is, and
    w_r ← w_r + Σ_i (c_i/c_r)·w_i,   w_i ← 0   for all i ≠ r     does at a padded border too, and without a b.
"""

import numpy as np

from .._units import Units
from .known import Reader
from .reading import Reading

Reasons = dict[str, dict[int, str]]
"""{set: {unit: why it stays}}"""
Owner = tuple[str, int]
"""A unit: its set, and its number there."""
Array = np.ndarray | None
"""A parameter, or None for a random key."""


def fold(
    reading: Reading, units: Units, params: dict[str, Array], closed: frozenset[str], barred: set[Owner]
) -> tuple[Reasons, set[Owner]]:
    """Changes `params` so that as few units as possible are read among those that are constant.

    Args:
      closed: parameters that nothing may be moved into.
      barred: units to leave as they are.

    Returns:
      Of the units whose constant could not be moved away why that is so; and those that something was moved away of.
    """
    reasons: Reasons = {}
    moved: set[Owner] = set()
    stay: set[Owner] = set()  # those that others were merged into
    for reader in reading.readers:
        owners = {i: its for i, its in owners_of(units, reader).items() if not barred & set(its)}
        weights = params[reader.kernel]
        if reading.uses[reader.kernel] != 1 or not owners or weights is None:
            continue
        new = np.moveaxis(weights.copy(), reader.axis, 0)
        read = reader.constant & np.array([i in owners for i in range(len(new))])
        read &= (new != 0).any(tuple(range(1, new.ndim)))
        new[read & (reader.number == 0)] = 0
        rows = np.flatnonzero(read & (reader.number != 0))
        if len(rows):
            reason = _into_bias(reading, reader, params, closed, new, rows)
            if reason:
                reason, rest = _into_one(reader, closed, new, rows, owners, stay, reason)
                for name, unit in (owner for i in rest for owner in owners[i]):
                    reasons.setdefault(name, {})[unit] = reason
        new = np.moveaxis(new, 0, reader.axis)
        lost = (weights != 0) & (new == 0)
        for i in np.flatnonzero(lost.any(tuple(a for a in range(new.ndim) if a != reader.axis)) & read).tolist():
            moved.update(owners[i])
        params[reader.kernel] = np.ascontiguousarray(new)
    return reasons, moved - stay


def owners_of(units: Units, reader: Reader) -> dict[int, list[Owner]]:
    """The units that an index of the kernel's axis belongs to."""
    found: dict[int, list[Owner]] = {}
    for unit_set in units.sets.values():
        unit = unit_set.members.get(reader.kernel, {}).get(reader.axis, np.zeros(0, int))
        for index in np.flatnonzero(unit >= 0).tolist():
            found.setdefault(index, []).append((unit_set.name, int(unit[index])))
    return found


def _into_bias(reading, reader: Reader, params, closed, new, rows) -> str:
    """Moves the rows into the bias; or why it cannot."""
    bias = params.get(reader.bias)
    if reader.border:
        return f"{reader.kernel!r} reads its constant where zeros pad it"
    if bias is None or reading.uses[reader.bias] != 1:
        return f"{reader.kernel!r} reads its constant, and no bias of its own follows"
    if reader.bias in closed:
        return f"{reader.bias!r}, which would take its constant up, is under a penalty of opt_state"
    total = np.tensordot(reader.number[rows], new[rows].astype(float), 1)  # the other axes of the kernel, in order
    others = [axis for axis in range(new.ndim) if axis != reader.axis]
    window = tuple(place for place, axis in enumerate(others) if axis not in reader.outputs)
    total, left = total.sum(window), [axis for axis in others if axis in reader.outputs]
    order = [reader.order.get(axis) for axis in range(bias.ndim)]
    shape = [1 if axis is None else n for axis, n in zip(order, bias.shape, strict=True)]
    order = [left.index(axis) for axis in order if axis is not None]
    added = np.broadcast_to(np.transpose(total, order).reshape(shape), bias.shape)
    params[reader.bias] = (bias.astype(float) + reader.sign * added).astype(bias.dtype)
    new[rows] = 0
    return ""


def _into_one(reader: Reader, closed, new, rows, owners, stay, reason: str):
    """Moves the rows into one of them; why that one is left, and the rows that are."""
    if reader.kernel in closed:
        return f"{reason}; {reader.kernel!r} itself is under a penalty of opt_state", rows
    large = np.abs(reader.number[rows]) * [10 if stay & set(owners[i]) else 1 for i in rows]
    one = rows[np.argmax(large)]
    total = np.tensordot(reader.number[rows] / reader.number[one], new[rows].astype(float), 1)
    new[rows] = 0
    new[one] = total.astype(new.dtype)
    stay.update(owners[one])
    return reason, [one]
