"""Initialisations, convolutions and batch normalisations, as the published codes have them."""

import functools

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from .convolution import convolution

# He et al. (arXiv 1502.01852), by the outgoing connections; torchvision's for convolutions.
he_normal = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")
# Uniform in ±1/√fan_in: PyTorch's default, and so the published recipe's. Flax's default has three times the variance.
torch_uniform = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
Conv = functools.partial(nnx.Conv, conv_general_dilated=convolution)


def every(widths: tuple[int, ...], layers: int) -> tuple[int, ...]:
    """A width for each of so many layers: as given, or the one given for all."""
    if len(widths) not in (1, layers):
        raise ValueError(f"widths: expected one, or one for each of {layers} layers, got {len(widths)}: {widths}.")
    return widths * layers if len(widths) == 1 else tuple(widths)


def conv(inputs: int, outputs: int, size: int, stride: int, *, groups=1, bias=False, dtype: DTypeLike, rngs: nnx.Rngs):
    """A size×size convolution, padded by size // 2 on every side: where the stride is 2, SAME pads otherwise."""
    return Conv(
        inputs, outputs, (size, size), strides=stride, padding=size // 2, feature_group_count=groups, use_bias=bias,
        dtype=dtype, kernel_init=he_normal, rngs=rngs,
    )  # fmt: skip


def batch_norm(features: int, *, rngs: nnx.Rngs):
    """In float32 whatever the input: Flax would round the running statistics to a dtype given here."""
    return nnx.BatchNorm(features, momentum=0.9, epsilon=1e-5, rngs=rngs)


class ConvNorm(nnx.Module):
    """A convolution, by default without bias, and its batch normalisation."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        stride: int = 1,
        *,
        groups: int = 1,
        bias: bool = False,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.conv = conv(inputs, outputs, size, stride, groups=groups, bias=bias, dtype=dtype, rngs=rngs)
        self.norm = batch_norm(outputs, rngs=rngs)
        self.dtype = dtype

    def __call__(self, x):
        return self.norm(self.conv(x)).astype(self.dtype)
