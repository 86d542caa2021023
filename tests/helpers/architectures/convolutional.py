"""Convolutions in chains, groups and concatenations. Residual networks proper are in `residual.py`."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from experiments.models.convolution import convolution

from ._random import fill, linen_triple, nnx_triple, normal


def norm(channels, rngs):
    return nnx.BatchNorm(channels, use_running_average=True, rngs=rngs)


class LeNet(nnx.Module):
    def __init__(self, rngs):
        self.conv1 = nnx.Conv(1, 6, (5, 5), rngs=rngs)
        self.conv2 = nnx.Conv(6, 8, (3, 3), padding="VALID", rngs=rngs)
        self.conv3 = nnx.Conv(8, 10, (3, 3), rngs=rngs)
        self.dense1 = nnx.Linear(3 * 3 * 10, 12, rngs=rngs)
        self.dense2 = nnx.Linear(12, 5, rngs=rngs)

    def __call__(self, x):
        x = nnx.max_pool(nnx.relu(self.conv1(x)), (2, 2), (2, 2))
        x = nnx.max_pool(nnx.relu(self.conv2(x)), (2, 2), (2, 2))
        x = nnx.relu(self.conv3(x)).reshape(x.shape[0], -1)  # Each channel becomes nine features, interleaved.
        return self.dense2(nnx.relu(self.dense1(x)))


class VGG(nn.Module):
    blocks: tuple[tuple[int, ...], ...]
    hidden: tuple[int, ...]
    classes: int

    @nn.compact
    def __call__(self, x):
        for widths in self.blocks:
            for width in widths:
                x = nn.relu(nn.BatchNorm(use_running_average=True)(nn.Conv(width, (3, 3))(x)))
            x = nn.max_pool(x, (2, 2), (2, 2))
        x = x.reshape(x.shape[0], -1)
        for width in self.hidden:
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(self.classes)(x)


def vgg16():
    """The full network for CIFAR-sized images; too slow for every test."""
    blocks = ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)
    return linen_triple(VGG(blocks, (4096, 4096), 1000), normal(1, 32, 32, 3))


class UNet(nnx.Module):
    def __init__(self, rngs):
        self.encoder1 = nnx.Conv(2, 6, (3, 3), rngs=rngs)
        self.encoder2 = nnx.Conv(6, 8, (3, 3), kernel_dilation=2, rngs=rngs)
        self.bottom = nnx.Conv(8, 10, (3, 3), rngs=rngs)
        self.up = nnx.ConvTranspose(10, 7, (2, 2), strides=(2, 2), rngs=rngs)
        self.decoder = nnx.Conv(7 + 6, 6, (3, 3), rngs=rngs)
        self.head = nnx.Conv(6, 3, (1, 1), rngs=rngs)

    def __call__(self, x):
        skip = nnx.relu(self.encoder1(x))
        x = nnx.relu(self.encoder2(nnx.avg_pool(skip, (2, 2), (2, 2))))
        x = nnx.relu(self.up(nnx.relu(self.bottom(x))))
        return self.head(nnx.relu(self.decoder(jnp.concatenate([x, skip], -1))))


class GroupNormNet(nnx.Module):
    def __init__(self, rngs):
        self.conv1 = nnx.Conv(3, 8, (3, 3), rngs=rngs)
        self.norm1 = nnx.GroupNorm(8, num_groups=2, rngs=rngs)
        self.conv2 = nnx.Conv(8, 12, (3, 3), strides=2, rngs=rngs)
        self.norm2 = nnx.GroupNorm(12, num_groups=4, rngs=rngs)
        self.head = nnx.Linear(12, 4, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm1(self.conv1(x)))
        x = nnx.relu(self.norm2(self.conv2(x)))
        return self.head(x.mean((1, 2)))


class DenseNet(nn.Module):
    growth: int = 4

    @nn.compact
    def __call__(self, x):
        def conv(x, width, size):
            x = nn.relu(nn.BatchNorm(use_running_average=True)(x))
            return nn.Conv(width, (size, size), use_bias=False)(x)

        x = nn.Conv(6, (3, 3))(x)
        for block in range(2):
            if block:
                x = nn.avg_pool(conv(x, 8, 1), (2, 2), (2, 2))
            for _ in range(2):
                x = jnp.concatenate([x, conv(conv(x, 2 * self.growth, 1), self.growth, 3)], -1)
        return nn.Dense(4)(nn.relu(nn.BatchNorm(use_running_average=True)(x)).mean((1, 2)))


def depthwise():
    """Two filters for every channel: output channels 2k and 2k + 1 read input channel k."""
    layers = {"stem": ((3, 3, 3, 6), 1), "depthwise": ((3, 3, 1, 12), 6), "pointwise": ((1, 1, 12, 8), 1)}
    shapes = {name: {"kernel": shape, "bias": shape[-1:]} for name, (shape, _) in layers.items()}
    params = fill({**shapes, "head": {"kernel": (8, 4), "bias": (4,)}})

    def fn(params, x):
        for name, (_, groups) in layers.items():
            x = lax.conv_general_dilated(
                x,
                params[name]["kernel"],
                window_strides=(1, 1),
                padding="SAME",
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                feature_group_count=groups,
            )
            x = jax.nn.relu(x + params[name]["bias"].reshape(1, 1, 1, -1))
        return x.mean((1, 2)) @ params["head"]["kernel"] + params["head"]["bias"][None]

    return fn, params, (normal(2, 8, 8, 3),)


class ResNeXt(nnx.Module):
    """One block with a grouped 3 × 3 convolution between a stem and a head."""

    def __init__(self, rngs, groups=4):
        self.stem = nnx.Conv(3, 8, (3, 3), rngs=rngs)
        self.conv1, self.norm1 = nnx.Conv(8, 16, (1, 1), use_bias=False, rngs=rngs), norm(16, rngs)
        self.conv2 = nnx.Conv(16, 16, (3, 3), use_bias=False, feature_group_count=groups, rngs=rngs)
        self.norm2 = norm(16, rngs)
        self.conv3, self.norm3 = nnx.Conv(16, 8, (1, 1), use_bias=False, rngs=rngs), norm(8, rngs)
        self.head = nnx.Linear(8, 4, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.stem(x))
        y = nnx.relu(self.norm1(self.conv1(x)))
        y = nnx.relu(self.norm2(self.conv2(y)))
        x = nnx.relu(x + self.norm3(self.conv3(y)))
        return self.head(x.mean((1, 2)))


class InvertedResidual(nnx.Module):
    def __init__(self, inputs, outputs, stride, expansion, rngs):
        hidden = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.expand, self.norm1 = nnx.Conv(inputs, hidden, (1, 1), use_bias=False, rngs=rngs), norm(hidden, rngs)
        self.depthwise = nnx.Conv(
            hidden, hidden, (3, 3), strides=stride, feature_group_count=hidden, use_bias=False, rngs=rngs
        )
        self.norm2 = norm(hidden, rngs)
        self.project, self.norm3 = nnx.Conv(hidden, outputs, (1, 1), use_bias=False, rngs=rngs), norm(outputs, rngs)

    def __call__(self, x):
        y = nnx.relu6(self.norm1(self.expand(x)))
        y = nnx.relu6(self.norm2(self.depthwise(y)))
        y = self.norm3(self.project(y))
        return x + y if self.residual else y


class MobileNetV2(nnx.Module):
    def __init__(self, rngs):
        self.stem, self.norm = nnx.Conv(3, 6, (3, 3), strides=2, use_bias=False, rngs=rngs), norm(6, rngs)
        self.blocks = nnx.Sequential(
            InvertedResidual(6, 6, 1, 2, rngs),
            InvertedResidual(6, 8, 2, 2, rngs),
            InvertedResidual(8, 8, 1, 2, rngs),
        )
        self.head = nnx.Linear(8, 4, rngs=rngs)

    def __call__(self, x):
        return self.head(self.blocks(nnx.relu6(self.norm(self.stem(x)))).mean((1, 2)))


class ShuffleNet(nn.Module):
    groups: int = 2

    @nn.compact
    def __call__(self, x):
        def conv(x, width, size, groups):
            x = nn.Conv(width, (size, size), feature_group_count=groups, use_bias=False)(x)
            return nn.BatchNorm(use_running_average=True)(x)

        x = nn.relu(conv(x, 8, 3, 1))
        for _ in range(2):
            y = nn.relu(conv(x, 12, 1, self.groups))
            y = y.reshape(*y.shape[:3], self.groups, -1).swapaxes(3, 4).reshape(y.shape)  # The shuffle.
            y = conv(conv(y, 12, 3, 12), 8, 1, self.groups)
            x = nn.relu(x + y)
        return nn.Dense(4)(x.mean((1, 2)))


class ConvNeXtBlock(nnx.Module):
    def __init__(self, width, rngs):
        self.depthwise = nnx.Conv(width, width, (7, 7), feature_group_count=width, rngs=rngs)
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.dense1 = nnx.Linear(width, 4 * width, rngs=rngs)
        self.dense2 = nnx.Linear(4 * width, width, rngs=rngs)
        self.gamma = nnx.Param(jnp.ones(width))

    def __call__(self, x):
        y = self.dense2(nnx.gelu(self.dense1(self.norm(self.depthwise(x)))))
        return x + y * self.gamma[...].reshape(1, 1, 1, -1)


class ConvNeXt(nnx.Module):
    def __init__(self, rngs):
        self.stem, self.norm1 = nnx.Conv(3, 4, (2, 2), strides=2, rngs=rngs), nnx.LayerNorm(4, rngs=rngs)
        self.block1 = ConvNeXtBlock(4, rngs)
        self.norm2, self.down = nnx.LayerNorm(4, rngs=rngs), nnx.Conv(4, 6, (2, 2), strides=2, rngs=rngs)
        self.block2 = ConvNeXtBlock(6, rngs)
        self.norm3, self.head = nnx.LayerNorm(6, rngs=rngs), nnx.Linear(6, 4, rngs=rngs)

    def __call__(self, x):
        x = self.block1(self.norm1(self.stem(x)))
        x = self.block2(self.down(self.norm2(x)))
        return self.head(self.norm3(x.mean((1, 2))))


class SqueezeExcitation(nn.Module):
    @nn.compact
    def __call__(self, x):
        for width in (8, 12):
            x = nn.relu(nn.BatchNorm(use_running_average=True)(nn.Conv(width, (3, 3))(x)))
            gate = nn.Dense(width)(nn.relu(nn.Dense(width // 4)(x.mean((1, 2)))))
            x = nn.max_pool(x * nn.sigmoid(gate)[:, None, None], (2, 2), (2, 2))
        return nn.Dense(4)(x.mean((1, 2)))


class OwnGradient(nnx.Module):
    """Convolutions with a derivative of their own, the last with a window larger than its image, which a CPU does by
    products; a shortcut pads channels, so that the program has to be rewritten."""

    def __init__(self, rngs):
        conv = lambda inputs, outputs: nnx.Conv(
            inputs, outputs, (3, 3), conv_general_dilated=convolution, use_bias=False, rngs=rngs
        )
        self.conv1, self.norm1 = conv(3, 6), norm(6, rngs)
        self.conv2, self.norm2 = conv(6, 8), norm(8, rngs)
        self.conv3, self.norm3 = conv(8, 10), norm(10, rngs)
        self.head = nnx.Linear(10, 4, rngs=rngs)

    def __call__(self, x):
        x = nnx.max_pool(nnx.relu(self.norm1(self.conv1(x))), (2, 2), (2, 2))
        y = nnx.max_pool(nnx.relu(self.norm2(self.conv2(x))), (2, 2), (2, 2))
        x = nnx.avg_pool(x, (2, 2), (2, 2))
        x = nnx.relu(self.norm3(self.conv3(y)) + jnp.pad(x, ((0, 0), (0, 0), (0, 0), (2, 2))))
        return self.head(x.mean((1, 2)))


ARCHITECTURES = {
    "own_gradient": lambda: nnx_triple(OwnGradient, normal(2, 8, 8, 3)),
    "lenet": lambda: nnx_triple(LeNet, normal(2, 16, 16, 1)),
    "vgg": lambda: linen_triple(VGG(((6, 8), (8, 10)), (12,), 4), normal(2, 8, 8, 3)),
    "unet": lambda: nnx_triple(UNet, normal(2, 8, 8, 2)),
    "group_norm": lambda: nnx_triple(GroupNormNet, normal(2, 8, 8, 3)),
    "densenet": lambda: linen_triple(DenseNet(), normal(2, 8, 8, 3)),
    "depthwise": depthwise,
    "resnext": lambda: nnx_triple(ResNeXt, normal(2, 8, 8, 3)),
    "mobilenet_v2": lambda: nnx_triple(MobileNetV2, normal(2, 16, 16, 3)),
    "shufflenet": lambda: linen_triple(ShuffleNet(), normal(2, 8, 8, 3)),
    "convnext": lambda: nnx_triple(ConvNeXt, normal(2, 16, 16, 3)),
    "squeeze_excitation": lambda: linen_triple(SqueezeExcitation(), normal(2, 8, 8, 3)),
}
