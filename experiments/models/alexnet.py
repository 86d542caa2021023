"""AlexNet in one column, without local response normalisation, as in torchvision.

References:
  Krizhevsky, "One weird trick for parallelizing convolutional neural networks" (arXiv 1404.5997).
"""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from .layers import Conv, torch_uniform


class AlexNet(nnx.Module):
    """61,100,840 parameters for 1000 classes; for 224×224 images.

    The key of the dropout is given with each call, `network(x, rngs=nnx.Rngs(dropout=key))`, and not kept: the state
    is the parameters. After `network.eval()` none is needed.
    """

    input_shape = (224, 224, 3)

    def __init__(self, classes: int = 1000, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        shared = {"kernel_init": torch_uniform, "rngs": rngs}
        self.conv1 = Conv(3, 64, (11, 11), strides=4, padding=2, dtype=dtype, **shared)
        self.conv2 = Conv(64, 192, (5, 5), padding=2, dtype=dtype, **shared)
        self.conv3 = Conv(192, 384, (3, 3), padding=1, dtype=dtype, **shared)
        self.conv4 = Conv(384, 256, (3, 3), padding=1, dtype=dtype, **shared)
        self.conv5 = Conv(256, 256, (3, 3), padding=1, dtype=dtype, **shared)
        self.dense1 = nnx.Linear(6 * 6 * 256, 4096, dtype=dtype, **shared)
        self.dense2 = nnx.Linear(4096, 4096, dtype=dtype, **shared)
        self.dense3 = nnx.Linear(4096, classes, **shared)
        self.dropout = nnx.Dropout(0.5)

    def __call__(self, x, *, rngs: nnx.Rngs | None = None):
        x = nnx.max_pool(nnx.relu(self.conv1(x)), (3, 3), (2, 2))
        x = nnx.max_pool(nnx.relu(self.conv2(x)), (3, 3), (2, 2))
        x = nnx.relu(self.conv4(nnx.relu(self.conv3(x))))
        x = nnx.max_pool(nnx.relu(self.conv5(x)), (3, 3), (2, 2))
        x = self.dropout(jnp.reshape(x, (x.shape[0], -1)), rngs=rngs)
        x = self.dropout(nnx.relu(self.dense1(x)), rngs=rngs)
        return self.dense3(nnx.relu(self.dense2(x)))
