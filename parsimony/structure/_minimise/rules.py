"""What follows for the results of each primitive: moves of axes, elementwise operations, reductions."""

import dataclasses
import math

import numpy as np

from .._analysis.rules import elementwise as _elementwise
from .._analysis.rules.shapes import blocks
from .contractions import conv_general_dilated, dot_general
from .kinds import of_blocks, side_by_side, together
from .known import Known, Term


def _shape(eqn, place: int = 0) -> tuple[int, ...]:
    return tuple(eqn.outvars[place].aval.shape)


def broadcast_in_dim(reading, eqn, operands, numbers):
    value, shape = operands[0], _shape(eqn)
    source = {to: axis for axis, to in enumerate(eqn.params["broadcast_dimensions"])}
    axes = tuple(source[to] if to in source and value.shape[source[to]] == n else None for to, n in enumerate(shape))
    result = value.moved(shape, axes, numbers[0])
    repeated = {axis: np.zeros(n, int) for axis, n in enumerate(shape) if axes[axis] is None}
    result = dataclasses.replace(result, kinds=result.kinds | repeated)
    if value.array is not None and value.array.size == 1 and result.array is None:
        number = value.array.ravel()[0]
        slices = {axis: (np.ones(n, bool), np.full(n, number)) for axis, n in enumerate(shape)}
        result = dataclasses.replace(result, slices=slices)
    return result


def reshape(reading, eqn, operands, numbers):
    value, shape = operands[0], _shape(eqn)
    pairs = blocks(value.shape, shape) or []
    axes: list[int | None] = [None] * len(shape)
    for old, new in pairs:
        if len(old) == len(new) == 1:
            axes[new[0]] = old[0]
    result = value.moved(shape, tuple(axes), numbers[0])
    slices, kinds = dict(result.slices), dict(result.kinds)
    kept = {axis for axis, n in enumerate(value.shape) if n == 1} | set(axes)
    for old, new in pairs if numbers[0] is None else ():
        size = [value.shape[axis] for axis in old]
        found = of_blocks(value.kinds_at(old), size, [shape[axis] for axis in new])
        kinds |= {new[place]: its for place, its in found.items()}
        if len(old) > 1 and len(new) == 1:
            mask, number = np.zeros(size, bool), np.zeros(size)
            for place, axis in enumerate(old):
                if (known := value.along(axis)) is not None:
                    where, its = (x.reshape([-1 if p == place else 1 for p in range(len(old))]) for x in known)
                    number, mask = np.where(where & ~mask, its, number), mask | where
            slices[new[0]] = mask.ravel(), number.ravel()
        elif len(old) == 1 and (known := value.along(old[0])) is not None:
            where, its = (x.reshape([shape[axis] for axis in new]) for x in known)
            for place, axis in enumerate(new):
                rows, ones = (np.moveaxis(x, place, 0).reshape(shape[axis], -1) for x in (where, its))
                slices[axis] = rows.all(1) & (ones == ones[:, :1]).all(1), ones[:, 0]
    whole = kept >= set(range(value.ndim))
    if not whole:
        reading.count(operands)
    kept_whole = {"origin": result.origin, "terms": result.terms} if whole else {"origin": None, "terms": ()}
    return dataclasses.replace(result, slices=slices, kinds=kinds, **kept_whole)


def transpose(reading, eqn, operands, numbers):
    return operands[0].moved(_shape(eqn), tuple(eqn.params["permutation"]), numbers[0])


def squeeze(reading, eqn, operands, numbers):
    left = tuple(axis for axis in range(operands[0].ndim) if axis not in eqn.params["dimensions"])
    return operands[0].moved(_shape(eqn), left, numbers[0])


def elementwise(reading, eqn, operands, numbers):
    """One number where the operands are; zero times anything is zero."""
    shape, name = _shape(eqn), eqn.primitive.name
    slices = {}
    for axis, n in enumerate(shape) if numbers[0] is None else ():
        if (known := _vector(eqn, operands, axis, n)) is not None:
            slices[axis] = known
    result = Known(shape, numbers[0], slices, kinds=_equal_parts(operands, shape) if numbers[0] is None else {})
    if name == "convert_element_type" and all(np.issubdtype(_kind(v), np.inexact) for v in (*eqn.invars, *eqn.outvars)):
        return dataclasses.replace(result, origin=operands[0].origin, terms=operands[0].terms)
    if name == "convert_element_type":
        reading.count(operands)
    if name in ("add", "add_any", "sub"):
        return dataclasses.replace(result, terms=_with_biases(operands, shape, -1 if name == "sub" else 1))
    return result


