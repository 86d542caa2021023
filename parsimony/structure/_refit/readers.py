"""Equations that are linear in a parameter, as products of matrices: y = x·w, of a dense layer or a convolution."""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import lax


@dataclasses.dataclass(frozen=True)
class Reader:
    """An equation in which activations meet a parameter, as x·w = y.

    Attributes:
      rows: activations → x, (places, inputs); of a convolution its patches.
      weights: the operand that is the parameter → w, (inputs, outputs).
      operand: w → the operand.
      results: the result of the equation → y, (places, outputs).
    """

    rows: Callable
    weights: Callable
    operand: Callable
    results: Callable


def reader(eqn, place: int) -> Reader | None:
    """The equation as a product of matrices, its operand at `place` the parameter; None where it is no such product."""
    shape = tuple(eqn.invars[place].aval.shape)
    if eqn.primitive.name == "dot_general":
        return _dot_general(eqn.params["dimension_numbers"], place, shape)
    if eqn.primitive.name == "conv_general_dilated" and place == 1:
        return _convolution(eqn.params, shape)
    return None


def _dot_general(dimension_numbers, place: int, shape) -> Reader | None:
    contracted, batch = dimension_numbers
    if batch[0] or not contracted[0]:
        return None
    mine, other = tuple(contracted[place]), tuple(contracted[1 - place])
    order = (*mine, *(axis for axis in range(len(shape)) if axis not in mine))
    inputs = int(np.prod([shape[axis] for axis in mine]))

    def rows(x):
        free = [axis for axis in range(x.ndim) if axis not in other]
        return x.transpose(*free, *other).reshape(-1, inputs)

    outputs = int(np.prod(shape)) // inputs
    results = (lambda y: y.reshape(-1, outputs)) if place == 1 else (lambda y: y.reshape(outputs, -1).T)
    return Reader(rows, *_matrix(order, shape, inputs), results)


def _convolution(params, shape) -> Reader | None:
    if params["feature_group_count"] != 1 or params["batch_group_count"] != 1:
        return None
    numbers = params["dimension_numbers"]
    outputs, features, *window = numbers.rhs_spec
    last = lambda y: jnp.moveaxis(y, numbers.out_spec[1], -1).reshape(-1, y.shape[numbers.out_spec[1]])

    def rows(x):
        settings = {key: params[key] for key in ("window_strides", "padding", "lhs_dilation", "rhs_dilation")}
        sizes = [shape[axis] for axis in window]
        patches = lax.conv_general_dilated_patches(
            x, sizes, dimension_numbers=numbers, precision=lax.Precision.HIGHEST, **settings
        )
        return last(patches)

    order = (features, *window, outputs)  # the order of conv_general_dilated_patches
    return Reader(rows, *_matrix(order, shape, int(np.prod(shape)) // shape[outputs]), last)


def _matrix(order, shape, inputs: int) -> tuple[Callable, Callable]:
    """From an operand to the matrix w, and back."""
    moved, inverse = [shape[axis] for axis in order], np.argsort(order).tolist()
    return lambda w: w.transpose(order).reshape(inputs, -1), lambda w: w.reshape(moved).transpose(inverse)
