"""Inside Optax's wrappers Split LBI takes the steps that it takes alone, and Γ, its support and W̃ can be read."""

import functools
import zlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import parsimony as pm

RULES = pm.Rules([("conv", pm.GroupLasso(-1, strength=1.9)), ("dense/kernel", pm.Lasso(0.3))])
NUMBERS = {"learning_rate": 0.2, "kappa": 1.5, "nu": 2.0}
STEPS = 12


def initial_params():
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape) * unequal(shape), jnp.float32)
    return {"conv": {"kernel": draw(2, 2, 3, 8)}, "dense": {"kernel": draw(6, 5), "bias": draw(5)}}


def unequal(shape):
    """Some filters matter more than others, so that they enter one by one."""
    return np.linspace(0.1, 2, shape[-1])


def loss_gradient(params, step):
    """Of a noisy quadratic loss. It depends on a parameter's name, not on its place, so that a part can train alone."""

    def of(path, w):
        seed = zlib.crc32(jax.tree_util.keystr(path).encode())
        rng, noise = np.random.default_rng(seed), np.random.default_rng([seed, step])
        curvature, goal = rng.uniform(0.1, 1, w.shape), rng.normal(size=w.shape) * unequal(w.shape)
        return (curvature * (w - goal) + 0.1 * noise.normal(size=w.shape)).astype(w.dtype)

    return jax.tree_util.tree_map_with_path(of, params)


def train(tx, params, steps=range(STEPS), state=None, **extra_args):
    state = tx.init(params) if state is None else state
    update = jax.jit(tx.update)
    for step in steps:
        updates, state = update(loss_gradient(params, step), state, params, **extra_args)
        params = optax.apply_updates(params, updates)
    return params, state


@functools.cache
def bare_run():
    return train(bare(), initial_params())


def readouts(params, state):
    return pm.gamma(state), pm.support(state), pm.sparse_params(params, state)


