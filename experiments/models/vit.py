"""Vision transformers on patches of images, with a class token: 16×16 of 224×224 pixels, or 4×4 of 32×32.

Sources: Dosovitskiy et al., "An Image is Worth 16x16 Words" (arXiv 2010.11929); Touvron et al., "Training
data-efficient image transformers" (arXiv 2012.12877), for the smaller ones and the initialisation.
"""

import functools

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from .layers import Conv, torch_uniform
from .transformer import Block, small_normal


class ViT(nnx.Module):
    """ViT-Ti/16, of width 192 with 12 blocks of 3 heads, has 5,717,416 parameters for 1000 classes."""

    input_shape = (224, 224, 3)

    def __init__(
        self,
        width: int = 192,
        depth: int = 12,
        heads: int = 3,
        classes: int = 1000,
        patch: int = 16,
        size: int | None = None,
        *,
        epsilon: float = 1e-6,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.patches = Conv(
            3, width, (patch, patch), strides=patch, padding="VALID", dtype=dtype, kernel_init=torch_uniform, rngs=rngs
        )
        self.token = nnx.Param(small_normal(rngs.params(), (1, 1, width)))
        places = ((size or self.input_shape[0]) // patch) ** 2 + 1
        self.positions = nnx.Param(small_normal(rngs.params(), (1, places, width)))
        self.blocks = nnx.Sequential(
            *(Block(width, heads, epsilon=epsilon, dtype=dtype, rngs=rngs) for _ in range(depth))
        )
        self.norm = nnx.LayerNorm(width, epsilon=epsilon, rngs=rngs)
        self.head = nnx.Linear(width, classes, kernel_init=small_normal, rngs=rngs)

    def __call__(self, x):
        x = self.patches(x)
        x = jnp.reshape(x, (x.shape[0], -1, x.shape[-1]))
        x = jnp.concatenate([jnp.broadcast_to(self.token[...], (x.shape[0], 1, x.shape[-1])), x], axis=1)
        x = self.blocks(x + self.positions[...])
        return self.head(self.norm(x[:, 0]))


class SmallImageViT(ViT):
    """For images of 32×32 pixels, in patches of 4×4."""

    input_shape = (32, 32, 3)
    __init__ = functools.partialmethod(ViT.__init__, classes=10, patch=4)  # type: ignore  (other defaults alone)
