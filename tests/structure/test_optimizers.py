"""The state of an optimizer after surgery: what belongs to a removed index goes, all else stays bit for bit."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import parsimony as pm
from helpers.cases import mostly
from helpers.descent import trained
from parsimony._tree import named_leaves
from parsimony.structure import compact, find_units

PARAMS = {
    "conv": {"kernel": jnp.linspace(-1, 1, 3 * 3 * 2 * 8).reshape(3, 3, 2, 8), "bias": jnp.linspace(0.1, 0.8, 8)},
    "dense": {"kernel": jnp.linspace(-1, 1, 8 * 6).reshape(8, 6), "bias": jnp.linspace(0.1, 0.6, 6)},
    "head": {"kernel": jnp.linspace(1, -1, 6 * 3).reshape(6, 3)},
}
X = jnp.linspace(0, 1, 4 * 5 * 5 * 2).reshape(4, 5, 5, 2)
KEEP = {"conv": np.arange(8) % 3 != 0, "dense": np.arange(6) < 4}


def fn(params, x):
    x = jax.lax.conv_general_dilated(
        x, params["conv"]["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    x = jax.nn.relu(x + params["conv"]["bias"].reshape(1, 1, 1, -1)).mean((1, 2))
    x = jax.nn.relu(x @ params["dense"]["kernel"] + params["dense"]["bias"][None])
    return x @ params["head"]["kernel"]


def loss(params):
    return jnp.mean(jnp.square(fn(params, X) - 1))


FAST = pm.Rules([("conv/kernel", pm.GroupLasso(-1, 0.2)), ("dense/kernel", pm.Lasso(0.02))])
OPTIMIZERS = {
    "sgd": optax.sgd(0.1),
    "momentum": optax.sgd(0.1, momentum=0.9, nesterov=True),
    "adam": optax.adam(1e-2),
    "adamw": optax.adamw(1e-2),
    "lion": optax.lion(1e-3),
    "split_lbi": pm.split_lbi(0.05, 1.0, 10.0, FAST, momentum=0.9, weight_decay=1e-4),
    "linbreg": pm.linbreg(0.05, 1.0, FAST, momentum=0.9),
    "rda, sparsity": pm.rda(0.05, FAST, sparsity=0.3),
    "record_path": pm.record_path(pm.split_lbi(0.05, 1.0, 10.0, FAST)),
    "chain": optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam(), optax.scale(-0.01)),
    "masked": optax.chain(
        optax.masked(optax.trace(0.9), {"conv": True, "dense": True, "head": False}), optax.scale(-0.1)
    ),
    "partition": optax.partition(
        {"adam": optax.adam(1e-2), "lbi": pm.split_lbi(0.05, 1.0, 10.0, FAST)},
        {"conv": "lbi", "dense": "lbi", "head": "adam"},
    ),
    "inject_hyperparams": optax.inject_hyperparams(optax.adam)(learning_rate=1e-2),
    "MultiSteps": optax.MultiSteps(optax.adam(1e-2), 2),
}  # fmt: skip


def cut_by_hand(parameter, leaf, like):
    """The entries of a parameter's statistic that stay."""
    leaf = np.asarray(leaf)
    if leaf.shape != like[parameter].shape:
        return leaf
    conv, dense = np.flatnonzero(KEEP["conv"]), np.flatnonzero(KEEP["dense"])
    axes = {"conv/kernel": {3: conv}, "conv/bias": {0: conv}, "dense/kernel": {0: conv, 1: dense},
            "dense/bias": {0: dense}, "head/kernel": {0: dense}}[parameter]  # fmt: skip
    for axis, index in axes.items():
        leaf = leaf.take(index, axis)
    return leaf


QUICK = ("adam", "split_lbi", "rda, sparsity")


@pytest.mark.parametrize("name", mostly([name for name in OPTIMIZERS if name != "record_path"], QUICK))
def test_each_statistic_keeps_the_entries_of_what_stays(name):
    tx = OPTIMIZERS[name]
    params, state = trained(tx, loss, PARAMS, 3)
    small = compact(find_units(fn, params, X), KEEP, params, state)
    like = dict(named_leaves(PARAMS)[0])
    old, new = (dict(named_leaves(tree)[0]) for tree in (state, small.opt_state))
    assert list(old) == list(new)
    touched = 0
    for key, leaf in old.items():
        own = next((parameter for parameter in like if key.endswith(parameter)), None)
        want = np.asarray(leaf) if own is None else cut_by_hand(own, leaf, like)
        np.testing.assert_array_equal(new[key], want, err_msg=key)
        assert new[key].dtype == leaf.dtype
        touched += own is not None
    assert touched or name == "sgd"


