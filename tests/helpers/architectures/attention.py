"""Transformers: heads in fused, separate, grouped and four-dimensional kernels, around one stream."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from ._random import fill, linen_triple, nnx_triple, normal, tokens


class EncoderBlock(nnx.Module):
    def __init__(self, width, heads, dropout, rngs):
        self.norm1, self.norm2 = nnx.LayerNorm(width, rngs=rngs), nnx.LayerNorm(width, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(
            heads, width, dropout_rate=dropout, deterministic=True, decode=False, rngs=rngs, keep_rngs=False
        )
        self.dense1, self.dense2 = nnx.Linear(width, 12, rngs=rngs), nnx.Linear(12, width, rngs=rngs)

    def __call__(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.dense2(nnx.gelu(self.dense1(self.norm2(x))))


class ViT(nnx.Module):
    def __init__(self, rngs, width=8, dropout=0.1):
        self.patches = nnx.Conv(3, width, (4, 4), strides=4, padding="VALID", rngs=rngs)
        self.cls = nnx.Param(jnp.zeros((1, 1, width)))
        self.positions = nnx.Param(jnp.zeros((1, 5, width)))
        self.blocks = nnx.Sequential(*(EncoderBlock(width, 2, dropout, rngs) for _ in range(2)))
        self.norm, self.head = nnx.LayerNorm(width, rngs=rngs), nnx.Linear(width, 4, rngs=rngs)

    def __call__(self, x):
        x = self.patches(x)
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        x = jnp.concatenate([jnp.broadcast_to(self.cls[...], (x.shape[0], 1, x.shape[-1])), x], 1)
        x = self.blocks(x + self.positions[...])
        return self.head(self.norm(x)[:, 0])


def vit_fused():
    """Without dropout Flax calls `jax.nn.dot_product_attention`, whose softmax is in float32 whatever the input."""
    return nnx_triple(lambda rngs: ViT(rngs, dropout=0.0), normal(2, 8, 8, 3))


class MLP(nn.Module):
    hidden: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(x.shape[-1])(nn.gelu(nn.Dense(self.hidden)(x)))


class Mixer(nn.Module):
    """Attention replaced by an MLP over positions; those hidden units are coupled to no channel."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(8, (4, 4), strides=(4, 4))(x)
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        for _ in range(2):
            x = x + MLP(6)(nn.LayerNorm()(x).swapaxes(1, 2)).swapaxes(1, 2)
            x = x + MLP(12)(nn.LayerNorm()(x))
        return nn.Dense(4)(nn.LayerNorm()(x).mean(1))


def dense(params, x):
    return x @ params["kernel"] + params["bias"].reshape((1,) * (x.ndim - 1) + (-1,))


def layer_norm(params, x):
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) / jnp.sqrt(variance + 1e-5) * params["scale"][None, None] + params["bias"][None, None]


def rms_norm(params, x):
    return x / jnp.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * params["scale"][None, None]


def causal_attention(q, k, v):
    """Of arrays (batch, length, heads, width)."""
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5
    mask = jnp.tril(jnp.ones(scores.shape[-2:], bool))
    weights = jax.nn.softmax(jnp.where(mask[None, None], scores, -jnp.inf), -1)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v)


def gpt(width=8, heads=2, hidden=16, vocabulary=11, length=6):
    """One kernel for queries, keys and values of all heads; the embedding is also the head."""
    affine = lambda inputs, outputs: {"kernel": (inputs, outputs), "bias": (outputs,)}
    norm = {"scale": (width,), "bias": (width,)}
    block = {
        "norm1": norm,
        "qkv": affine(width, 3 * width),
        "out": affine(width, width),
        "norm2": norm,
        "mlp1": affine(width, hidden),
        "mlp2": affine(hidden, width),
    }
    tables = {"token": {"embedding": (vocabulary, width)}, "positions": (length, width)}
    params = fill({**tables, "block0": block, "block1": block, "norm": norm})

    def fn(params, ids):
        x = params["token"]["embedding"][ids] + params["positions"][None, : ids.shape[1]]
        for name in ("block0", "block1"):
            block = params[name]
            qkv = jnp.split(dense(block["qkv"], layer_norm(block["norm1"], x)), 3, -1)
            y = causal_attention(*(a.reshape(*a.shape[:2], heads, -1) for a in qkv))
            x = x + dense(block["out"], y.reshape(x.shape))
            y = jax.nn.gelu(dense(block["mlp1"], layer_norm(block["norm2"], x)))
            x = x + dense(block["mlp2"], y)
        return layer_norm(params["norm"], x) @ params["token"]["embedding"].T

    return fn, params, (tokens(vocabulary, 2, length),)


