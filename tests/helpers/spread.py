"""Runs whose parameters are spread over eight devices."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import parsimony as pm

STEPS = 4
KERNEL, MATRIX = (2, 2, 8, 16), (16, 24)
PENALTIES = {
    "the paper's": (None, KERNEL),
    "the paper's, of a matrix": (None, MATRIX),
    "Lasso": (pm.Lasso(0.6), KERNEL),
    "GroupLasso": (pm.GroupLasso(-1, strength=4.0), KERNEL),
    "GroupLasso of pairs of channels": (pm.GroupLasso((2, -1), strength=1.2, scale="rms"), KERNEL),
    "GroupLasso of rows": (pm.GroupLasso(0, strength=3.2), MATRIX),
    "SparseGroupLasso": (pm.SparseGroupLasso(-1, strength=2.0, mix=0.2), MATRIX),
    "BlockLasso": (pm.BlockLasso((4, 4), strength=2.6), MATRIX),
    "BlockLasso with a remainder": (pm.BlockLasso((3, 5), strength=0.7, scale="rms"), MATRIX),
    "NuclearNorm": (pm.NuclearNorm(2.5), MATRIX),
}
# Where the last two axes of the kernel lie, on a mesh of four by two devices.
PLACES = {"columns": (None, "x"), "rows": ("x", None), "both": ("x", "y"), "columns by both": (None, ("x", "y"))}
SETTINGS = {
    **{f"explicit, {name}": (AxisType.Explicit, place) for name, place in PLACES.items()},
    "automatic, both": (AxisType.Auto, PLACES["both"]),
}


def params_of(shape):
    rng = np.random.default_rng(0)
    scale = np.broadcast_to(np.linspace(0.4, 1.6, shape[-1]), shape)
    return {"kernel": (rng.normal(size=shape) * scale).astype(np.float32), "bias": np.ones(shape[-1:], np.float32)}


def spread(params, mesh, place):
    """On the mesh: the kernel by its last two axes, the bias like the last of them."""
    spec = P(*(None,) * (params["kernel"].ndim - 2), *place)
    return {
        "kernel": jax.device_put(params["kernel"], NamedSharding(mesh, spec)),
        "bias": jax.device_put(params["bias"], NamedSharding(mesh, P(place[-1]))),
    }


def run(tx, params, transform=jax.jit):
    def step(params, state):
        updates, state = tx.update(jax.tree.map(jnp.sin, params), state, params)
        return optax.apply_updates(params, updates), state

    state, step = tx.init(params), transform(step)
    for _ in range(STEPS):
        params, state = step(params, state)
    return params, state


def assert_lie_alike(tree, params):
    for leaf, w in zip(jax.tree.leaves(tree), jax.tree.leaves(params), strict=True):
        assert leaf.sharding.is_equivalent_to(w.sharding, w.ndim), f"{leaf.sharding} is not {w.sharding}"
