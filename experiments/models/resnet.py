"""Residual networks for 32×32 images: 6n + 2 layers with 16, 32 and 64 channels.

Source: He et al., "Deep Residual Learning for Image Recognition" (arXiv 1512.03385), section 4.2.
"""

from typing import Literal

import jax.numpy as jnp
from flax import nnx

kernel_init = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")


class ConvNorm(nnx.Module):
    """A convolution without bias, and its batch normalisation."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int, *, rngs: nnx.Rngs):
        self.conv = nnx.Conv(
            inputs, outputs, (size, size), strides=stride, padding=size // 2, use_bias=False,
            kernel_init=kernel_init, rngs=rngs,
        )  # fmt: skip
        self.norm = nnx.BatchNorm(outputs, momentum=0.9, epsilon=1e-5, rngs=rngs)

    def __call__(self, x):
        return self.norm(self.conv(x))


class Block(nnx.Module):
    """Two 3×3 convolutions around which the input is carried, or projected, or padded with zero channels."""

    def __init__(self, inputs: int, width: int, stride: int, shortcut: str, *, rngs: nnx.Rngs):
        self.conv1 = ConvNorm(inputs, width, 3, stride, rngs=rngs)
        self.conv2 = ConvNorm(width, width, 3, 1, rngs=rngs)
        self.stride, self.padding = stride, (width - inputs) // 2
        if inputs != width and shortcut == "projection":
            self.shortcut = ConvNorm(inputs, width, 1, stride, rngs=rngs)

    def __call__(self, x):
        y = self.conv2(nnx.relu(self.conv1(x)))
        if hasattr(self, "shortcut"):
            x = self.shortcut(x)
        elif self.padding:
            x = jnp.pad(x[:, :: self.stride, :: self.stride], ((0, 0), (0, 0), (0, 0), (self.padding, self.padding)))
        return nnx.relu(x + y)


class ResNet(nnx.Module):
    """depth = 6n + 2. With identity shortcuts, as published, ResNet-20 has 269,722 parameters; projected, 272,474."""

    image_shape = (32, 32, 3)

    def __init__(
        self,
        depth: int = 20,
        shortcut: Literal["identity", "projection"] = "identity",
        classes: int = 10,
        *,
        rngs: nnx.Rngs,
    ):
        self.stem = ConvNorm(3, 16, 3, 1, rngs=rngs)
        blocks, inputs = [], 16
        for width in (16, 32, 64):
            for i in range((depth - 2) // 6):
                blocks.append(Block(inputs, width, 2 if i == 0 and width > 16 else 1, shortcut, rngs=rngs))
                inputs = width
        self.blocks = nnx.Sequential(*blocks)
        self.head = nnx.Linear(64, classes, rngs=rngs)

    def __call__(self, x):
        x = self.blocks(nnx.relu(self.stem(x)))
        return self.head(jnp.mean(x, axis=(1, 2)))
