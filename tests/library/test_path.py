"""The record of the path: the step and the time at which each group first entered, wherever Split LBI sits."""

import functools

import chex
import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx
from flax.training.train_state import TrainState

import parsimony as pm
from helpers import flax_runs, mapped, wrapped
from helpers import spread as sharded
from helpers.cases import mostly

STEPS = 16


def watch(tx, params, steps=STEPS, **extra_args):
    """The definition: reads Γ after every step, and notes the first in which a group is not zero."""
    state, update = tx.init(params), jax.jit(tx.update)
    first = jax.tree.map(lambda norms: (np.full(norms.shape, -1), np.full(norms.shape, -1.0)), pm.group_norms(state))
    for step in range(steps):
        updates, state = update(wrapped.loss_gradient(params, step), state, params, **extra_args)
        params = optax.apply_updates(params, updates)
        now = optax.tree.get(state, "SplitLBIState")
        for norms, (count, time) in zip(
            jax.tree.leaves(pm.group_norms(state)),
            jax.tree.leaves(first, is_leaf=lambda x: isinstance(x, tuple)),
            strict=True,
        ):
            new = (np.asarray(norms) != 0) & (count < 0)
            count[new], time[new] = now.count, now.time
    pick = lambda place: jax.tree.map(lambda pair: pair[place], first, is_leaf=lambda x: isinstance(x, tuple))
    return params, state, pick(0), pick(1)


def assert_enters_one_by_one(steps):
    """There is something to see: several steps of entry, and something that never enters."""
    seen = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(steps)])
    assert (seen == pm.NEVER).any()
    assert len(np.unique(seen)) > 4


@pytest.mark.parametrize("name", mostly(wrapped.TRANSPARENT, ["chain", "MultiSteps", "inject_hyperparams in a chain"]))
def test_around_any_wrapper_the_record_is_what_an_observer_writes_down(name):
    tx = wrapped.TRANSPARENT[name]()
    tx = tx.gradient_transformation() if isinstance(tx, optax.MultiSteps) else tx
    params, state, steps, times = watch(tx, wrapped.initial_params())
    recorded, recorded_state = wrapped.train(pm.record_path(tx), wrapped.initial_params(), range(STEPS))
    chex.assert_trees_all_equal(recorded, params)
    chex.assert_trees_all_equal(recorded_state.inner_state, state)
    chex.assert_trees_all_equal(pm.entry_steps(recorded_state), jax.tree.map(np.int32, steps))
    chex.assert_trees_all_close(pm.entry_times(recorded_state), times, rtol=1e-6)
    assert_enters_one_by_one(steps)


@pytest.mark.slow
@pytest.mark.parametrize("wrap", wrapped.TRANSPARENT.values(), ids=wrapped.TRANSPARENT)
def test_inside_any_wrapper_the_record_can_be_read(wrap, monkeypatch):
    """The wrappers of the table, with the recorded transformation in the place of the bare one."""
    bare = wrapped.bare
    expected = pm.entry_steps(wrapped.train(pm.record_path(bare()), wrapped.initial_params(), range(STEPS))[1])

    def recorded(learning_rate, kappa, nu, penalty, momentum):
        return pm.record_path(pm.split_lbi(learning_rate, kappa, nu, penalty, momentum=momentum))

    inject = lambda: optax.inject_hyperparams(recorded)(**wrapped.NUMBERS, penalty=wrapped.RULES, momentum=0.5)
    monkeypatch.setattr(wrapped, "bare", lambda: pm.record_path(bare()))
    monkeypatch.setattr(wrapped, "inject", inject)
    _, state = wrapped.train(wrap(), wrapped.initial_params(), range(STEPS))
    chex.assert_trees_all_equal(pm.entry_steps(state), expected)
    assert_enters_one_by_one(expected)


def test_micro_batches_and_rejected_steps_are_no_steps():
    """Under `MultiSteps` and `apply_if_finite` the record counts what Split LBI has done."""
    tx = pm.record_path(optax.MultiSteps(wrapped.bare(), every_k_schedule=4).gradient_transformation())
    params, state = wrapped.train(tx, wrapped.initial_params(), range(4 * STEPS))
    steps = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(pm.entry_steps(state))])
    assert steps.max() <= STEPS
    poison = jax.tree.map(lambda w: jnp.full_like(w, jnp.nan), params)
    tx = pm.record_path(optax.apply_if_finite(wrapped.bare(penalty=pm.Lasso(1e-6)), 5))
    _, after = tx.update(poison, tx.init(params), params)
    assert (jax.tree.leaves(pm.entry_steps(after))[0] == pm.NEVER).all()


