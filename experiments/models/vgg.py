"""VGG with batch normalisation for 32×32 images: the convolutions as published, and one dense layer after them.

Source: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition" (arXiv 1409.1556),
table 1, columns D and E.
"""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from .layers import ConvNorm

counts = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


class VGG(nnx.Module):
    """VGG-16 has 14,728,266 parameters and VGG-19 20,040,522, biases of the convolutions among them."""

    image_shape = (32, 32, 3)

    def __init__(
        self,
        depth: int = 16,
        classes: int = 10,
        width: int | None = None,
        *,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        stages, inputs = [], 3
        widths = (64, 128, 256, 512, 512) if width is None else 5 * (width,)
        for outputs, count in zip(widths, counts[depth], strict=True):
            convs = []
            for _ in range(count):
                convs.append(ConvNorm(inputs, outputs, 3, bias=True, dtype=dtype, rngs=rngs))
                inputs = outputs
            stages.append(nnx.List(convs))
        self.stages = nnx.List(stages)
        self.head = nnx.Linear(inputs, classes, kernel_init=nnx.initializers.normal(0.01), rngs=rngs)

    def __call__(self, x):
        for stage in self.stages:
            for conv in stage:
                x = nnx.relu(conv(x))
            x = nnx.max_pool(x, (2, 2), (2, 2))
        return self.head(jnp.reshape(x, (x.shape[0], -1)))
