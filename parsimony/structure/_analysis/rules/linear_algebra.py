"""Rules of transforms, decompositions and solvers: the axes of a matrix stay whole, a batch of them goes along."""

import dataclasses

from ..abstract import Value, rigid


def _whole(walk, value: Value, axes, reason: str) -> Value:
    """The value with these axes rigid."""
    labels, zero = list(value.labels), list(value.zero)
    for axis in axes:
        labels[axis], zero[axis] = walk.fix(value, axis, reason), True
    return dataclasses.replace(value, labels=tuple(labels), zero=tuple(zero), constant=None, alike=None)


def fft(walk, eqn, operands: list[Value]):
    (value,) = operands
    axes = range(value.ndim - len(eqn.params["fft_lengths"]), value.ndim)
    return dataclasses.replace(_whole(walk, value, axes, "an fft along it"), shape=tuple(eqn.outvars[0].aval.shape))


def decomposition(walk, eqn, operands: list[Value]):
    """Factors of each matrix of a batch; those of a zero matrix are not zero."""
    name, results = eqn.primitive.name, []
    batch = operands[0].ndim - (1 if name == "lu_pivots_to_permutation" else 2)
    values = [_whole(walk, value, range(batch, value.ndim), f"{name} of matrices") for value in operands]
    labels = values[0].labels[:batch]
    for value in values[1:]:
        labels = tuple(walk.coupling.unite(a, b) for a, b in zip(labels, value.labels[:batch], strict=True))
    for var in eqn.outvars:
        whole = rigid(var.aval.shape, f"{name} of matrices", all(value.weight for value in values))
        zero = (False,) * batch + whole.zero[batch:]
        results.append(dataclasses.replace(whole, labels=(*labels, *whole.labels[batch:]), zero=zero, alike=None))
    return results


def triangular_solve(walk, eqn, operands: list[Value]):
    """A⁻¹B column by column: a column of B that is zero gives one that is zero."""
    matrix, right = operands
    n, reason = right.ndim, "a triangular solve along it"
    along = n - 2 if eqn.params["left_side"] else n - 1
    matrix, right = _whole(walk, matrix, (n - 2, n - 1), reason), _whole(walk, right, (along,), reason)
    labels = list(right.labels)
    for axis in range(n - 2):
        labels[axis] = walk.coupling.unite(matrix.labels[axis], labels[axis])
    shape = tuple(eqn.outvars[0].aval.shape)
    return Value(shape, tuple(labels), right.zero, None, None, matrix.weight and right.weight)


RULES = {
    "fft": fft,
    "triangular_solve": triangular_solve,
    **dict.fromkeys(["cholesky", "eigh", "lu", "lu_pivots_to_permutation"], decomposition),
}
