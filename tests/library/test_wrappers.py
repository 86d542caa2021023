"""Inside Optax's wrappers Split LBI takes the steps that it takes alone, and Γ, its support and W̃ can be read."""

import chex
import jax
import jax.numpy as jnp
import optax
import pytest

import parsimony as pm
from helpers.wrapped import (
    GROUPS,
    LABELS,
    NUMBERS,
    RULES,
    STEPS,
    TRANSPARENT,
    all_to_one,
    assert_close,
    bare,
    bare_run,
    everything,
    initial_params,
    inject,
    loss_gradient,
    part_of,
    readouts,
    train,
)


def assert_partly_in(*kernels):
    """The support is neither empty nor full, so that there is something to see."""
    assert all(0 < kernel["kernel"].mean() < 1 for kernel in kernels)


def assert_same_run(one, other):
    """The same weights, Γ, support and W̃, which is W where Γ is not zero."""
    (params, state), (other_params, other_state) = one, other
    inside = jax.tree.map(jnp.multiply, params, pm.support(state))
    chex.assert_trees_all_equal(pm.sparse_params(params, state), inside)
    assert_close(params, other_params)
    assert_close(readouts(params, state), readouts(other_params, other_state))
    assert_partly_in(pm.support(state)["conv"], pm.support(state)["dense"])


@pytest.mark.parametrize("make", TRANSPARENT.values(), ids=TRANSPARENT)
def test_a_wrapper_that_changes_nothing_changes_nothing(make):
    assert_same_run(train(make(), initial_params()), bare_run())


def test_a_chain_is_the_sum_of_its_parts():
    """`split_lbi` against its definition: decay and trace on the loss gradient, before the step."""
    parts = optax.chain(
        optax.add_decayed_weights(0.01),
        optax.trace(0.9, nesterov=True),
        pm.inverse_scale_space(**NUMBERS, penalty=RULES),
    )
    whole = pm.split_lbi(**NUMBERS, penalty=RULES, momentum=0.9, nesterov=True, weight_decay=0.01)
    assert_same_run(train(whole, initial_params()), train(parts, initial_params()))