def rotate(x):
    """Rotary positions of (batch, length, heads, width): pairs half a head apart turn together."""
    frequencies = 100 ** (-jnp.arange(x.shape[-1] // 2, dtype=x.dtype) / (x.shape[-1] // 2))
    angles = (jnp.arange(x.shape[1], dtype=x.dtype)[:, None] * frequencies[None])[None, :, None]
    a, b = jnp.split(x, 2, -1)
    return jnp.concatenate([a * jnp.cos(angles) - b * jnp.sin(angles), b * jnp.cos(angles) + a * jnp.sin(angles)], -1)


def llama(width=12, heads=4, groups=2, head_width=4, hidden=10, vocabulary=11, length=6):
    """Two heads of keys and values for four of queries; the gate and the value of the MLP in one kernel."""
    block = {
        "norm1": {"scale": (width,)},
        "query": {"kernel": (width, heads * head_width)},
        "key": {"kernel": (width, groups * head_width)},
        "value": {"kernel": (width, groups * head_width)},
        "out": {"kernel": (heads * head_width, width)},
        "norm2": {"scale": (width,)},
        "gate_up": {"kernel": (width, 2 * hidden)},
        "down": {"kernel": (hidden, width)},
    }
    ends = {"token": {"embedding": (vocabulary, width)}, "norm": {"scale": (width,)}}
    params = fill({**ends, "block0": block, "block1": block, "head": {"kernel": (width, vocabulary)}})

    def fn(params, ids):
        x = jnp.take(params["token"]["embedding"], ids, axis=0)
        for name in ("block0", "block1"):
            block = params[name]
            y = rms_norm(block["norm1"], x)
            q, k, v = (
                (y @ block[name]["kernel"]).reshape(*y.shape[:2], -1, head_width) for name in ("query", "key", "value")
            )
            k, v = (jnp.repeat(a, heads // groups, axis=2) for a in (rotate(k), v))
            y = causal_attention(rotate(q), k, v)
            x = x + y.reshape(*y.shape[:2], -1) @ block["out"]["kernel"]
            gate, up = jnp.split(rms_norm(block["norm2"], x) @ block["gate_up"]["kernel"], 2, -1)
            x = x + (jax.nn.silu(gate) * up) @ block["down"]["kernel"]
        return rms_norm(params["norm"], x) @ params["head"]["kernel"]

    return fn, params, (tokens(vocabulary, 2, length),)


def einsum_transformer(width=8, heads=3, head_width=4, hidden=10):
    """A post-norm block; queries, keys and values lie along the first axis of a kernel of four."""
    shapes = {
        "qkv": {"kernel": (3, width, heads, head_width), "bias": (3, heads, head_width)},
        "out": {"kernel": (heads, head_width, width), "bias": (width,)},
        "norm1": {"scale": (width,), "bias": (width,)},
        "mlp1": {"kernel": (width, hidden), "bias": (hidden,)},
        "mlp2": {"kernel": (hidden, width), "bias": (width,)},
        "norm2": {"scale": (width,), "bias": (width,)},
    }
    params = fill(shapes)
    params["qkv"]["kernel"] *= 2  # Only one of its leading axes is contracted.

    def fn(params, x):
        qkv = jnp.einsum("ble,nehd->nblhd", x, params["qkv"]["kernel"]) + params["qkv"]["bias"][:, None, None]
        y = jnp.einsum("blhd,hde->ble", causal_attention(*qkv), params["out"]["kernel"])
        x = layer_norm(params["norm1"], x + y + params["out"]["bias"][None, None])
        y = dense(params["mlp2"], jax.nn.relu(dense(params["mlp1"], x)))
        return layer_norm(params["norm2"], x + y)

    return fn, params, (normal(2, 6, width),)


ARCHITECTURES = {
    "vit": lambda: nnx_triple(ViT, normal(2, 8, 8, 3)),
    "mixer": lambda: linen_triple(Mixer(), normal(2, 8, 8, 3)),
    "gpt": gpt,
    "llama": llama,
    "einsum_transformer": einsum_transformer,
}
