"""The convolution of all networks here: XLA's, but on a CPU its gradients are taken in a way that is faster there.

XLA on a CPU takes the gradient of a kernel by a convolution whose window is the whole image, for which it lays out all
images anew. Here a few images at a time are unfolded into their patches P, and one product gives their share of it:

    y = P·K,    ∂L/∂K = Pᵀ·∂L/∂y

The gradient of the images is XLA's with the kernel turned beforehand: XLA on a CPU does so itself outside of loops
only, and in a `lax.scan` has slow loops for it. So it has for images of one channel, for a window that covers the
image, as in LeNet's last convolution, and for one that is larger than it, as in the last layers of VGG: there the
convolution itself is a sum of products, one for each position in the window.
"""

import functools
import math
from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

ROWS = 512
"""Places of the output that one product sums over: with fewer, adding up takes longer; with more, caches overflow."""
TERMS = 32
"""Of images of one channel, where an output is a sum of so few terms, all are added in one pass over an image."""


def convolution(images, kernel, strides, padding, *, dimension_numbers=None, rhs_dilation=None, **options):
    """`lax.conv_general_dilated`, to be given to `nnx.Conv(conv_general_dilated=...)`.

    It defines a reverse derivative: `jax.grad` works, and `jax.jvp` of that, but not `jax.jvp` of the convolution. All
    is left to XLA with groups, dilated images, channels that are not the last axis, and where a mesh shards arrays: a
    loop over a few images at a time would gather them.

    Args:
      images: [batch, places..., inputs].
      kernel: [places..., inputs, outputs].
      strides, padding, dimension_numbers, rhs_dilation, **options: as for `lax.conv_general_dilated`.

    Returns:
      [batch, places..., outputs].
    """
    by_xla = functools.partial(
        lax.conv_general_dilated, window_strides=strides, padding=padding, dimension_numbers=dimension_numbers,
        rhs_dilation=rhs_dilation, **options,
    )  # fmt: skip
    rank = images.ndim - 2
    last, places = (0, rank + 1, *range(1, rank + 1)), tuple(range(rank))
    numbers = lax.ConvDimensionNumbers(last, (rank + 1, rank, *places), last)
    turned = lax.ConvDimensionNumbers(last, (rank, rank + 1, *places), last)
    precision = options.pop("precision", None)
    plain = options.pop("feature_group_count", 1) == 1 and {*(options.pop("lhs_dilation", None) or (1,))} == {1}
    plain &= numbers == lax.conv_dimension_numbers(images.shape, kernel.shape, dimension_numbers)
    meshes = jax.sharding.get_abstract_mesh(), jax.typeof(images).sharding.mesh
    if not plain or any(options.values()) or any(map(_shards, meshes)):
        return by_xla(images, kernel)

    dilation = tuple(rhs_dilation or (1,) * rank)
    extent = [(size - 1) * step + 1 for size, step in zip(kernel.shape[:-2], dilation, strict=True)]
    fits = all(window <= size for window, size in zip(extent, images.shape[1:-1], strict=True))
    covered = not fits or math.prod(jax.eval_shape(by_xla, images, kernel).shape[1:-1]) == 1
    few = images.shape[-1] == 1 and math.prod(kernel.shape[:-1]) <= TERMS
    pads = lax.padtype_to_pads(images.shape[1:-1], extent, strides, padding) if isinstance(padding, str) else padding
    taps = functools.partial(_taps, size=kernel.shape[:-2], strides=strides, padding=pads, dilation=dilation)

    def by_products(images, kernel):
        weights = jnp.reshape(kernel, (-1, *kernel.shape[-2:]))
        pairs = zip(taps(images), weights, strict=True)
        return functools.reduce(jnp.add, (jnp.matmul(*pair, precision=precision) for pair in pairs))

    def image_by_image(images, kernel):
        # XLA takes so short a sum for so cheap that, outside of a loop, each use of it would add it up again.
        dtype = jnp.promote_types(images.dtype, "float32")
        kernel, wide = kernel.astype(dtype), images.astype(dtype)
        return lax.map(lambda image: by_products(image[None], kernel)[0].astype(images.dtype), wide)

    def forward(images, kernel):
        if not (covered or few):
            return by_xla(images, kernel)
        return lax.platform_dependent(images, kernel, cpu=image_by_image if few else by_products, default=by_xla)

    def on_cpu(images, kernel, gradient):
        of = by_products if covered else lambda images, kernel: by_xla(
            images, jnp.swapaxes(kernel, -2, -1), dimension_numbers=turned
        )  # fmt: skip
        (of_images,) = jax.linear_transpose(lambda images: of(images, kernel), images)(gradient)
        of_kernel = _gradient_of_kernel(images, gradient, taps, few, precision)
        return of_images, jnp.reshape(of_kernel.T, kernel.shape).astype(kernel.dtype)

    def by_transposition(images, kernel, gradient):
        of_images = jax.linear_transpose(lambda images: by_xla(images, kernel), images)
        of_kernel = jax.linear_transpose(lambda kernel: by_xla(images, kernel), kernel)
        return *of_images(gradient), *of_kernel(gradient)

    def backward(operands, gradient):
        return lax.platform_dependent(*operands, gradient, cpu=on_cpu, default=by_transposition)

    trained = jax.custom_vjp(forward)
    trained.defvjp(lambda *operands: (forward(*operands), operands), backward)
    return trained(images, kernel)


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


def _terms(taps: Iterable[jax.Array]) -> list[jax.Array]:
    """What each number of the kernel meets: [batch, places of the output...]."""
    return [tap[..., channel] for tap in taps for channel in range(tap.shape[-1])]


def _gradient_of_kernel(images, gradient, taps, few, precision):
    """[outputs, places·inputs], in float32 at least."""
    dtype, axes = jnp.promote_types(gradient.dtype, "float32"), tuple(range(gradient.ndim - 1))
    sums = functools.partial(lax.dot_general, precision=precision, preferred_element_type=dtype)

    def product(images, gradient):
        if few:  # whole rows of an image are copied, not a number at a time
            patches = jnp.stack(_terms(taps(images)))
            others = tuple(axis + 1 for axis in axes)
        else:
            patches, others = jnp.concatenate(list(taps(images)), axis=-1), axes
        return sums(gradient, patches, ((axes, others), ((), ())))  # the other way round it takes half as long again

    def add(total, start):
        return total + product(*(lax.dynamic_slice_in_dim(x, start, each) for x in (images, gradient))), None

    each = max(1, min(len(images), (8 if few else 1) * ROWS // max(1, math.prod(gradient.shape[1:-1]))))
    whole = len(images) - len(images) % each
    total = product(images[whole:], gradient[whole:])
    return lax.scan(add, total, jnp.arange(0, whole, each))[0]
