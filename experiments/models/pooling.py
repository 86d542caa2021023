"""Max pooling: Flax's, but on a CPU its gradient is taken in a way that is faster there.

XLA on a CPU goes through the windows in a loop that looks for what had been the largest. Where windows do not overlap
each place is in one alone, so that all can be compared with the largest of theirs at once. Of several largest the first
takes the gradient, as with XLA.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax


def max_pool(images: jax.Array, size: int = 2) -> jax.Array:
    """The largest of each window of `size`×`size`; the windows do not overlap.

    It defines a reverse derivative: `jax.grad` works, and `jax.jvp` of that, but not `jax.jvp` of the pooling.

    Args:
      images: [batch, rows, columns, channels]. Rows and columns that fill no window are left out.

    Returns:
      [batch, rows // size, columns // size, channels].
    """

    def forward(images):
        return nnx.max_pool(images, (size, size), (size, size))

    def by_comparison(images, largest, gradient):
        batch, rows, columns, channels = largest.shape
        windows = jnp.reshape(images, (batch, rows, size, columns, size, channels))
        parts = []
        for row, column in np.ndindex(size, size):
            here = windows[:, :, row, :, column] == largest
            parts.append(jnp.where(here, gradient, 0))
            gradient = jnp.where(here, 0, gradient)
        lines = [jnp.stack(parts[start : start + size], axis=3) for start in range(0, size * size, size)]
        return jnp.reshape(jnp.stack(lines, axis=2), images.shape)

    def by_xla(images, largest, gradient):
        return jax.vjp(forward, images)[1](gradient)[0]

    def backward(residuals, gradient):
        images, largest = residuals
        if any(extent % size for extent in images.shape[1:3]):
            return (by_xla(images, largest, gradient),)
        return (lax.platform_dependent(images, largest, gradient, cpu=by_comparison, default=by_xla),)

    def keep(images):
        largest = forward(images)
        return largest, (images, largest)

    pool = jax.custom_vjp(forward)
    pool.defvjp(keep, backward)
    return pool(images)
