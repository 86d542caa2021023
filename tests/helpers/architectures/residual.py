"""Residual networks: everything added to one stream is coupled, through projections, slices, pads and norms."""

import flax.linen as nn
import jax.numpy as jnp
from flax import nnx

from ._random import linen_triple, nnx_triple, normal


class ConvNorm(nnx.Module):
    def __init__(self, inputs, outputs, size, stride, rngs):
        self.conv = nnx.Conv(inputs, outputs, (size, size), strides=stride, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(outputs, use_running_average=True, rngs=rngs)

    def __call__(self, x):
        return self.norm(self.conv(x))


class Projection(nnx.Module):
    """The shortcut that most users take."""

    def __init__(self, inputs, outputs, stride, rngs):
        self.identity = stride == 1 and inputs == outputs
        if not self.identity:
            self.projection = ConvNorm(inputs, outputs, 1, stride, rngs)

    def __call__(self, x):
        return x if self.identity else self.projection(x)


class OptionA(nnx.Module):
    """The shortcut without parameters: every other pixel, and the old channels amid zeros."""

    def __init__(self, inputs, outputs, stride, rngs):
        self.stride, self.pad = stride, (outputs - inputs) // 2

    def __call__(self, x):
        x = x[:, :: self.stride, :: self.stride]
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (self.pad, self.pad)))


class Basic(nnx.Module):
    def __init__(self, inputs, width, stride, shortcut, rngs):
        self.conv1 = ConvNorm(inputs, width, 3, stride, rngs)
        self.conv2 = ConvNorm(width, width, 3, 1, rngs)
        self.shortcut = shortcut(inputs, width, stride, rngs)

    def __call__(self, x):
        return nnx.relu(self.conv2(nnx.relu(self.conv1(x))) + self.shortcut(x))


class Bottleneck(nnx.Module):
    def __init__(self, inputs, width, stride, shortcut, rngs):
        self.conv1 = ConvNorm(inputs, width // 4, 1, 1, rngs)
        self.conv2 = ConvNorm(width // 4, width // 4, 3, stride, rngs)
        self.conv3 = ConvNorm(width // 4, width, 1, 1, rngs)
        self.shortcut = shortcut(inputs, width, stride, rngs)

    def __call__(self, x):
        return nnx.relu(self.conv3(nnx.relu(self.conv2(nnx.relu(self.conv1(x))))) + self.shortcut(x))


class ResNet(nnx.Module):
    def __init__(self, rngs, block, stages, *, stem=8, large=False, shortcut=Projection, classes=4):
        self.large = large  # The stem of ImageNet: 7 × 7, strided, pooled.
        self.stem = ConvNorm(3, stem, 7 if large else 3, 2 if large else 1, rngs)
        blocks, inputs = [], stem
        for stage, (depth, width) in enumerate(stages):
            for i in range(depth):
                blocks.append(block(inputs, width, 2 if stage and not i else 1, shortcut, rngs))
                inputs = width
        self.blocks = nnx.Sequential(*blocks)
        self.head = nnx.Linear(inputs, classes, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.stem(x))
        if self.large:
            x = nnx.max_pool(x, (3, 3), (2, 2), padding="SAME")
        return self.head(self.blocks(x).mean((1, 2)))


class PreActivationResNet(nn.Module):
    """The stream itself is never normalised: only what is read from it."""

    @nn.compact
    def __call__(self, x):
        def activate(x):
            return nn.relu(nn.BatchNorm(use_running_average=True)(x))

        x = nn.Conv(6, (3, 3), use_bias=False)(x)
        for width, stride in ((6, 1), (10, 2), (10, 1)):
            y = activate(x)
            if x.shape[-1] != width:
                x = nn.Conv(width, (1, 1), strides=stride, use_bias=False)(y)
            y = activate(nn.Conv(width, (3, 3), strides=stride, use_bias=False)(y))
            x = x + nn.Conv(width, (3, 3), use_bias=False)(y)
        return nn.Dense(4)(activate(x).mean((1, 2)))


def resnet50():
    """The full network on one image; too slow for every test."""
    stages = ((3, 256), (4, 512), (6, 1024), (3, 2048))
    return nnx_triple(
        lambda rngs: ResNet(rngs, Bottleneck, stages, stem=64, large=True, classes=1000), normal(1, 32, 32, 3)
    )


def small(block, stages, shortcut=Projection):
    return nnx_triple(lambda rngs: ResNet(rngs, block, stages, shortcut=shortcut), normal(2, 8, 8, 3))


ARCHITECTURES = {
    "resnet": lambda: small(Basic, ((2, 8), (2, 12))),
    "resnet_option_a": lambda: small(Basic, ((1, 8), (2, 12)), OptionA),
    "resnet_bottleneck": lambda: small(Bottleneck, ((2, 16), (1, 24))),
    "resnet_pre_activation": lambda: linen_triple(PreActivationResNet(), normal(2, 8, 8, 3)),
}
