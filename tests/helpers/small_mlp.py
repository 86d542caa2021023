"""A chain of dense layers, all of whose units are at work."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np


def mlp(*widths):
    """(params, fn): positive weights throughout, so that every unit is at work."""
    rng = np.random.default_rng(0)
    shapes = list(itertools.pairwise(widths))
    params = {f"w{i}": jnp.asarray(rng.uniform(0.5, 1, shape), "float32") for i, shape in enumerate(shapes)}
    params |= {f"b{i}": jnp.asarray(rng.uniform(0.5, 1, shape[1]), "float32") for i, shape in enumerate(shapes)}

    def fn(params, x):
        for i in range(len(shapes)):
            x = x @ params[f"w{i}"] + params[f"b{i}"][None]
            x = jax.nn.relu(x) if i < len(shapes) - 1 else x
        return x

    return params, fn
