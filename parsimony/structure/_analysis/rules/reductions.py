"""Rules of the primitives that sum, compare or order along an axis."""

import dataclasses

import numpy as np

from ..abstract import Value


def reduce_sum(walk, eqn, operands: list[Value]):
    """Exact where what is removed is zero, or can be corrected for (see `Value.alike`)."""
    return _reduce(
        walk, eqn, operands, lambda value, axis, alone: (value.alike[axis] and alone) | np.asarray(value.zero[axis])
    )


def reduce_or(walk, eqn, operands: list[Value]):
    return _reduce(walk, eqn, operands, lambda value, axis, alone: value.zero[axis])


def reduce_other(walk, eqn, operands: list[Value]):
    return _reduce(walk, eqn, operands, lambda value, axis, alone: False)


def _reduce(walk, eqn, operands: list[Value], exact):
    axes, results = eqn.params["axes"], []
    for value in operands:
        loose = [axis for axis in axes if not isinstance(value.labels[axis], str) and not np.all(value.zero[axis])]
        for axis in axes:
            walk.coupling.inexact(value.labels[axis], exact(value, axis, len(loose) == 1), _cause(eqn, value))
        kept = [axis for axis in range(value.ndim) if axis not in axes]
        pick = lambda items, kept=kept: tuple(items[axis] for axis in kept)
        zero = pick(value.zero) if eqn.primitive.name != "reduce_and" else (False,) * len(kept)
        alike = tuple(bool(np.all(z)) or (not loose and value.alike[axis]) for z, axis in zip(zero, kept, strict=True))
        results.append(Value(pick(value.shape), pick(value.labels), zero, alike, None, value.weight))
    if eqn.primitive.name in ("reduce_prod", "argmax", "argmin"):
        results = [
            dataclasses.replace(value, zero=(False,) * value.ndim, alike=(False,) * value.ndim) for value in results
        ]
    return results


def _cause(eqn, value: Value) -> str:
    if value.weight:
        return f"{eqn.primitive.name} of weights over an axis whose removed part is not zero there"
    return f"{eqn.primitive.name} over an axis whose removed part is not zero there"


def argument(walk, eqn, operands: list[Value]):
    """The position of an extreme: an axis that is searched stays whole."""
    for axis in eqn.params["axes"]:
        walk.fix(operands[0], axis, f"{eqn.primitive.name} along it")
    return _reduce(walk, eqn, operands, lambda value, axis, alone: True)


def cumulative(walk, eqn, operands: list[Value]):
    (value,), axis = operands, eqn.params["axis"]
    if eqn.primitive.name == "cumsum":
        walk.coupling.inexact(value.labels[axis], value.zero[axis], "cumsum along it")
        zero = (*value.zero[:axis], False, *value.zero[axis + 1 :])
    else:
        value = _rigid_along(walk, value, axis, f"{eqn.primitive.name} along it")
        zero = value.zero if eqn.primitive.name in ("cummax", "cummin") else (False,) * value.ndim
    return Value(value.shape, value.labels, zero, None, None, value.weight)


def _rigid_along(walk, value: Value, axis: int, reason: str) -> Value:
    label = walk.fix(value, axis, reason)
    put = lambda items, item: (*items[:axis], item, *items[axis + 1 :])
    return dataclasses.replace(
        value, labels=put(value.labels, label), zero=put(value.zero, True), alike=put(value.alike, True)
    )


def sort(walk, eqn, operands: list[Value]):
    axis = eqn.params["dimension"]
    values = [_rigid_along(walk, value, axis, "sorted along it") for value in operands]
    labels = values[0].labels
    for value in values[1:]:
        labels = tuple(walk.coupling.unite(a, b) for a, b in zip(labels, value.labels, strict=True))
    exact = eqn.params["num_keys"] == 1 and len(values) == 1
    return [
        dataclasses.replace(
            value, labels=labels, constant=None, alike=None,
            zero=tuple(z if exact or i == axis else False for i, z in enumerate(value.zero)),
        )
        for value in values
    ]  # fmt: skip


def top_k(walk, eqn, operands: list[Value]):
    axis = eqn.params.get("reduction_dimension", eqn.params.get("axis", -1)) % operands[0].ndim
    value = _rigid_along(walk, operands[0], axis, f"{eqn.primitive.name} along it")
    value = dataclasses.replace(value, shape=tuple(eqn.outvars[0].aval.shape), constant=None, alike=None)
    return [value, dataclasses.replace(value, zero=(False,) * value.ndim, alike=(False,) * value.ndim)]


def reduce_window(walk, eqn, operands: list[Value]):
    """Pooling: an axis that no window spans goes along."""
    value, params, shape = operands[0], eqn.params, eqn.outvars[0].aval.shape
    n = value.ndim
    strides = params.get("window_strides") or (1,) * n
    for axis in range(n):
        spans = params["window_dimensions"][axis] != 1 or strides[axis] != 1 or shape[axis] != value.shape[axis]
        if spans:
            value = _rigid_along(walk, value, axis, "a pooling window that spans it")
    # A window over zeros gives zero; padding brings in −∞, ∞ or 0, unless the general form names another number.
    keeps_zero = eqn.primitive.name != "reduce_window" or not any(any(pair) for pair in params["padding"])
    zero = value.zero if keeps_zero else (False,) * n
    return Value(tuple(shape), value.labels, zero, None, None, value.weight)


RULES = {
    "reduce_sum": reduce_sum,
    "reduce_or": reduce_or,
    "sort": sort,
    **dict.fromkeys(["top_k", "approx_top_k"], top_k),
    **dict.fromkeys(["reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_xor"], reduce_other),
    **dict.fromkeys(["argmax", "argmin"], argument),
    **dict.fromkeys(["cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"], cumulative),
    **dict.fromkeys(["reduce_window", "reduce_window_sum", "reduce_window_max", "reduce_window_min"], reduce_window),
}
