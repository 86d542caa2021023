"""Parameters spread over eight devices: the same run as on one, and W, V and Γ stay where the parameters lie.

Under *explicit* sharding an operation that cannot say how its result is spread is an error; under *automatic*
sharding the compiler chooses, and may choose badly.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
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


@pytest.mark.parametrize(("kind", "place"), SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize(("penalty", "shape"), PENALTIES.values(), ids=PENALTIES)
def test_a_spread_run_is_the_run_on_one_device(penalty, shape, kind, place):
    tx = pm.split_lbi(0.3, kappa=1.2, nu=1.5, penalty=penalty, momentum=0.5)
    alone, alone_state = run(tx, jax.tree.map(jnp.asarray, params_of(shape)))
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(kind, kind))
    with jax.set_mesh(mesh):
        initial = spread(params_of(shape), mesh, place)
        params, state = run(tx, initial)
        gamma, support, sparse = pm.gamma(state), pm.support(state), pm.sparse_params(params, state)
        norms, summary = pm.group_norms(state)["kernel"], pm.sparsity_summary(state)
        value = 0.0 if penalty is None else float(penalty.value(gamma["kernel"]))

    assert_lie_alike(params, initial)
    assert_lie_alike(state[2].dual, initial)
    if kind == AxisType.Explicit:  # else the compiler chooses where a result lies that nothing calls back
        for tree in (gamma, support, sparse):
            assert_lie_alike(tree, initial)
    expected = alone_state, pm.gamma(alone_state), pm.sparse_params(alone, alone_state), pm.group_norms(alone_state)
    got = state, gamma, sparse, {"bias": None, "kernel": norms}
    chex.assert_trees_all_close(
        jax.device_get((params, *got)), jax.device_get((alone, *expected)), rtol=1e-4, atol=1e-5
    )
    chex.assert_trees_all_equal(jax.device_get(support), jax.device_get(pm.support(alone_state)))
    if penalty is not None:
        np.testing.assert_allclose(value, penalty.value(pm.gamma(alone_state)["kernel"]), rtol=1e-4)
    assert summary == pm.sparsity_summary(alone_state)
    assert 0 < np.mean(jax.device_get(norms) > 0) < 1
