"""The networks of the digits and of MNIST."""

import jax.numpy as jnp
from flax import nnx

from .layers import Conv, ConvNorm, every, torch_uniform
from .pooling import max_pool


class SmallCNN(nnx.Module):
    """Two 3×3 convolutions with 16 and 32 filters, pooled, then dense 64 and the classes; for 8×8 images."""

    input_shape = (8, 8, 1)

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64), *, rngs: nnx.Rngs):
        first, second, third = every(widths, 3)
        self.conv1 = Conv(1, first, (3, 3), kernel_init=torch_uniform, rngs=rngs)
        self.conv2 = Conv(first, second, (3, 3), kernel_init=torch_uniform, rngs=rngs)
        self.dense1 = nnx.Linear(4 * 4 * second, third, kernel_init=torch_uniform, rngs=rngs)
        self.dense2 = nnx.Linear(third, 10, kernel_init=torch_uniform, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.conv1(x))
        x = max_pool(nnx.relu(self.conv2(x)))
        x = nnx.relu(self.dense1(jnp.reshape(x, (x.shape[0], -1))))
        return self.dense2(x)


class LeNet(nnx.Module):
    """LeNet-5 as in the published code: 61,706 parameters; for 28×28 images."""

    input_shape = (28, 28, 1)

    def __init__(self, widths: tuple[int, ...] = (6, 16, 120, 84), *, rngs: nnx.Rngs):
        first, second, third, fourth = every(widths, 4)
        self.conv1 = Conv(1, first, (5, 5), kernel_init=torch_uniform, rngs=rngs)
        self.conv2 = Conv(first, second, (5, 5), padding="VALID", kernel_init=torch_uniform, rngs=rngs)
        self.conv3 = Conv(second, third, (5, 5), padding="VALID", kernel_init=torch_uniform, rngs=rngs)
        self.dense1 = nnx.Linear(third, fourth, kernel_init=torch_uniform, rngs=rngs)
        self.dense2 = nnx.Linear(fourth, 10, kernel_init=torch_uniform, rngs=rngs)

    def __call__(self, x):
        x = max_pool(nnx.relu(self.conv1(x)))
        x = max_pool(nnx.relu(self.conv2(x)))
        x = nnx.relu(self.conv3(x))
        x = nnx.relu(self.dense1(jnp.reshape(x, (x.shape[0], -1))))
        return self.dense2(x)


class TinyCNN(nnx.Module):
    """Two normalised 5×5 convolutions, pooled to 3×3 places, and one dense layer; for 28×28 images."""

    input_shape = (28, 28, 1)

    def __init__(self, widths: tuple[int, ...] = (4, 6), *, rngs: nnx.Rngs):
        first, second = every(widths, 2)
        self.conv1 = ConvNorm(1, first, 5, rngs=rngs)
        self.conv2 = ConvNorm(first, second, 5, rngs=rngs)
        self.dense = nnx.Linear(9 * second, 10, kernel_init=torch_uniform, rngs=rngs)

    def __call__(self, x):
        x = max_pool(nnx.relu(self.conv1(x)))
        x = max_pool(nnx.relu(self.conv2(x)))
        x = nnx.max_pool(x, (3, 3), (2, 2))
        return self.dense(jnp.reshape(x, (x.shape[0], -1)))


class LeNet300(nnx.Module):
    """LeNet-300-100: dense 784→300→100→10; 266,610 parameters; for 28×28 images."""

    input_shape = (28, 28, 1)

    def __init__(self, widths: tuple[int, ...] = (300, 100), *, rngs: nnx.Rngs):
        first, second = every(widths, 2)
        self.dense1 = nnx.Linear(784, first, kernel_init=torch_uniform, rngs=rngs)
        self.dense2 = nnx.Linear(first, second, kernel_init=torch_uniform, rngs=rngs)
        self.dense3 = nnx.Linear(second, 10, kernel_init=torch_uniform, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.dense1(jnp.reshape(x, (x.shape[0], -1))))
        return self.dense3(nnx.relu(self.dense2(x)))
