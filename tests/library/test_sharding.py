"""Parameters spread over eight devices: the same run as on one, and W, V and Γ stay where the parameters lie.

Under *explicit* sharding an operation that cannot say how its result is spread is an error; under *automatic*
sharding the compiler chooses, and may choose badly.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

import parsimony as pm
from helpers.cases import in_turn
from helpers.spread import PENALTIES, SETTINGS, assert_lie_alike, params_of, run, spread

BOTH = "explicit, both"  # both axes: what most can go wrong in
OTHERS = {name: setting for name, setting in SETTINGS.items() if name != BOTH}


QUICK = ("Lasso", "GroupLasso", "BlockLasso")
NAMES = {name: name for name in PENALTIES}


def transformation(penalty):
    return pm.split_lbi(0.3, kappa=1.2, nu=1.5, penalty=penalty, momentum=0.5)


@functools.cache
def run_alone(name):
    penalty, shape = PENALTIES[name]
    return run(transformation(penalty), jax.tree.map(jnp.asarray, params_of(shape)))


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        *(pytest.param(name, SETTINGS[BOTH], marks=() if name in QUICK else pytest.mark.slow) for name in PENALTIES),
        *(pytest.param(*param.values, id=param.id, marks=pytest.mark.slow) for param in in_turn(NAMES, OTHERS)),
    ],
)
def test_a_spread_run_is_the_run_on_one_device(name, setting):
    (penalty, shape), (kind, place) = PENALTIES[name], setting
    tx = transformation(penalty)
    alone, alone_state = run_alone(name)
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