def assert_same_run(one, other):
    """The same weights, Γ, support and W̃; the support is neither empty nor full, so that there is something to see."""
    (params, state), (other_params, other_state) = one, other
    chex.assert_trees_all_close(params, other_params, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(readouts(params, state), readouts(other_params, other_state), rtol=1e-5, atol=1e-6)
    for kernel in (pm.support(state)["conv"]["kernel"], pm.support(state)["dense"]["kernel"]):
        assert 0 < kernel.mean() < 1


def bare(**changes):
    return pm.split_lbi(**NUMBERS | {"penalty": RULES, "momentum": 0.5} | changes)


def inject(**changes):
    return optax.inject_hyperparams(pm.split_lbi)(**NUMBERS | {"penalty": RULES, "momentum": 0.5} | changes)


def everything(params):
    return jax.tree.map(lambda _: True, params)


def all_to_one(tx):
    return optax.partition({"all": tx}, lambda params: jax.tree.map(lambda _: "all", params))


TRANSPARENT = {
    "chain": lambda: optax.chain(optax.clip(1e6), bare()),
    "chain in a chain": lambda: optax.chain(optax.identity(), optax.chain(bare(), optax.scale(1.0))),
    "named_chain": lambda: optax.named_chain(("clip", optax.clip(1e6)), ("lbi", bare())),
    "masked": lambda: optax.masked(bare(), everything),
    "partition": lambda: all_to_one(bare()),
    "MultiSteps": lambda: optax.MultiSteps(bare(), every_k_schedule=1),
    "apply_if_finite": lambda: optax.apply_if_finite(bare(), max_consecutive_errors=3),
    "inject_hyperparams": inject,
    "inject_hyperparams in a chain": lambda: optax.chain(optax.clip(1e6), inject()),
    "masked in partition": lambda: all_to_one(optax.masked(bare(), everything)),
    "apply_if_finite of partition of inject_hyperparams": lambda: optax.apply_if_finite(all_to_one(inject()), 3),
    "MultiSteps of apply_if_finite of masked of a chain": lambda: optax.MultiSteps(
        optax.apply_if_finite(optax.masked(optax.chain(bare(), optax.identity()), everything), 3), 1
    ),
    "MultiSteps of inject_hyperparams, as a transformation": lambda: optax.MultiSteps(
        inject(), 1
    ).gradient_transformation(),
}


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


def test_under_a_mask_the_hidden_parameters_are_neither_seen_nor_read():
    mask = {"conv": True, "dense": False}
    masked = optax.chain(optax.masked(bare(penalty=pm.GroupLasso(strength=1.9)), mask))
    params, state = train(masked, initial_params())
    alone, alone_state = train(bare(penalty=pm.GroupLasso(strength=1.9)), {"conv": initial_params()["conv"]})

    chex.assert_trees_all_close(params["conv"], alone["conv"], rtol=1e-5)
    chex.assert_trees_all_close(pm.gamma(state)["conv"], pm.gamma(alone_state)["conv"], rtol=1e-5, atol=1e-6)
    assert 0 < pm.support(state)["conv"]["kernel"].mean() < 1
    assert isinstance(pm.gamma(state)["dense"], optax.MaskedNode)
    assert isinstance(pm.support(state)["dense"], optax.MaskedNode)
    sparse = pm.sparse_params(params, state)
    assert sparse["dense"] is not params["dense"]
    chex.assert_trees_all_equal(sparse["dense"], params["dense"])
    chex.assert_trees_all_close(sparse["conv"], pm.sparse_params(alone, alone_state)["conv"], rtol=1e-5)


LABELS = {"conv": "one", "dense": "other"}
FAST = {"learning_rate": 0.3, "kappa": 1.0, "nu": 1.5, "penalty": pm.Lasso(0.4)}


def part_of(tree, label):
    return {name: sub for name, sub in tree.items() if LABELS[name] == label}


def test_two_split_lbi_groups_under_partition_run_as_if_alone_and_read_as_one():
    """Two values of κ, ν, α and Ω; the read-outs merge, each group with its own κ."""
    one, other = bare(penalty=pm.GroupLasso(strength=1.9)), pm.split_lbi(**FAST)
    params, state = train(optax.partition({"one": one, "other": other}, LABELS), initial_params())
    for label, tx in (("one", one), ("other", other)):
        alone, alone_state = train(tx, part_of(initial_params(), label))
        chex.assert_trees_all_close(part_of(params, label), alone, rtol=1e-5, atol=1e-6)
        merged = tuple(part_of(tree, label) for tree in readouts(params, state))
        chex.assert_trees_all_close(merged, readouts(alone, alone_state), rtol=1e-5, atol=1e-6)
    assert 0 < pm.support(state)["conv"]["kernel"].mean() < 1
    assert 0 < pm.support(state)["dense"]["kernel"].mean() < 1


def test_one_group_beside_plain_sgd():
    sgd = optax.sgd(0.1)
    tx = optax.partition({"one": bare(penalty=pm.GroupLasso(strength=1.9)), "other": sgd}, LABELS)
    params, state = train(tx, initial_params())
    alone, alone_state = train(bare(penalty=pm.GroupLasso(strength=1.9)), part_of(initial_params(), "one"))
    plain, _ = train(sgd, part_of(initial_params(), "other"))

    chex.assert_trees_all_close(params, {**alone, **plain}, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(pm.gamma(state)["conv"], pm.gamma(alone_state)["conv"], rtol=1e-5, atol=1e-6)
    assert 0 < pm.support(state)["conv"]["kernel"].mean() < 1
    assert jax.tree.leaves(pm.gamma(state)["dense"]) == []
    chex.assert_trees_all_equal(pm.sparse_params(params, state)["dense"], params["dense"])


def test_two_split_lbi_states_for_one_parameter_are_refused():
    _, state = train(optax.chain(bare(), bare()), initial_params(), steps=range(1))
    with pytest.raises(ValueError, match="two Split LBI states hold the same parameter"):
        pm.gamma(state)


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
    with pytest.raises(AssertionError):
        chex.assert_trees_all_close(initial_params(), first, atol=1e-2)


def test_injected_schedules_are_the_schedules():
    """The dual rate has its own schedule; a κ or a ν that moves exists only through `inject_hyperparams`."""
    rates = {
        "learning_rate": optax.cosine_decay_schedule(0.3, STEPS),
        "dual_learning_rate": optax.linear_schedule(0.1, 0.4, STEPS),
    }
    run, expected = train(inject(**rates), initial_params()), train(bare(**rates), initial_params())
    assert_same_run(run, expected)
    np.testing.assert_allclose(
        split_lbi_state(run[1]).time, sum(0.1 + 0.3 * step / STEPS for step in range(STEPS)), rtol=1e-5
    )


def split_lbi_state(state) -> pm.SplitLBIState:
    found = [s for s in jax.tree.leaves(state, is_leaf=is_split_lbi) if is_split_lbi(s)]
    assert len(found) == 1
    return found[0]


def is_split_lbi(node) -> bool:
    return isinstance(node, pm.SplitLBIState)


@pytest.mark.parametrize(
    "change", [{"learning_rate": 0.02}, {"kappa": 0.7}, {"nu": 5.0}, {"kappa": 3.0, "nu": 9.0}], ids=str
)
def test_a_hyper_parameter_changed_in_mid_run_acts_from_the_next_step(change):
    """As if another transformation took over with the same state."""
    first, rest = range(STEPS // 2), range(STEPS // 2, STEPS)
    params, state = train(inject(), initial_params(), first)
    for name, value in change.items():
        state.hyperparams[name] = jnp.asarray(value)
    run = train(inject(), params, rest, state)

    params, state = train(bare(), initial_params(), first)
    expected = train(bare(**change), params, rest, state)
    assert_same_run(run, expected)
    assert split_lbi_state(run[1]).kappa == pytest.approx(change.get("kappa", NUMBERS["kappa"]))
    with pytest.raises(AssertionError):
        assert_same_run(run, bare_run())


@pytest.mark.parametrize("make", [bare, inject], ids=["bare", "inject_hyperparams"])
def test_a_warm_up_from_zero_moves_nothing_in_its_first_step(make):
    tx = make(learning_rate=optax.linear_schedule(0.0, 0.3, 6))
    params, state = train(tx, initial_params(), range(1))
    chex.assert_trees_all_equal(params, initial_params())
    chex.assert_trees_all_equal(split_lbi_state(state).dual, jax.tree.map(jnp.zeros_like, params))
    assert (split_lbi_state(state).time, split_lbi_state(state).count) == (0, 1)

    params, state = train(tx, params, range(1, STEPS), state)
    assert split_lbi_state(state).time == pytest.approx(0.3 * (1 + 2 + 3 + 4 + 5) / 6 + 0.3 * 6)
    assert 0 < pm.support(state)["conv"]["kernel"].mean() < 1


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


def test_lookahead_reads_gamma_from_the_fast_weights_state():
    """Against lookahead by hand: every third step slow += (fast − slow)/2, and fast = slow; V goes on."""
    tx = optax.lookahead(bare(), sync_period=3, slow_step_size=0.5)
    params = optax.LookaheadParams.init_synced(initial_params())
    state, update = tx.init(params), jax.jit(tx.update)
    fast = slow = initial_params()
    fast_state = bare().init(fast)
    for step in range(STEPS):
        updates, state = update(loss_gradient(params.fast, step), state, params)
        params = optax.apply_updates(params, updates)
        fast, fast_state = train(bare(), fast, [step], fast_state)
        if step % 3 == 2:
            fast = slow = jax.tree.map(lambda a, b: a + 0.5 * (b - a), slow, fast)
    assert_same_run((params.fast, state), (fast, fast_state))
    chex.assert_trees_all_close(pm.sparse_params(params.slow, state), pm.sparse_params(slow, fast_state), rtol=1e-5)
