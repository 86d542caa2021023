"""The convolution of all networks here: XLA's, but on a CPU its gradients are taken in a way that is faster there.

The gradients are convolutions themselves: of the images, by the kernel turned round; of the kernel, one whose window is
the whole image, of the images whose places in the batch are their channels:

    y[n] = Σ_c x[n, c] * K[c],    ∂L/∂K[c] = Σ_n x[n, c] * ∂L/∂y[n]

XLA on a CPU has fast code for channels that are the last axis alone. Outside of loops it turns the operands so; in a
`lax.scan`, where the training steps are, it does not, and has slow loops for it. Here they are turned beforehand, and
for the kernel a few images at a time, so that they stay in the caches. XLA has slow loops as well for images of one
channel, for a window that covers the image, as in LeNet's last convolution, and for one that is larger than it, as in
the last layers of VGG: there the convolution is a sum of products, one for each position in the window.
"""

import functools
import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

IMAGES = 32
"""Over which one convolution sums the gradient of a kernel: with fewer, adding up takes longer; with more, caches
overflow."""
TERMS = 32
"""Of images of one channel, where an output is a sum of so few terms, all are added in one pass over an image."""

NARROW = 16
"""Channels: with fewer as the result of a convolution, the vectors of a processor are not full."""


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
    numbers = _channels_last(rank)
    turned = numbers._replace(rhs_spec=(rank, rank + 1, *range(rank)))
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
    narrow = rank > 1 and not covered and images.shape[-1] < NARROW and {*strides, *dilation} == {1}
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
        if narrow:
            of_images = _gradient_of_images(kernel, gradient, images.shape, pads, precision)
        else:
            of = by_products if covered else lambda images, kernel: by_xla(
                images, jnp.swapaxes(kernel, -2, -1), dimension_numbers=turned
            )  # fmt: skip
            (of_images,) = jax.linear_transpose(lambda images: of(images, kernel), images)(gradient)
        of_kernel = _gradient_of_kernel(images, gradient, kernel.shape[:-2], strides, pads, dilation, precision)
        return of_images, of_kernel.astype(kernel.dtype)

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


def _gradient_of_images(kernel, gradient, shape, padding, precision):
    """Where images have few channels and windows go by steps of one: of `shape`, [batch, places..., inputs].

    One convolution along all axes of places but the first finds what each row of the window adds, as channels.
    """
    size, *others, inputs, outputs = kernel.shape
    rank = len(others) + 1
    turned = jnp.flip(kernel, range(1, rank))
    turned = jnp.reshape(jnp.moveaxis(turned, (0, -1), (-2, -3)), (1, *others, outputs, size * inputs))
    edges = [(0, 0, 0), (0, 0, 0)]
    for k, n, out, (before, _) in zip(others, shape[2:-1], gradient.shape[2:-1], padding[1:], strict=True):
        edges.append((k - 1 - before, n - out + before, 0))
    found = lax.conv_general_dilated(
        lax.pad(gradient, np.zeros((), gradient.dtype), [*edges, (0, 0, 0)]), turned, (1,) * rank, "VALID",
        dimension_numbers=_channels_last(rank), precision=precision,
    )  # fmt: skip
    total = jnp.zeros(shape, gradient.dtype)
    for row in range(size):
        part = found[..., row * inputs : (row + 1) * inputs]
        start = row - padding[0][0]
        ends = [(0, 0, 0), (start, shape[1] - part.shape[1] - start, 0), *((0, 0, 0) for _ in shape[2:])]
        total += lax.pad(part, np.zeros((), part.dtype), ends)
    return total


def _gradient_of_kernel(images, gradient, size, strides, padding, dilation, precision):
    """[places..., inputs, outputs], in float32 at least."""
    rank, dtype = images.ndim - 2, jnp.promote_types(gradient.dtype, "float32")
    places, last = tuple(range(1, rank + 1)), rank + 1
    # The last rows are left out that no window reaches; where windows go beyond the padding, they have seen no output.
    ends = [
        (size - 1) * step + (outputs - 1) * stride + 1 - inputs - before
        for size, step, outputs, stride, inputs, (before, _) in zip(
            size, dilation, gradient.shape[1:-1], strides, images.shape[1:-1], padding, strict=True
        )
    ]
    edges = [(0, 0, 0), *((before, end, 0) for (before, _), end in zip(padding, ends, strict=True)), (0, 0, 0)]
    correlate = functools.partial(
        lax.conv_general_dilated, window_strides=dilation, padding="VALID", rhs_dilation=strides,
        dimension_numbers=_channels_last(rank), precision=precision,
    )  # fmt: skip

    def of(images, gradient):
        images, gradient = images.astype(dtype), gradient.astype(dtype)
        images = lax.pad(images, np.zeros((), dtype), edges)
        return correlate(jnp.transpose(images, (last, *places, 0)), jnp.transpose(gradient, (*places, 0, last)))

    def add(total, start):
        return total + of(*(lax.dynamic_slice_in_dim(x, start, each) for x in (images, gradient))), None

    each = max(1, min(len(images), IMAGES))
    rest = len(images) % each
    total = jnp.zeros((images.shape[-1], *size, gradient.shape[-1]), dtype)
    if rest:
        total += of(images[:rest], gradient[:rest])
    total, _ = lax.scan(add, total, jnp.arange(rest, len(images), each))
    return jnp.moveaxis(total, 0, rank)


def _channels_last(rank: int) -> lax.ConvDimensionNumbers:
    last, places = (0, rank + 1, *range(1, rank + 1)), tuple(range(rank))
    return lax.ConvDimensionNumbers(last, (rank + 1, rank, *places), last)
