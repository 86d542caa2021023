"""Vision transformers on 16×16 patches of 224×224 images, with a class token.

Sources: Dosovitskiy et al., "An Image is Worth 16x16 Words" (arXiv 2010.11929); Touvron et al., "Training
data-efficient image transformers" (arXiv 2012.12877), for the smaller ones and the initialisation.
"""

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
        *,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.patches = Conv(
            3, width, (16, 16), strides=16, padding="VALID", dtype=dtype, kernel_init=torch_uniform, rngs=rngs
        )
        self.token = nnx.Param(small_normal(rngs.params(), (1, 1, width)))
        self.positions = nnx.Param(small_normal(rngs.params(), (1, 14 * 14 + 1, width)))
        self.blocks = nnx.Sequential(*(Block(width, heads, dtype=dtype, rngs=rngs) for _ in range(depth)))
        self.norm = nnx.LayerNorm(width, epsilon=1e-6, rngs=rngs)
        self.head = nnx.Linear(width, classes, kernel_init=small_normal, rngs=rngs)

    def __call__(self, x):
        x = self.patches(x)
        x = jnp.reshape(x, (x.shape[0], -1, x.shape[-1]))
        x = jnp.concatenate([jnp.broadcast_to(self.token[...], (x.shape[0], 1, x.shape[-1])), x], axis=1)
        x = self.blocks(x + self.positions[...])
        return self.head(self.norm(x[:, 0]))