def _equal_parts(operands: list[Known], shape) -> dict[int, np.ndarray]:
    """The kinds along each axis: equal parts of all operands give equal results."""
    kinds = {}
    for axis, n in enumerate(shape):
        along = [value for value in operands if value.ndim and value.shape[axis] == n]  # the others are repeated
        its = [found for value in along if (found := value.kinds_along(axis)) is not None]
        if len(its) == len(along):
            kinds[axis] = together(*its)
    return kinds


def _kind(var):
    return np.float32 if str(var.aval.dtype) == "bfloat16" else var.aval.dtype


def _vector(eqn, operands: list[Known], axis: int, n: int):
    every = [_entry(value, axis, n) for value in operands]
    if eqn.primitive.name == "mul":
        zero = np.logical_or(*(np.zeros(n, bool) if e is None else e[0] & (e[1] == 0) for e in every))
    else:
        zero = np.zeros(n, bool)
    there = [entry for entry in every if entry is not None]
    mask = np.logical_and.reduce([m for m, _ in there]) if len(there) == len(every) else np.zeros(n, bool)
    if not (mask | zero).any():
        return None
    dtype = eqn.outvars[0].aval.dtype
    if not mask.any():
        return zero, np.zeros(n, dtype)
    # In place of what is unknown stands a number that is known, so that nothing is computed with that may not be.
    first = int(np.argmax(mask))
    arrays = [
        np.where(mask, number, number[first]).astype(var.aval.dtype)
        for (_, number), var in zip(there, eqn.invars, strict=True)
    ]
    made = np.asarray(eqn.primitive.bind(*arrays, **eqn.params))
    return mask | zero, np.where(zero, np.zeros((), dtype), made)


def _entry(value: Known, axis: int, n: int):
    if value.ndim == 0:
        return None if value.array is None else (np.ones(n, bool), np.full(n, value.array))
    return value.along(axis) if value.shape[axis] == n else None


def _with_biases(operands: list[Known], shape, second: int) -> tuple[Term, ...]:
    """The terms of a sum of two; those that a parameter is added to have found their bias."""
    left = []
    for value, sign, other, its in ((operands[0], 1, operands[1], second), (operands[1], second, operands[0], 1)):
        if value.shape != shape:
            continue
        for term in value.terms:
            term = dataclasses.replace(term, sign=term.sign * sign)
            if other.ndim != len(shape) or not _finds(term, other, shape, its):
                left.append(term)
    return tuple(left)


def _finds(term: Term, other: Known, shape, sign: int) -> bool:
    """Whether the other one is a bias of the term's sum: a number, at least, for each of its outputs."""
    reader, origin = term.reader, other.origin
    if origin is None:
        return False
    along = {
        axis: out for axis, out, *n in zip(origin.axes, term.axes, other.shape, shape, strict=True) if n[0] == n[1]
    }
    if reader.bias or set(reader.outputs) - {out for axis, out in along.items() if axis is not None}:
        return False
    reader.bias, reader.sign, reader.order = origin.name, term.sign * sign, along
    return True


def reduce(reading, eqn, operands, numbers):
    axes, name = eqn.params["axes"], eqn.primitive.name
    value, left = operands[0], tuple(axis for axis in range(operands[0].ndim) if axis not in axes)
    times = math.prod(value.shape[axis] for axis in axes) if name == "reduce_sum" else 1
    slices = {left.index(axis): (mask, number * times) for axis, (mask, number) in _kept(value, left).items()}
    return Known(_shape(eqn), numbers[0], slices, kinds=value.kinds_at(left))


def _kept(value: Known, axes):
    return {axis: known for axis in axes if (known := value.along(axis)) is not None} if value.array is None else {}


