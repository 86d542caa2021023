"""The convolution of all networks here: XLA's, but on a CPU its derivatives are taken by matrix products.

XLA on a CPU takes the gradient of a kernel by a convolution whose window is the whole image, for which it lays out all
images anew. Here a few images at a time are unfolded into their patches P, of which one product takes the gradient:

    y = P·K,    ∂L/∂K = Pᵀ·∂L/∂y,    summed over the images

And where the window is larger than the image, as in the last layers of VGG, XLA on a CPU has plain loops only; there
the convolution itself is a sum of products, one for each position in the window.
"""

import functools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

ROWS = 512
"""Places of the output that one product sums over: with fewer, adding up takes longer; with more, caches overflow."""


class _Window(NamedTuple):
    """How a kernel moves over images whose channels are their last axis, as the kernel's outputs are its own."""

    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    precision: Any


def convolution(
    images, kernel, strides, padding, *, lhs_dilation=None, rhs_dilation=None, dimension_numbers=None,
    feature_group_count=1, precision=None, **others,
):  # fmt: skip
    """`lax.conv_general_dilated`, to be given to `nnx.Conv(conv_general_dilated=...)`.

    It has a reverse derivative of its own: `jax.grad` and what is taken of a gradient, `jax.jvp` too, but not `jax.jvp`
    of the convolution itself. All is left to XLA with groups, with dilated images, with channels elsewhere than last,
    and where a mesh shards arrays, whose images no loop could take a few at a time.

    Args:
      images: [batch, places..., inputs].
      kernel: [places..., inputs, outputs].
      strides, padding, lhs_dilation, rhs_dilation, dimension_numbers, feature_group_count, precision, **others:
        those of `lax.conv_general_dilated`.

    Returns:
      [batch, places..., outputs], of the dtype of `images`.
    """
    rank, mesh = images.ndim - 2, jax.sharding.get_abstract_mesh()
    numbers = lax.conv_dimension_numbers(images.shape, kernel.shape, dimension_numbers)
    plain = numbers == _channels_last(rank) and feature_group_count == 1 and set(lhs_dilation or (1,)) == {1}
    if not plain or any(map(bool, others.values())) or not (mesh.empty or mesh.are_all_axes_manual):
        return lax.conv_general_dilated(
            images, kernel, strides, padding, lhs_dilation=lhs_dilation, rhs_dilation=rhs_dilation,
            dimension_numbers=dimension_numbers, feature_group_count=feature_group_count, precision=precision, **others,
        )  # fmt: skip
    dilation = tuple(rhs_dilation or (1,) * rank)
    if isinstance(padding, str):
        extent = [(size - 1) * step + 1 for size, step in zip(kernel.shape[:rank], dilation, strict=True)]
        padding = lax.padtype_to_pads(images.shape[1:-1], extent, strides, padding)
    return _convolved(images, kernel, _Window(tuple(strides), tuple(map(tuple, padding)), dilation, precision))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolved(images, kernel, window: _Window):
    extent = [(size - 1) * step for size, step in zip(kernel.shape[:-2], window.dilation, strict=True)]
    if all(places > more for places, more in zip(images.shape[1:-1], extent, strict=True)):
        return _by_xla(images, kernel, window)
    own, other = (functools.partial(of, window=window) for of in (_by_products, _by_xla))
    return lax.platform_dependent(images, kernel, cpu=own, default=other)


def _kept(images, kernel, window: _Window):
    return _convolved.fun(images, kernel, window), (images, kernel)


def _gradients(window: _Window, kept, gradient):
    images, kernel = kept

    def by_transposition(images, gradient):
        return jax.linear_transpose(lambda kernel: _by_xla(images, kernel, window), kernel)(gradient)[0]

    own = functools.partial(_of_kernel, like=kernel, window=window)
    of_kernel = lax.platform_dependent(images, gradient, cpu=own, default=by_transposition)
    return *jax.linear_transpose(lambda images: _convolved.fun(images, kernel, window), images)(gradient), of_kernel


_convolved.defvjp(_kept, _gradients)


def _by_xla(images, kernel, window: _Window):
    return lax.conv_general_dilated(
        images, kernel, window.strides, window.padding, rhs_dilation=window.dilation,
        dimension_numbers=_channels_last(len(window.strides)), precision=window.precision,
    )  # fmt: skip


def _by_products(images, kernel, window: _Window):
    weights = jnp.reshape(kernel, (-1, *kernel.shape[-2:]))
    taps = _taps(images, kernel.shape[:-2], window)
    return sum(jnp.matmul(tap, weight, precision=window.precision) for tap, weight in zip(taps, weights, strict=True))


def _of_kernel(images, gradient, *, like, window: _Window):
    """∂L/∂K, added up over a few images at a time, in float32 at least."""
    dtype = jnp.promote_types(gradient.dtype, "float32")
    axes = tuple(range(gradient.ndim - 1))

    def add(total, part):
        patches = jnp.concatenate(list(_taps(part[0], like.shape[:-2], window)), axis=-1)
        # With the outputs first: XLA on a CPU is faster with the shorter matrix on the left.
        return total + lax.dot_general(
            part[1], patches, ((axes, axes), ((), ())), window.precision, preferred_element_type=dtype
        ), None  # fmt: skip

    batch = len(images)
    each = min(batch, max(1, ROWS // math.prod(gradient.shape[1:-1])))
    whole = batch - batch % each
    total = jnp.zeros((gradient.shape[-1], math.prod(like.shape[:-1])), dtype)
    in_parts = [jnp.reshape(x[:whole], (-1, each, *x.shape[1:])) for x in (images, gradient)]
    total, _ = lax.scan(add, total, in_parts)
    if whole < batch:
        total, _ = add(total, (images[whole:], gradient[whole:]))
    return jnp.reshape(total.T, like.shape).astype(like.dtype)


def _taps(images, size: tuple[int, ...], window: _Window) -> Iterator[jax.Array]:
    """For each position in the window, what the kernel meets there: [batch, places of the output..., inputs]."""
    around = [(0, 0, 0), *((low, high, 0) for low, high in window.padding), (0, 0, 0)]
    images = lax.pad(images, np.zeros((), images.dtype), around)
    for index in np.ndindex(*size):
        at = zip(index, size, window.dilation, images.shape[1:-1], window.strides, strict=True)
        slices = (slice(i * step, n - (k - 1 - i) * step, stride) for i, k, step, n, stride in at)
        yield images[:, *slices]


def _channels_last(rank: int) -> lax.ConvDimensionNumbers:
    places = tuple(range(rank))
    outer = (0, rank + 1, *(place + 1 for place in places))
    return lax.ConvDimensionNumbers(outer, (rank + 1, rank, *places), outer)