def test_the_parts_of_a_partition_are_recorded_together_and_apart():
    labels = {"conv": "one", "dense": "other"}
    parts = {"one": wrapped.bare(penalty=wrapped.GROUPS), "other": pm.split_lbi(0.3, nu=1.5, penalty=pm.Lasso(0.4))}
    outside = pm.record_path(optax.partition(parts, labels))
    inside = optax.partition({name: pm.record_path(tx) for name, tx in parts.items()}, labels)
    alone = {}
    for label, tx in parts.items():
        own = wrapped.part_of  # the sub-tree under this label
        mine = {name: sub for name, sub in own(wrapped.initial_params(), label).items()}
        alone |= pm.entry_steps(wrapped.train(pm.record_path(tx), mine, range(STEPS))[1])
    for tx in (outside, inside):
        _, state = wrapped.train(tx, wrapped.initial_params(), range(STEPS))
        chex.assert_trees_all_equal(pm.entry_steps(state), alone)
    assert_enters_one_by_one(alone)


def test_a_group_that_leaves_and_returns_keeps_its_first_step():
    """V is driven up, down and up again by weights of changing sign."""
    tx = pm.record_path(pm.inverse_scale_space(1.0, nu=2.0, penalty=pm.Lasso(0.9)))
    params = {"kernel": jnp.array([[1.0]])}
    state, inside = tx.init(params), []
    for sign in [1, 1, -1, -1, 1, 1, 1]:
        weights = {"kernel": jnp.array([[1.0 * sign]])}
        _, state = tx.update({"kernel": jnp.zeros((1, 1))}, state, weights)
        inside.append(bool(pm.support(state)["kernel"][0, 0]))
    assert inside == [False, True, False, False, False, True, True]
    assert pm.entry_steps(state)["kernel"].tolist() == [[2]]


@pytest.mark.parametrize(
    ("penalty", "shape"),
    [(pm.GroupLasso(0, 3.0), (6,)), (pm.GroupLasso((0, 1), 0.5), (6, 8)), (pm.SparseGroupLasso(-1, 3.0, 0.3), (8,)),
     (pm.BlockLasso((4, 3), 2.0), (2, 3)), (pm.Lasso(0.5), (6, 8)), (pm.NuclearNorm(3.0), (6,))],
    ids=lambda value: type(value).__name__ if hasattr(value, "prox") else "",
)  # fmt: skip
def test_an_entry_for_what_each_penalty_thresholds_together(penalty, shape):
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.normal(size=(6, 8)) * np.linspace(0.2, 2, 8), jnp.float32), "b": jnp.ones(8)}
    tx = pm.record_path(pm.split_lbi(0.3, nu=1.5, penalty=penalty))
    assert pm.entry_steps(tx.init(params))["w"].shape == shape
    _, state = wrapped.train(tx, params, range(STEPS))
    steps = pm.entry_steps(state)
    assert steps["w"].dtype == jnp.int32
    assert steps["b"] is None
    entered, inside = np.asarray(steps["w"]) > 0, np.asarray(pm.group_norms(state)["w"]) > 0
    assert inside.any()
    assert entered[inside].all()


@pytest.mark.slow
@mapped.every_transformation
def test_scans_and_seeds_under_vmap_record_what_single_runs_record(name):
    tx = pm.record_path(mapped.TRANSFORMATIONS[name]())
    single = [mapped.run(tx, *mapped.problem(seed)) for seed in range(2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(mapped.problem, range(2)))
    _, states = jax.jit(jax.vmap(lambda *arguments: mapped.scanned(tx, *arguments)))(*stacked)
    read = jax.vmap(pm.entry_steps)(states)
    for seed, (_, state) in enumerate(single):
        chex.assert_trees_all_equal(mapped.at(read, seed), pm.entry_steps(state))
    with pytest.raises(ValueError, match=r"extra axis of size 2"):
        pm.entry_steps(states)


def test_eight_devices_record_the_same_path():
    tx = pm.record_path(mapped.split_lbi())
    average = lambda grads: jax.lax.pmean(grads, "devices")
    step = jax.pmap(mapped.make_step(tx, average), axis_name="devices")
    params, batches = mapped.problem(0)
    many = jax.tree.map(lambda leaf: jnp.stack([leaf] * 8), (params, tx.init(params)))
    for number in range(mapped.STEPS):
        many = step(*many, jax.tree.map(lambda x, n=number: x[n][:, None], batches))
    _, single = mapped.run(tx, params, batches)
    chex.assert_trees_all_equal(pm.entry_steps(mapped.at(many[1], 3)), pm.entry_steps(single))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "name"),
    list(
        zip(
            sharded.SETTINGS,
            ["Lasso", "GroupLasso", "SparseGroupLasso", "GroupLasso of pairs of channels", "GroupLasso"],
            strict=True,
        )
    ),
)
def test_spread_parameters_record_the_same_path(setting, name):
    (kind, place), (penalty, shape) = sharded.SETTINGS[setting], sharded.PENALTIES[name]
    tx = pm.record_path(pm.split_lbi(0.3, kappa=1.2, nu=1.5, penalty=penalty, momentum=0.5))
    alone, alone_state = sharded.run(tx, jax.tree.map(jnp.asarray, sharded.params_of(shape)))
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(kind, kind))
    with jax.set_mesh(mesh):
        params, state = sharded.run(tx, sharded.spread(sharded.params_of(shape), mesh, place))
        steps = pm.entry_steps(state)
        masks = pm.select(params, state, 0.5)
        fine = pm.keep_support(optax.adam(0.1), masks)
        kept, _ = sharded.run(fine, params)
    chex.assert_trees_all_equal(jax.device_get(steps), jax.device_get(pm.entry_steps(alone_state)))
    expected = pm.select(alone, alone_state, 0.5)
    chex.assert_trees_all_equal(jax.device_get(masks), jax.device_get(expected))
    sharded.assert_lie_alike((masks, kept), (params, params))
    assert not np.asarray(jax.device_get(kept["kernel"]))[~np.asarray(expected["kernel"])].any()


