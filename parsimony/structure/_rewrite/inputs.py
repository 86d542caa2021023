"""Products by kernels that do not read all of their input."""

from typing import Any

import numpy as np

from .cutting import Copies, taken


def as_read(eqn, arrays: list[Any], copies: list[Copies]) -> list[Any]:
    """The operands of a product, an input without the features whose rows of a kernel are gone."""
    arrays = list(arrays)
    for axes in _contracted(eqn):
        masks = [numbers[axis] for numbers, axis in zip(copies, axes, strict=False)]
        for place, mask in enumerate(reversed(masks)):
            if masks[place] is None and mask is not None:
                arrays[place] = taken(arrays[place], {axes[place]: np.repeat(np.arange(len(mask)), mask)})
    return arrays


def _contracted(eqn) -> list[tuple[int, int]]:
    """The axes of both operands that a product sums over."""
    if eqn.primitive.name == "dot_general":
        (left, right), _ = eqn.params["dimension_numbers"]
        return list(zip(left, right, strict=True))
    if eqn.primitive.name == "conv_general_dilated" and eqn.params["feature_group_count"] == 1:
        numbers = eqn.params["dimension_numbers"]
        return [(numbers.lhs_spec[1], numbers.rhs_spec[1])]
    return []
