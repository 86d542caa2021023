"""The block of transformers, as ViT and GPT-2 have it: normalised before each part, and added to a float32 stream."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

small_normal = nnx.initializers.normal(0.02)
exact_gelu = partial(nnx.gelu, approximate=False)


class Block(nnx.Module):
    """Attention, then two dense layers, each normalised before it and added to the stream, which stays float32."""

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        activation: Callable[[jax.Array], jax.Array] = exact_gelu,
        epsilon: float = 1e-6,
        causal: bool = False,
        kernel_init: nnx.Initializer = small_normal,
        out_init: nnx.Initializer = small_normal,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        norm = partial(nnx.LayerNorm, width, epsilon=epsilon, rngs=rngs)
        dense = partial(nnx.Linear, dtype=dtype, rngs=rngs)
        self.norm1 = norm()
        self.attention = nnx.MultiHeadAttention(
            heads, width, decode=False, keep_rngs=False, kernel_init=kernel_init, out_kernel_init=out_init,
            dtype=dtype, rngs=rngs,
        )  # fmt: skip
        self.norm2 = norm()
        self.dense1 = dense(width, 4 * width, kernel_init=kernel_init)
        self.dense2 = dense(4 * width, width, kernel_init=out_init)
        self.activation, self.causal = activation, causal

    def __call__(self, x):
        mask = nnx.make_causal_mask(jnp.zeros(x.shape[:2]), dtype=bool) if self.causal else None
        x = x + self.attention(self.norm1(x), mask=mask)
        return x + self.dense2(self.activation(self.dense1(self.norm2(x))))
