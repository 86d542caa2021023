"""MobileNetV2 for 32×32 images: as published, but the first two halvings are left out.

References:
  Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (arXiv 1801.04381), table 2.
"""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from .layers import ConvNorm

# Factor of the expansion, channels, blocks, stride of the first of them. The published stride of the second row is 2.
table = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(nnx.Module):
    """Channels are expanded, filtered one by one and projected linearly; the input is added where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, stride: int, factor: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        width = factor * inputs
        if factor > 1:
            self.expand = ConvNorm(inputs, width, 1, dtype=dtype, rngs=rngs)
        self.depthwise = ConvNorm(width, width, 3, stride, groups=width, dtype=dtype, rngs=rngs)
        self.project = ConvNorm(width, outputs, 1, dtype=dtype, rngs=rngs)
        self.residual = stride == 1 and inputs == outputs

    def __call__(self, x):
        y = nnx.relu6(self.expand(x)) if hasattr(self, "expand") else x
        y = self.project(nnx.relu6(self.depthwise(y)))
        return x + y if self.residual else y


class MobileNetV2(nnx.Module):
    """2,236,682 parameters for 10 classes, as torchvision's."""

    input_shape = (32, 32, 3)

    def __init__(self, classes: int = 10, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        self.stem = ConvNorm(3, 32, 3, dtype=dtype, rngs=rngs)
        blocks, inputs = [], 32
        for factor, outputs, count, stride in table:
            for i in range(count):
                blocks.append(InvertedResidual(inputs, outputs, 1 if i else stride, factor, dtype=dtype, rngs=rngs))
                inputs = outputs
        self.blocks = nnx.Sequential(*blocks)
        self.last = ConvNorm(inputs, 1280, 1, dtype=dtype, rngs=rngs)
        self.head = nnx.Linear(1280, classes, kernel_init=nnx.initializers.normal(0.01), rngs=rngs)

    def __call__(self, x):
        x = self.blocks(nnx.relu6(self.stem(x)))
        return self.head(jnp.mean(nnx.relu6(self.last(x)), axis=(1, 2), dtype=jnp.float32))
