"""Residual networks: for 32×32 images, 6n + 2 layers with 16, 32 and 64 channels, or wide; and for ImageNet.

Sources: He et al., "Deep Residual Learning for Image Recognition" (arXiv 1512.03385), sections 4.1 and 4.2; Zagoruyko
and Komodakis, "Wide Residual Networks" (arXiv 1605.07146).
"""

import functools
from typing import Any, Literal

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from .layers import ConvNorm, batch_norm, conv, every, torch_uniform


class Block(nnx.Module):
    """Two 3×3 convolutions around which the input is carried, or projected, or padded with zero channels."""

    def __init__(
        self,
        inputs: int,
        width: int,
        stride: int,
        shortcut: Literal["identity", "projection"],
        inner: int | None = None,
        *,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        inner = inner or width
        self.conv1 = ConvNorm(inputs, inner, 3, stride, dtype=dtype, rngs=rngs)
        self.conv2 = ConvNorm(inner, width, 3, 1, dtype=dtype, rngs=rngs)
        self.stride, self.padding, self.outputs = stride, (width - inputs) // 2, width
        if shortcut == "projection" and (inputs != width or stride != 1):
            self.shortcut = ConvNorm(inputs, width, 1, stride, dtype=dtype, rngs=rngs)

    def __call__(self, x):
        y = self.conv2(nnx.relu(self.conv1(x)))
        if hasattr(self, "shortcut"):
            x = self.shortcut(x)
        elif self.padding:
            x = jnp.pad(x[:, :: self.stride, :: self.stride], ((0, 0), (0, 0), (0, 0), (self.padding, self.padding)))
        return nnx.relu(x + y)


class Bottleneck(nnx.Module):
    """1×1, 3×3 and 1×1 convolutions, the last to 4·width channels; the 3×3 one takes the stride, as in torchvision."""

    def __init__(self, inputs: int, width: int, stride: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.outputs = 4 * width
        self.conv1 = ConvNorm(inputs, width, 1, 1, dtype=dtype, rngs=rngs)
        self.conv2 = ConvNorm(width, width, 3, stride, dtype=dtype, rngs=rngs)
        self.conv3 = ConvNorm(width, self.outputs, 1, 1, dtype=dtype, rngs=rngs)
        if inputs != self.outputs:
            self.shortcut = ConvNorm(inputs, self.outputs, 1, stride, dtype=dtype, rngs=rngs)

    def __call__(self, x):
        y = self.conv3(nnx.relu(self.conv2(nnx.relu(self.conv1(x)))))
        if hasattr(self, "shortcut"):
            x = self.shortcut(x)
        return nnx.relu(x + y)


class WideBlock(nnx.Module):
    """Two 3×3 convolutions, each normalised before it; a projection shares the first normalisation."""

    def __init__(self, inputs: int, width: int, stride: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.norm1 = batch_norm(inputs, rngs=rngs)
        self.conv1 = conv(inputs, width, 3, stride, dtype=dtype, rngs=rngs)
        self.norm2 = batch_norm(width, rngs=rngs)
        self.conv2 = conv(width, width, 3, 1, dtype=dtype, rngs=rngs)
        self.outputs = width
        if inputs != width:
            self.shortcut_conv = conv(inputs, width, 1, stride, dtype=dtype, rngs=rngs)

    def __call__(self, x):
        y = nnx.relu(self.norm1(x))
        if hasattr(self, "shortcut_conv"):
            x = self.shortcut_conv(y)
        return x + self.conv2(nnx.relu(self.norm2(self.conv1(y))))


def stages(
    block, inputs: int, widths: tuple[int, ...], counts: tuple[int, ...], inner: list[int] | None = None
) -> nnx.Sequential:
    """`counts` blocks of each of `widths`; the first block of every stage but the first halves the image.

    `inner`: the number of channels inside of each block.
    """
    blocks = []
    for stage, (width, count) in enumerate(zip(widths, counts, strict=True)):
        for i in range(count):
            options = {} if inner is None else {"inner": inner[len(blocks)]}
            blocks.append(block(inputs, width, 2 if stage > 0 and i == 0 else 1, **options))
            inputs = blocks[-1].outputs
    return nnx.Sequential(*blocks)


class ResNet(nnx.Module):
    """depth = 6n + 2. With identity shortcuts, as published, ResNet-8 has 75,290 parameters and ResNet-20 269,722;
    projected, ResNet-20 has 272,474.

    `widths` has one for all layers, or one for each in the order in which an image meets them: the first stage, the
    first convolution of each of its blocks, the first convolution of the second stage, that stage, and so on. What
    changes size is then projected.
    """

    input_shape = (32, 32, 3)
    any_size = True

    def __init__(
        self,
        depth: int = 20,
        shortcut: Literal["identity", "projection"] = "identity",
        classes: int = 10,
        widths: tuple[int, ...] | None = None,
        *,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        count = (depth - 2) // 6
        block = functools.partial(Block, shortcut=shortcut if widths is None else "projection", dtype=dtype, rngs=rngs)
        if widths is None:
            streams, inner = (16, 32, 64), None
        else:
            streams, inner = _placed(every(widths, 3 + 3 * count), count)
        self.stem = ConvNorm(3, streams[0], 3, 1, dtype=dtype, rngs=rngs)
        self.blocks = stages(block, streams[0], streams, 3 * (count,), inner)
        self.head = nnx.Linear(streams[-1], classes, kernel_init=torch_uniform, rngs=rngs)

    @staticmethod
    def published_widths(depth: int) -> tuple[int, ...]:
        return tuple(width for width in (16, 32, 64) for _ in range(1 + (depth - 2) // 6))

    def __call__(self, x):
        x = self.blocks(nnx.relu(self.stem(x)))
        return self.head(jnp.mean(x, axis=(1, 2), dtype=jnp.float32))


def _placed(widths: tuple[int, ...], count: int) -> tuple[tuple[int, ...], list[int]]:
    """(widths of the three stages, of the first convolutions of their blocks)."""
    at = (0, 2 + count, 3 + 2 * count)
    return tuple(widths[i] for i in at), [width for i, width in enumerate(widths) if i not in at]


class WideResNet(nnx.Module):
    """depth = 6n + 4, and `wide` times the channels of ResNet. WRN-28-10 has 36,479,194 parameters."""

    input_shape = (32, 32, 3)
    any_size = True

    def __init__(
        self, depth: int = 22, wide: int = 2, classes: int = 10, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ):
        block = functools.partial(WideBlock, dtype=dtype, rngs=rngs)
        self.stem_conv = conv(3, 16, 3, 1, dtype=dtype, rngs=rngs)
        self.blocks = stages(block, 16, (16 * wide, 32 * wide, 64 * wide), 3 * ((depth - 4) // 6,))
        self.norm = batch_norm(64 * wide, rngs=rngs)
        self.head = nnx.Linear(64 * wide, classes, kernel_init=torch_uniform, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.blocks(self.stem_conv(x))))
        return self.head(jnp.mean(x, axis=(1, 2)))


class ImageNetResNet(nnx.Module):
    """As in torchvision: ResNet-18 has 11,689,512 parameters, ResNet-34 21,797,672 and ResNet-50 25,557,032."""

    input_shape = (224, 224, 3)
    _stem = 7, 2  # size and stride

    def __init__(self, depth: int = 50, classes: int = 1000, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        block = Bottleneck if depth == 50 else functools.partial(Block, shortcut="projection")
        counts = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}[depth]
        self.stem = ConvNorm(3, 64, *self._stem, dtype=dtype, rngs=rngs)
        self.blocks = stages(functools.partial(block, dtype=dtype, rngs=rngs), 64, (64, 128, 256, 512), counts)
        self.head = nnx.Linear(2048 if depth == 50 else 512, classes, kernel_init=torch_uniform, rngs=rngs)

    def __call__(self, x):
        around: Any = ((1, 1), (1, 1))  # Flax's default makes it a str to the type checker
        x = nnx.max_pool(nnx.relu(self.stem(x)), (3, 3), (2, 2), around)
        return self.head(jnp.mean(self.blocks(x), axis=(1, 2), dtype=jnp.float32))


class SmallImageResNet(ImageNetResNet):
    """The same for 32×32 images, with a 3×3 stem and no pooling: ResNet-18 has 11,173,962 parameters, ResNet-50
    23,520,842 for 10 classes."""

    input_shape = (32, 32, 3)
    any_size = True
    _stem = 3, 1

    def __init__(self, depth: int = 18, classes: int = 10, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        super().__init__(depth, classes, dtype=dtype, rngs=rngs)

    def __call__(self, x):
        return self.head(jnp.mean(self.blocks(nnx.relu(self.stem(x))), axis=(1, 2), dtype=jnp.float32))
