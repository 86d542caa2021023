"""Loops: recurrence over time, layers run by a scan, branches, and rematerialised computations."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from ._random import fill, linen_triple, nnx_triple, normal


def affine(inputs, outputs):
    return {"kernel": (inputs, outputs), "bias": (outputs,)}


def dense(params, x):
    return x @ params["kernel"] + params["bias"][None]


class LSTM(nnx.Module):
    def __init__(self, rngs, cell, hidden=6):
        # With random bits of its own, the module would have a state besides its parameters.
        self.rnn = nnx.RNN(cell(3, hidden, rngs=rngs), rngs=False)
        self.head = nnx.Linear(hidden, 4, rngs=rngs)

    def __call__(self, x):
        # The cell's own zeros have the dtype it was built with, whatever its parameters were cast to.
        zeros = jnp.zeros((x.shape[0], self.head.in_features), x.dtype)
        return self.head(self.rnn(x, initial_carry=(zeros, zeros))[:, -1])


class GRU(nn.Module):
    """Two layers; the second sees the sequence of the first."""

    @nn.compact
    def __call__(self, x):
        for width in (6, 5):
            x = nn.RNN(nn.GRUCell(width))(x, initial_carry=jnp.zeros((x.shape[0], width), x.dtype))
        return nn.Dense(4)(x.mean(1))


def plain_lstm(inputs=3, hidden=6):
    """One kernel for all gates, and for input and state."""
    params = fill({"lstm": affine(inputs + hidden, 4 * hidden), "head": affine(hidden, 4)})

    def fn(params, x):
        def step(carry, x):
            h, c = carry
            i, f, g, o = jnp.split(dense(params["lstm"], jnp.concatenate([x, h], -1)), 4, -1)
            c = jax.nn.sigmoid(f + 1) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        zeros = jnp.zeros((x.shape[0], hidden), x.dtype)
        (h, _), _ = lax.scan(step, (zeros, zeros), x.swapaxes(0, 1))
        return dense(params["head"], h)

    return fn, params, (normal(2, 6, inputs),)


def scanned_mlp(depth=3, width=8):
    """Identical layers as slices of one kernel: the stream is coupled through all of them, hidden units are not."""
    layers = {"in": {"kernel": (depth, width, 10), "bias": (depth, 10)}}
    layers["out"] = {"kernel": (depth, 10, width), "bias": (depth, width)}
    params = fill({"embed": affine(5, width), "layers": layers, "head": affine(width, 4)})

    def fn(params, x):
        def layer(x, params):
            return x + dense(params["out"], jax.nn.relu(dense(params["in"], x))), None

        x, _ = lax.scan(layer, dense(params["embed"], x), params["layers"])
        return dense(params["head"], jax.nn.relu(x))

    return fn, params, (normal(3, 5),)


def control_flow(width=6):
    """A branch, a loop of elementwise steps and a loop of dense ones, over one stream."""
    params = fill(
        {"embed": affine(5, width), "decay": (width,), "refine": affine(width, width), "head": affine(width, 4)}
    )

    def fn(params, x):
        embed = lambda x: dense(params["embed"], x)
        h = lax.cond(x.sum() > 0, lambda x: jax.nn.relu(embed(x)), lambda x: jnp.tanh(embed(x)), x)
        h = lax.fori_loop(0, 3, lambda _, h: h - 0.5 * jnp.tanh(h * params["decay"][None]), h)

        def refine(state):
            i, h = state
            return i + 1, 0.5 * (h + jnp.tanh(dense(params["refine"], h)))

        _, h = lax.while_loop(lambda state: state[0] < 4, refine, (0, h))
        return dense(params["head"], h)

    return fn, params, (normal(3, 5),)


def rematerialised():
    params = fill({"layer0": affine(5, 8), "layer1": affine(8, 10), "layer2": affine(10, 4)})

    def fn(params, x):
        for name in ("layer0", "layer1"):
            x = jax.checkpoint(lambda params, x: jax.nn.gelu(dense(params, x)))(params[name], x)
        return dense(params["layer2"], x)

    return fn, params, (normal(3, 5),)


ARCHITECTURES = {
    "lstm": lambda: nnx_triple(lambda rngs: LSTM(rngs, nnx.LSTMCell), normal(2, 6, 3)),
    "optimized_lstm": lambda: nnx_triple(lambda rngs: LSTM(rngs, nnx.OptimizedLSTMCell), normal(2, 6, 3)),
    "gru": lambda: linen_triple(GRU(), normal(2, 6, 3)),
    "plain_lstm": plain_lstm,
    "scanned_mlp": scanned_mlp,
    "control_flow": control_flow,
    "rematerialised": rematerialised,
}
