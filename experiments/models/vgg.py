"""VGG with batch normalisation for 32×32 images: the convolutions as published, and one dense layer after them.

References:
  Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition" (arXiv 1409.1556), table
  1, columns D and E.
"""

import itertools

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from .layers import ConvNorm, every
from .pooling import max_pool

counts = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


class VGG(nnx.Module):
    """VGG-16 has 14,728,266 parameters and VGG-19 20,040,522, biases of the convolutions among them.

    `widths` has one for each convolution, or one for all.
    """

    input_shape = (32, 32, 3)

    def __init__(
        self,
        depth: int = 16,
        classes: int = 10,
        widths: tuple[int, ...] | None = None,
        *,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        stages, inputs = [], 3
        published = self.published_widths(depth)
        outputs = iter(every(widths or published, len(published)))
        for count in counts[depth]:
            convs = []
            for width in itertools.islice(outputs, count):
                convs.append(ConvNorm(inputs, width, 3, bias=True, dtype=dtype, rngs=rngs))
                inputs = width
            stages.append(nnx.List(convs))
        self.stages = nnx.List(stages)
        self.head = nnx.Linear(inputs, classes, kernel_init=nnx.initializers.normal(0.01), rngs=rngs)

    @staticmethod
    def published_widths(depth: int) -> tuple[int, ...]:
        return tuple(w for w, n in zip((64, 128, 256, 512, 512), counts[depth], strict=True) for _ in range(n))

    def __call__(self, x):
        for stage in self.stages:
            for conv in stage:
                x = nnx.relu(conv(x))
            x = max_pool(x)
        return self.head(jnp.reshape(x, (x.shape[0], -1)))
