"""The convolution of all networks here: XLA's, but on a CPU its gradients are taken by matrix products.

XLA on a CPU takes the gradient of a kernel by a convolution whose window is the whole image, for which it lays out all
images anew. Here a few images at a time are unfolded into their patches P, and one product gives their share of it:

    y = P·K,    ∂L/∂K = Pᵀ·∂L/∂y

Where the window is larger than the image, as in the last layers of VGG, XLA on a CPU has plain loops only. There the
convolution itself is a sum of products, one for each position in the window.
"""

import functools
import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

ROWS = 512
"""Places of the output that one product sums over: with fewer, adding up takes longer; with more, caches overflow."""


def convolution(
    images, kernel, strides, padding, *, lhs_dilation=None, rhs_dilation=None, dimension_numbers=None,
    feature_group_count=1, precision=None, **others,
):  # fmt: skip
    """`lax.conv_general_dilated`, to be given to `nnx.Conv(conv_general_dilated=...)`.

    It defines a reverse derivative: `jax.grad` works, and `jax.jvp` of that, but not `jax.jvp` of the convolution. All
    is left to XLA with groups, dilated images, channels that are not the last axis, and where a mesh
    shards arrays: a loop over a few images at a time would gather them.

    Args:
      images: [batch, places..., inputs].
      kernel: [places..., inputs, outputs].
      strides, padding, lhs_dilation, rhs_dilation, dimension_numbers, feature_group_count, precision, **others:
        as for `lax.conv_general_dilated`.

    Returns:
      [batch, places..., outputs].
    """
    by_xla = functools.partial(
        lax.conv_general_dilated, window_strides=strides, padding=padding, lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation, dimension_numbers=dimension_numbers, feature_group_count=feature_group_count,
        precision=precision, **others,
    )  # fmt: skip
    rank = images.ndim - 2
    last = (0, rank + 1, *range(1, rank + 1))
    numbers = lax.conv_dimension_numbers(images.shape, kernel.shape, dimension_numbers)
    usual = numbers == lax.ConvDimensionNumbers(last, (rank + 1, rank, *range(rank)), last) and feature_group_count == 1
    usual &= not {*(lhs_dilation or ())} - {1} and not any(others.values())
    meshes = jax.sharding.get_abstract_mesh(), jax.typeof(images).sharding.mesh
    if not usual or any(map(_shards, meshes)):
        return by_xla(images, kernel)

    dilation = tuple(rhs_dilation or (1,) * rank)
    extent = [(size - 1) * step + 1 for size, step in zip(kernel.shape, dilation, strict=False)]
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(images.shape[1:-1], extent, strides, padding)
    taps = functools.partial(_taps, size=kernel.shape[:-2], strides=strides, padding=padding, dilation=dilation)

    def by_products(images, kernel):
        weights = jnp.reshape(kernel, (-1, *kernel.shape[-2:]))
        return sum(jnp.matmul(*pair, precision=precision) for pair in zip(taps(images), weights, strict=True))

    def forward(images, kernel):
        if all(window <= places for window, places in zip(extent, images.shape[1:-1], strict=True)):
            return by_xla(images, kernel)
        return lax.platform_dependent(images, kernel, cpu=by_products, default=by_xla)

    def backward(operands, gradient):
        images, kernel = operands
        gradients = functools.partial(_gradient_of_kernel, taps=taps, precision=precision, like=kernel)
        transposed = lambda images, gradient: jax.linear_transpose(lambda own: by_xla(images, own), kernel)(gradient)[0]
        (of_images,) = jax.linear_transpose(lambda own: forward(own, kernel), images)(gradient)
        return of_images, lax.platform_dependent(images, gradient, cpu=gradients, default=transposed)

    own = jax.custom_vjp(forward)
    own.defvjp(lambda *operands: (forward(*operands), operands), backward)
    return own(images, kernel)


def _shards(mesh: jax.sharding.AbstractMesh) -> bool:
    """Whether arrays are parts of larger ones, and the program is not written for the parts as in `jax.pmap`."""
    whole = mesh.empty or (mesh.size == 1 and mesh.are_all_axes_auto)
    return not whole and not mesh.are_all_axes_manual


def _taps(images, *, size, strides, padding, dilation) -> Iterator[jax.Array]:
    """For each position in the window what the kernel meets there: [batch, places of the output..., inputs]."""
    images = lax.pad(images, np.zeros((), images.dtype), [(0, 0, 0), *((*ends, 0) for ends in padding), (0, 0, 0)])
    for index in np.ndindex(*size):
        axes = zip(index, size, dilation, strides, images.shape[1:-1], strict=True)
        yield images[:, *(slice(i * step, n - (k - 1 - i) * step, stride) for i, k, step, stride, n in axes)]


def _gradient_of_kernel(images, gradient, *, taps, precision, like):
    dtype = jnp.promote_types(gradient.dtype, "float32")
    axes = tuple(range(gradient.ndim - 1))

    def add(total, part):
        images, gradient = part
        patches = jnp.concatenate(list(taps(images)), axis=-1)
        # The shorter matrix on the left: with the patches there, XLA takes up to half as long again.
        product = lax.dot_general(
            gradient, patches, ((axes, axes), ((), ())), precision=precision, preferred_element_type=dtype
        )
        return total + product, None

    each = max(1, min(len(images), ROWS // max(1, math.prod(gradient.shape[1:-1]))))
    whole = len(images) - len(images) % each
    parts = [jnp.reshape(x[:whole], (-1, each, *x.shape[1:])) for x in (images, gradient)]
    total, _ = lax.scan(add, jnp.zeros((like.shape[-1], math.prod(like.shape[:-1])), dtype), parts)
    if whole < len(images):
        total, _ = add(total, (images[whole:], gradient[whole:]))
    return jnp.reshape(total.T, like.shape).astype(like.dtype)
