"""Random values for every parameter and input: a bias or a statistic that a removal forgets must change the output."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

SCALES = {"scale", "gamma"}  # Factors: near one.
VECTORS = {"embedding", "positions", "cls"}  # Tables of vectors that are added or read, never contracted.


def fill(shapes):
    """The tree of tuples, arrays or `ShapeDtypeStruct`s `shapes`, with values drawn by the last name of each path."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        shape = leaf if isinstance(leaf, tuple) else leaf.shape
        name, value = path[-1].key, rng.standard_normal(shape, np.float32)
        if name == "var":
            value = rng.uniform(0.5, 1.5, shape)
        elif name in SCALES:
            value = 1 + 0.3 * value
        elif name in VECTORS:
            value = 0.5 * value
        elif len(shape) > 1 and name != "bias":
            # Of activations that are never negative a sum of weights decides the sign: most of its mean is taken away,
            # and the biases lean to the positive, or one rectified channel in ten is dead and shows no mistake.
            value = value - 0.7 * value.mean(tuple(range(len(shape) - 1)), keepdims=True)
            value = np.sqrt(2 / np.prod(shape[:-1])) * value
        else:
            value = 0.3 * value + 0.3 * (name == "bias")
        return jnp.asarray(value, jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes, is_leaf=lambda leaf: isinstance(leaf, tuple))


def normal(*shape):
    """An input."""
    return jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.float32)


def tokens(vocabulary, *shape):
    """An input of integers."""
    return jnp.asarray(np.random.default_rng(1).integers(0, vocabulary, shape), jnp.int32)


def nnx_triple(new_module, *args):
    """`(fn, params, args)` of the module `new_module(rngs)`; its statistics are part of `params`."""
    graphdef, variables, rest = nnx.split(
        nnx.eval_shape(lambda: new_module(nnx.Rngs(0))), (nnx.Param, nnx.BatchStat), ...
    )
    assert not jax.tree.leaves(rest), "inference needs nothing but parameters and statistics"

    def fn(params, *args):
        return nnx.merge(graphdef, nnx.State(params), rest)(*args)

    return fn, fill(nnx.to_pure_dict(variables)), args


def linen_triple(module, *args):
    """`(fn, params, args)` of a Linen module; `params` is all its variables."""
    return module.apply, fill(jax.eval_shape(module.init, jax.random.key(0), *args)), args