@pytest.mark.slow
@pytest.mark.parametrize("transform", [nnx.jit, lambda step: step], ids=["nnx.jit", "eager"])
def test_an_nnx_optimizer_records_selects_and_fine_tunes(transform):
    tx = pm.record_path(flax_runs.alone())
    net, optimizer = flax_runs.optimizer_run(tx, transform)
    _, params, _, state = flax_runs.functional_run(tx)
    steps = pm.entry_steps(optimizer.opt_state)
    np.testing.assert_array_equal(steps["conv"]["kernel"][...], pm.entry_steps(state)["conv"]["kernel"])
    masks = pm.select(nnx.state(net, nnx.Param), optimizer.opt_state, sparsity=0.5)
    expected = pm.select(params, state, sparsity=0.5)
    chex.assert_trees_all_equal(flax_runs.plain(masks), expected)
    nnx.update(net, pm.apply_masks(nnx.state(net, nnx.Param), masks))

    fine = nnx.Optimizer(net, pm.keep_support(optax.adam(0.01), masks), wrt=nnx.Param)
    before = np.asarray(net.conv.kernel[...])
    for _ in range(3):
        fine.update(net, nnx.grad(lambda net: flax_runs.cross_entropy(net(flax_runs.X)))(net))
    after = np.asarray(net.conv.kernel[...])
    np.testing.assert_array_equal(after != 0, np.asarray(expected["conv"]["kernel"]))
    assert (after != before).any()


@pytest.mark.slow
@pytest.mark.parametrize("freeze", [lambda tree: tree, flax.core.freeze], ids=["dict", "FrozenDict"])
def test_linens_train_state_records_and_selects(freeze):
    net = flax_runs.LinenNet()
    params = net.init(jax.random.key(0), flax_runs.X)["params"]
    tx = pm.record_path(flax_runs.alone())
    state = TrainState.create(apply_fn=net.apply, params=freeze(params), tx=tx)
    gradient = jax.grad(lambda params: flax_runs.cross_entropy(net.apply({"params": params}, flax_runs.X)))
    for _ in range(flax_runs.STEPS):
        state = state.apply_gradients(grads=gradient(state.params))
    steps = flax_runs.plain(pm.entry_steps(state.opt_state))
    assert steps["conv"]["kernel"].shape == (8,)
    assert (np.asarray(steps["dense"]["kernel"]) > 0).any()
    masks = pm.select(state.params, state.opt_state, sparsity=0.5)
    assert type(masks) is type(state.params)
    assert int(masks["conv"]["kernel"][0, 0, 0].sum()) == 4


def test_orbax_restores_a_record(tmp_path):
    tx = pm.record_path(wrapped.bare())
    params, state = wrapped.train(tx, wrapped.initial_params(), range(STEPS))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "state", tx.init(params))
    chex.assert_trees_all_equal(restored, state)


def test_map_params_reaches_a_recorded_state():
    params = wrapped.initial_params()
    tx = pm.record_path(wrapped.bare())
    state = optax.tree.map_params(tx, lambda leaf: leaf + 1, tx.init(params))
    assert (optax.tree.get(state, "dual")["conv"]["kernel"] == 1).all()


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (lambda: pm.record_path(0.1), TypeError, "expected an Optax transformation"),
        (lambda: pm.record_path(optax.sgd(0.1)).init({"w": jnp.ones((2, 2))}), ValueError, "no Split LBI state"),
        (lambda: pm.entry_steps(pm.split_lbi(0.1).init({"w": jnp.ones((2, 2))})), ValueError,
         r"never recorded|not recorded.*tx = pm\.record_path"),
        (lambda: pm.entry_times(optax.EmptyState()), ValueError, "not recorded"),
    ],
    ids=["no transformation", "no Split LBI", "a path that was not recorded", "no state at all"],
)  # fmt: skip
def test_what_cannot_be_recorded_or_read_is_said(act, error, message):
    with pytest.raises(error, match=message):
        act()


def test_the_update_is_compiled_once_and_donates():
    chex.clear_trace_counter()
    tx, params = pm.record_path(wrapped.bare()), wrapped.initial_params()
    step = lambda params, state, grads: (lambda out: (optax.apply_updates(params, out[0]), out[1]))(
        tx.update(grads, state, params)
    )
    step = jax.jit(chex.assert_max_traces(step, n=1), donate_argnums=(0, 1))
    state, grads = tx.init(params), functools.partial(wrapped.loss_gradient, params)
    grads = [grads(number) for number in range(3)]
    for number in range(3):
        params, state = step(params, state, grads[number])
    assert optax.tree.get(state, "count") == 3
