"""What a removed slice was: where a sum has lost some that are not zero, they are all alike and can be made up for.

A removed channel is zero, so in a variance about a mean μ each adds (0 − μ)². The slice, of size one, follows from
those of the operands, back to where it is zero.
"""

from collections.abc import Callable
from typing import Any

from .._analysis.rules import elementwise
from .._analysis.rules.reductions import RULES as _REDUCTIONS
from .._analysis.rules.shapes import blocks


def slice_rule(eqn, operands: list[Any], changed) -> Callable[[int], Any] | None:
    """How the slice of a removed index follows from those of the operands; None where the analysis never asks."""
    name, bind = eqn.primitive.name, lambda arrays, more=changed: eqn.primitive.bind(*arrays, **{**eqn.params, **more})
    first = operands[0] if operands else None
    if elementwise.RULES.get(name) is elementwise.elementwise:
        whole = max(part.value.ndim for part in operands)

        def of(axis):
            size = max((part.value.shape[axis] for part in operands if part.value.ndim == whole), default=1)
            runs = [part.value.ndim and part.value.shape[axis] == size for part in operands]
            return bind(
                [p.removed_slice(axis) if runs_along else p.array for p, runs_along in zip(operands, runs, strict=True)]
            )

        return of
    if first is None:
        return None
    if name == "broadcast_in_dim":

        def of(axis):
            shape = tuple(1 if a == axis else n for a, n in enumerate(changed["shape"]))
            source = list(eqn.params["broadcast_dimensions"])
            runs = axis in source and first.value.shape[source.index(axis)] != 1
            return bind([first.removed_slice(source.index(axis)) if runs else first.array], {"shape": shape})

        return of
    if name == "reshape":

        def of(axis):
            pairs = {new[0]: old[0] for old, new in blocks(first.value.shape, eqn.params["new_sizes"]) or ()}
            shape = tuple(1 if a == axis else n for a, n in enumerate(changed["new_sizes"]))
            return bind([first.removed_slice(pairs[axis])], {"new_sizes": shape})

        return of
    if name == "transpose":
        return lambda axis: bind([first.removed_slice(eqn.params["permutation"][axis])])
    gone = eqn.params.get("dimensions") if name == "squeeze" else eqn.params.get("axes")
    if name == "squeeze" or (name in _REDUCTIONS and gone is not None):
        left = [axis for axis in range(first.value.ndim) if axis not in gone]
        return lambda axis: bind([first.removed_slice(left[axis])])
    if name == "dot_general":
        (left_sum, right_sum), (left_batch, right_batch) = eqn.params["dimension_numbers"]
        free = [(i, a) for i, (part, gone) in enumerate(
            zip(operands, ((*left_sum, *left_batch), (*right_sum, *right_batch)), strict=True)
        ) for a in range(part.value.ndim) if a not in gone]  # fmt: skip

        def of(axis):
            which, place = free[axis - len(left_batch)]
            return bind([p.removed_slice(place) if i == which else p.array for i, p in enumerate(operands)])

        return of
    return None