OTHERS = {
    "another Split LBI": pm.split_lbi(learning_rate=0.3, kappa=1.0, nu=1.5, penalty=pm.Lasso(0.4)),
    "the same penalty, injected": optax.inject_hyperparams(pm.split_lbi)(0.2, kappa=2.0, penalty=pm.Lasso(0.4), nu=1.5),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_two_split_lbi_groups_under_partition_run_as_if_alone_and_read_as_one(other):
    """Two values of κ, ν, α and Ω; the read-outs merge, each group with its own κ."""
    params, state = train(optax.partition({"one": bare(penalty=GROUPS), "other": other}, LABELS), initial_params())
    for label, tx in (("one", bare(penalty=GROUPS)), ("other", other)):
        alone, alone_state = train(tx, part_of(initial_params(), label))
        assert_close(part_of(params, label), alone)
        merge_variables = tuple(part_of(tree, label) for tree in readouts(params, state))
        assert_close(merge_variables, readouts(alone, alone_state))
    assert_partly_in(pm.support(state)["conv"], pm.support(state)["dense"])


def masked_beside_sgd(tx):
    """`masked` hands on the gradients of what it hides, so that sgd can take them up."""
    is_other = {"conv": False, "dense": True}
    return optax.chain(optax.masked(tx, {"conv": True, "dense": False}), optax.masked(optax.sgd(0.1), is_other))


BESIDE_SGD = {
    "partition": lambda tx: optax.partition({"one": tx, "other": optax.sgd(0.1)}, LABELS),
    "masked": masked_beside_sgd,
}


@pytest.mark.parametrize("beside_sgd", BESIDE_SGD.values(), ids=BESIDE_SGD)
def test_one_group_beside_plain_sgd(beside_sgd):
    """What Split LBI does not see has no Γ, and is kept in W̃."""
    params, state = train(beside_sgd(bare(penalty=GROUPS)), initial_params())
    alone, alone_state = train(bare(penalty=GROUPS), part_of(initial_params(), "one"))
    plain, _ = train(optax.sgd(0.1), part_of(initial_params(), "other"))
    gamma, support, sparse = readouts(params, state)
    assert_close(params, {**alone, **plain})
    assert_close(({"conv": gamma["conv"]}, {"conv": support["conv"]}), readouts(alone, alone_state)[:2])
    assert_close(sparse, {**pm.sparse_params(alone, alone_state), "dense": params["dense"]})
    assert_partly_in(support["conv"])
    assert jax.tree.leaves((gamma["dense"], support["dense"])) == []


@pytest.mark.parametrize("make", [bare, inject], ids=["bare", "inject_hyperparams"])
def test_multi_steps_are_one_step_on_the_averaged_gradient(make):
    """Four micro-batches a step; between the steps W, V and Γ stand still."""
    accumulated = optax.MultiSteps(make(), every_k_schedule=4)
    params, single = initial_params(), initial_params()
    state, single_state = accumulated.init(params), bare().init(single)
    update, single_update = jax.jit(accumulated.update), jax.jit(bare().update)
    for step in range(STEPS):
        micro = [loss_gradient(single, 4 * step + part) for part in range(4)]
        before = params, pm.gamma(state)
        for gradient in micro:
            chex.assert_trees_all_equal((params, pm.gamma(state)), before)
            updates, state = update(gradient, state, params)
            params = optax.apply_updates(params, updates)
        averaged = jax.tree.map(lambda *g: sum(g) / 4, *micro)
        updates, single_state = single_update(averaged, single_state, single)
        single = optax.apply_updates(single, updates)
    assert_same_run((params, state), (single, single_state))


def test_extra_arguments_pass_through_multi_steps_partition_and_masked_to_the_inner_transformation():
    """`reduce_on_plateau` reads the loss from `value=`; it sees no progress, and brings the weights to a stop."""
    inner = optax.contrib.reduce_on_plateau(factor=1e-6, patience=1, min_scale=0.0)
    tx = optax.MultiSteps(all_to_one(optax.masked(bare(momentum=None, inner=inner), everything)), 1)
    first, state = train(tx, initial_params(), steps=range(2), value=jnp.float32(1.0))
    last, _ = train(tx, first, steps=range(2, 6), state=state, value=jnp.float32(1.0))
    chex.assert_trees_all_close(first, last, atol=1e-5)
    assert jnp.abs(first["conv"]["kernel"] - initial_params()["conv"]["kernel"]).max() > 0.1


@pytest.mark.parametrize("make", [bare, inject], ids=["bare", "inject_hyperparams"])
def test_a_gradient_that_is_no_number_leaves_w_v_and_gamma_untouched(make):
    """The run with one NaN gradient is the run without that step."""
    tx = optax.apply_if_finite(make(), max_consecutive_errors=5)
    params, state = train(tx, initial_params(), range(6))
    poison = loss_gradient(params, 6)
    poison["conv"]["kernel"] = poison["conv"]["kernel"].at[0, 0, 0, 0].set(jnp.nan)
    updates, after = jax.jit(tx.update)(poison, state, params)

    assert (after.notfinite_count, after.total_notfinite) == (1, 1)
    chex.assert_trees_all_equal(optax.apply_updates(params, updates), params)
    chex.assert_trees_all_equal(after.inner_state, state.inner_state)
    chex.assert_trees_all_equal(readouts(params, after), readouts(params, state))
    assert_same_run(train(tx, params, range(6, STEPS), after), bare_run())


def test_lookahead_keeps_v_when_the_weights_step_back():
    """Against lookahead by hand: every third step slow += (fast − slow)/2 and fast = slow, while V goes on."""
    tx, single = optax.lookahead(bare(), sync_period=3, slow_step_size=0.5), bare()
    params, fast = optax.LookaheadParams.init_synced(initial_params()), initial_params()
    state, single_state, slow = tx.init(params), single.init(fast), fast
    update, single_update = jax.jit(tx.update), jax.jit(single.update)
    for step in range(STEPS):
        updates, state = update(loss_gradient(params.fast, step), state, params)
        params = optax.apply_updates(params, updates)
        updates, single_state = single_update(loss_gradient(fast, step), single_state, fast)
        fast = optax.apply_updates(fast, updates)
        if step % 3 == 2:
            fast = slow = jax.tree.map(lambda a, b: a + 0.5 * (b - a), slow, fast)
    assert_same_run((params.fast, state), (fast, single_state))
    assert_close(pm.sparse_params(params.slow, state), pm.sparse_params(slow, single_state))
