"""Counts of the support: groups, weights and density, as data and as a table."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import parsimony as pm

PARAMS = {"conv": jnp.ones((3, 3, 2, 4)), "dense": jnp.ones((6, 8)), "low": jnp.ones((4, 4)), "bias": jnp.ones(4)}
RULES = pm.Rules([("conv", pm.GroupLasso(-1)), ("dense", pm.BlockLasso((3, 4))), ("low", pm.NuclearNorm())])


def state_with_known_support():
    """A V with three of four filters, one of four tiles and two of four singular directions above the threshold."""
    conv = np.zeros((3, 3, 2, 4), np.float32)
    conv[0, 0, 0] = [2.0, 0.5, 3.0, 4.0]
    dense = np.zeros((6, 8), np.float32)
    dense[4, 5], dense[0, 0] = 2.0, 0.9
    low = np.diag(np.array([3.0, 2.0, 0.5, 0.0], np.float32))
    state = pm.inverse_scale_space(0.1, kappa=2.0, penalty=RULES).init(PARAMS)
    dual = {"conv": conv, "dense": dense, "low": low, "bias": np.zeros(4, np.float32)}
    return state._replace(dual={name: jnp.asarray(v) for name, v in dual.items()})


def test_norms_are_those_of_kappa_times_prox():
    norms = pm.group_norms(state_with_known_support())
    assert norms["bias"] is None
    np.testing.assert_allclose(norms["conv"], [2.0, 0.0, 4.0, 6.0], rtol=1e-6)
    np.testing.assert_allclose(norms["dense"], [[0.0, 0.0], [0.0, 2.0]], rtol=1e-6)
    np.testing.assert_allclose(norms["low"], [4.0, 2.0, 0.0, 0.0], rtol=1e-6)


def test_norms_of_w_are_those_of_the_same_groups():
    params = {**PARAMS, "dense": jnp.arange(48.0).reshape(6, 8)}
    norms = pm.group_norms(state_with_known_support(), params)
    np.testing.assert_allclose(norms["conv"], [np.sqrt(18)] * 4, rtol=1e-6)
    tile = np.arange(48.0).reshape(6, 8)[3:, 4:]
    np.testing.assert_allclose(norms["dense"][1, 1], np.linalg.norm(tile), rtol=1e-6)
    assert norms["bias"] is None
    with pytest.raises(ValueError, match="do not match"):
        pm.group_norms(state_with_known_support(), {**params, "dense": jnp.ones((6, 9))})


def test_a_row_counts_groups_and_weights_of_a_parameter():
    rows = {row.name: row for row in pm.sparsity_summary(state_with_known_support())}
    counts = {name: (row.groups, row.all_groups, row.weights, row.all_weights) for name, row in rows.items()}
    assert counts == {"bias": (None, None, 4, 4), "conv": (3, 4, 3, 72), "dense": (1, 4, 1, 48), "low": (2, 4, 2, 16)}
    assert rows["conv"].density == 3 / 72


def test_the_table_names_every_parameter_and_the_sum():
    lines = str(pm.sparsity_summary(state_with_known_support())).splitlines()
    assert [line.split()[0] for line in lines] == ["parameter", "bias", "conv", "dense", "low", "all"]
    assert "no penalty" in lines[1]
    assert lines[2].split() == ["conv", "3", "/", "4", "3", "/", "72", "4.2%"]
    assert lines[-1].split()[1:] == ["10", "/", "140", "7.1%"]
    assert len({len(line) for line in lines}) == 1, "columns line up"


def test_two_groups_of_a_partition_stand_in_one_table():
    tx = optax.partition(
        {"a": pm.split_lbi(0.1), "b": pm.split_lbi(0.1, penalty=pm.GroupLasso(0))},
        {"conv": "a", "dense": "b", "low": "b", "bias": "a"},
    )
    rows = {row.name: row.all_groups for row in pm.sparsity_summary(tx.init(PARAMS))}
    assert rows == {"conv": 4, "dense": 6, "low": 4, "bias": None}


def test_a_state_without_split_lbi_is_rejected():
    for read in (pm.group_norms, pm.sparsity_summary):
        with pytest.raises(ValueError, match="no Split LBI state"):
            read(optax.adam(1e-3).init(PARAMS))
