"""Augmentation of small images, compiled into the step."""

import jax
import jax.numpy as jnp


def crop_and_flip(images, keys, pad: int = 4):
    """Each image moved by up to `pad` pixels, with zeros coming in, and every second one mirrored; as for CIFAR.

    Args:
      images: [n, height, width, channels], any dtype.
      keys: [n], one for each image, so that what becomes of it does not depend on the device that it is on.
    """
    height, width, channels = images.shape[1:]

    def one(image, key):
        where, mirror = jax.random.split(key)
        top, left = jax.random.randint(where, (2,), 0, 2 * pad + 1)
        padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)))
        moved = jax.lax.dynamic_slice(padded, (top, left, jnp.zeros_like(top)), (height, width, channels))
        return jnp.where(jax.random.bernoulli(mirror), moved[:, ::-1], moved)

    return jax.vmap(one)(images, keys)


def augmented(images, key, first: jax.typing.ArrayLike = 0):
    """`crop_and_flip` with a key for each image, by its place in the batch, which begins at `first`.

    By 4 pixels as for CIFAR; images averaged down to 16×16 by 2, so that they show as much of what there is.
    """
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.asarray(first) + jnp.arange(len(images)))
    return crop_and_flip(images, keys, 2 if images.shape[1] == 16 else 4)
