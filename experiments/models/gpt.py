"""Generative transformers in the shape of GPT-2: learned positions, the embedding of the tokens also as the head.

References:
  Radford et al., "Language Models are Unsupervised Multitask Learners" (2019), for the architecture and the
  initialisation, here of the same size whatever the width: 0.02·√(768/width). The sizes are those of Karpathy's minGPT.
"""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from .transformer import Block


class GPT(nnx.Module):
    """Logits of the next token at each place: tokens [n, length ≤ context] → [n, length, classes]."""

    input_shape = (128,)

    def __init__(
        self,
        depth: int = 4,
        heads: int = 4,
        width: int = 128,
        classes: int = 96,
        context: int = 128,
        *,
        epsilon: float = 1e-5,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        std = 0.02 * (768 / width) ** 0.5
        normal = nnx.initializers.normal(std)
        out_init = nnx.initializers.normal(std / (2 * depth) ** 0.5)  # so that the stream does not grow with the depth
        block = {
            "activation": nnx.gelu, "epsilon": epsilon, "causal": True, "kernel_init": normal, "out_init": out_init,
            "dtype": dtype,
        }  # fmt: skip
        self.tokens = nnx.Embed(classes, width, embedding_init=normal, rngs=rngs)
        self.positions = nnx.Param(normal(rngs.params(), (1, context, width)))
        self.blocks = nnx.Sequential(*(Block(width, heads, **block, rngs=rngs) for _ in range(depth)))
        self.norm = nnx.LayerNorm(width, epsilon=epsilon, rngs=rngs)

    def __call__(self, tokens):
        x = self.tokens(tokens) + self.positions[...][:, : tokens.shape[1]]
        return self.tokens.attend(self.norm(self.blocks(x)))