def reduce_window(reading, eqn, operands, numbers):
    """Of a pooling; for a sum there may be no padding."""
    value, params, n = operands[0], eqn.params, operands[0].ndim
    windows, padding = params["window_dimensions"], params["padding"]
    plain = set(params.get("base_dilation") or (1,)) == {1} and set(params.get("window_dilation") or (1,)) == {1}
    if eqn.primitive.name == "reduce_window_sum":
        plain &= not any(map(any, padding))
    free = [a for a in range(n) if windows[a] == 1 and value.shape[a] == _shape(eqn)[a] and not any(padding[a])]
    times = math.prod(windows) if eqn.primitive.name == "reduce_window_sum" else 1
    slices = {axis: (mask, number * times) for axis, (mask, number) in _kept(value, free).items()} if plain else {}
    return Known(_shape(eqn), numbers[0], slices, kinds=value.kinds_at(a if a in free else None for a in range(n)))


def concatenate(reading, eqn, operands, numbers):
    axis = eqn.params["dimension"]
    parts = [
        known if (known := value.along(axis)) is not None else (np.zeros(value.shape[axis], bool),) * 2
        for value in operands
    ]
    slices = {axis: (np.concatenate([m for m, _ in parts]), np.concatenate([x for _, x in parts]))}
    kinds = {axis: side_by_side((value.kinds_along(axis), value.shape[axis]) for value in operands)}
    return Known(_shape(eqn), numbers[0], slices if numbers[0] is None else {}, kinds=kinds)


def slice_(reading, eqn, operands, numbers):
    params, value = eqn.params, operands[0]
    steps = params["strides"] or (1,) * value.ndim
    cut = lambda axis: slice(params["start_indices"][axis], params["limit_indices"][axis], steps[axis])
    slices = {axis: tuple(x[cut(axis)] for x in known) for axis, known in _kept(value, range(value.ndim)).items()}
    kinds = {axis: its[cut(axis)] for axis, its in value.kinds_at(range(value.ndim)).items()}
    return Known(_shape(eqn), numbers[0], slices, kinds=kinds)


def split(reading, eqn, operands, numbers):
    axis, value = eqn.params["axis"], operands[0]
    ends = np.cumsum([0, *(_shape(eqn, place)[axis] for place in range(len(eqn.outvars)))])
    kinds = value.kinds_at(range(value.ndim))
    return [
        Known(_shape(eqn, place), array, {
            a: tuple(x[ends[place] : ends[place + 1]] for x in known) if a == axis else known
            for a, known in _kept(value, range(value.ndim)).items()
        }, kinds={a: its[ends[place] : ends[place + 1]] if a == axis else its for a, its in kinds.items()})
        for place, array in enumerate(numbers)
    ]  # fmt: skip


def pad(reading, eqn, operands, numbers):
    """Along the axis that is padded, if it is the only one."""
    value, filler = operands
    padded = [axis for axis, config in enumerate(eqn.params["padding_config"]) if any(config)]
    if len(padded) != 1 or filler.array is None or (known := value.along(padded[0])) is None:
        return Known(_shape(eqn), numbers[0])
    low, high, inner = eqn.params["padding_config"][padded[0]]
    if min(low, high) < 0 or inner:
        return Known(_shape(eqn), numbers[0])
    mask, number = (np.pad(x, (low, high), constant_values=c) for x, c in zip(known, (True, filler.array), strict=True))
    return Known(_shape(eqn), numbers[0], {padded[0]: (mask, number)} if numbers[0] is None else {})


RULES = {
    **{name: elementwise for name, rule in _elementwise.RULES.items() if rule is _elementwise.elementwise},
    "broadcast_in_dim": broadcast_in_dim,
    "reshape": reshape,
    "transpose": transpose,
    "squeeze": squeeze,
    **dict.fromkeys(["reduce_sum", "reduce_max", "reduce_min"], reduce),
    **dict.fromkeys(["reduce_window_sum", "reduce_window_max", "reduce_window_min"], reduce_window),
    "concatenate": concatenate,
    "slice": slice_,
    "split": split,
    "pad": pad,
    "dot_general": dot_general,
    "conv_general_dilated": conv_general_dilated,
}