@pytest.mark.parametrize("name", mostly(OPTIMIZERS, [*QUICK, "record_path"]))
def test_training_goes_on_as_if_the_removed_units_had_never_been(name):
    """Started afresh on the compact parameters the state has the same structure; its update is defined on it."""
    tx = OPTIMIZERS[name]
    params, state = trained(tx, loss, PARAMS, 3)
    small = compact(find_units(fn, params, X), KEEP, params, state)
    if name != "partition":  # its masks hold labels by structure; the shapes are compared leaf by leaf all the same
        assert jax.tree.structure(small.opt_state) == jax.tree.structure(tx.init(small.params))
    assert jax.tree.map(jnp.shape, jax.tree.leaves(small.opt_state)) == jax.tree.map(
        jnp.shape, jax.tree.leaves(tx.init(small.params))
    )

    def compact_loss(params):
        return jnp.mean(jnp.square(small.fn(params, X) - 1))

    updates, _ = tx.update(jax.grad(compact_loss)(small.params), small.opt_state, small.params)
    assert jax.tree.map(jnp.shape, updates) == jax.tree.map(jnp.shape, small.params)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(updates))


def test_gamma_and_the_record_of_the_path_are_those_of_the_groups_that_stay():
    tx = OPTIMIZERS["record_path"]
    params, state = trained(tx, loss, PARAMS, 20)
    entered = pm.entry_steps(state)
    assert len(np.unique(entered["conv"]["kernel"])) > 1
    small = compact(find_units(fn, params, X), KEEP, params, state)
    after = pm.entry_steps(small.opt_state)
    np.testing.assert_array_equal(after["conv"]["kernel"], entered["conv"]["kernel"][KEEP["conv"]])
    np.testing.assert_array_equal(
        after["dense"]["kernel"], entered["dense"]["kernel"][KEEP["conv"]][:, KEEP["dense"]]
    )  # fmt: skip
    np.testing.assert_array_equal(
        pm.gamma(small.opt_state)["conv"]["kernel"], pm.gamma(state)["conv"]["kernel"][..., KEEP["conv"]]
    )
    assert pm.rank(small.params, small.opt_state)["conv"]["kernel"].shape == (5,)


def test_an_optimizer_that_sees_a_part_of_the_tree_is_followed_by_the_names_that_end_alike():
    """Linen trains variables["params"]; the function takes all variables."""
    variables = {"params": PARAMS, "batch_stats": {"conv": {"mean": jnp.zeros(8)}}}
    whole = lambda variables, x: fn(variables["params"], x - 0 * variables["batch_stats"]["conv"]["mean"].sum())
    tx = optax.adam(1e-2)
    params, state = trained(tx, loss, PARAMS, 3)
    units = find_units(whole, variables | {"params": params}, X)
    keep = {"params/conv": KEEP["conv"]}
    small = compact(units, keep, variables | {"params": params}, state)
    np.testing.assert_array_equal(
        small.opt_state[0].mu["dense"]["kernel"], state[0].mu["dense"]["kernel"][KEEP["conv"]]
    )


def test_a_factored_moment_cannot_follow_and_says_so():
    params = {
        **PARAMS,
        "dense": {"kernel": jnp.ones((8, 128)), "bias": jnp.ones(128)},
        "head": {"kernel": jnp.ones((128, 128))},
    }
    state = optax.adafactor(1e-2).init(params)
    with pytest.raises(ValueError, match=r"v_row/.* has shape .* which changes.*Start the optimizer afresh"):
        compact(find_units(fn, params, X), {"dense": np.arange(128) < 50}, params, state)


def test_groups_that_the_removal_cuts_through_are_named():
    tx = pm.record_path(pm.split_lbi(0.1, penalty=pm.Rules([("dense/kernel", pm.BlockLasso((4, 4)))])))
    with pytest.raises(ValueError, match=r"'dense/kernel'.*groups of BlockLasso.*cut through"):
        compact(find_units(fn, PARAMS, X), KEEP, PARAMS, tx.init(PARAMS))
