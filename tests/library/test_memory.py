"""What Split LBI costs and keeps: buffers given over, the bytes of the state, no copies, V in enough precision."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import parsimony as pm

CONV = pm.Rules([("conv", pm.GroupLasso(-1, strength=0.5)), ("kernel", pm.Lasso(0.05))])


def params_of(dtype=jnp.float32, side=24):
    rng = np.random.default_rng(0)
    shapes = {"conv": (3, 3, side // 4, side), "kernel": (4 * side, 2 * side), "bias": (2 * side,)}
    return {name: jnp.asarray(rng.normal(size=shape), dtype) for name, shape in shapes.items()}


def split_lbi(**changes):
    return pm.split_lbi(**{"learning_rate": 0.1, "nu": 1.0, "penalty": CONV, "momentum": 0.9} | changes)


def injected(**changes):
    hyper = {"learning_rate": 0.1, "nu": 1.0, "penalty": CONV, "momentum": 0.9}
    return optax.inject_hyperparams(pm.split_lbi)(**hyper | changes)


SCHEDULE = optax.cosine_decay_schedule(0.1, 100)
TRANSFORMATIONS = {
    "momentum": split_lbi,
    "paper's momentum": lambda: split_lbi(momentum=None, inner=optax.trace(0.9)),
    "schedule": lambda: split_lbi(learning_rate=SCHEDULE),
    "kappa is the caller's array": lambda: split_lbi(kappa=jnp.float32(1.0)),
    "injected": injected,
    "injected schedule": lambda: injected(learning_rate=SCHEDULE),
    "adam before": lambda: optax.chain(optax.scale_by_adam(), pm.inverse_scale_space(0.1, nu=1.0)),
    "path recorded": lambda: pm.record_path(split_lbi()),
}
every_transformation = pytest.mark.parametrize("make", TRANSFORMATIONS.values(), ids=TRANSFORMATIONS)


def step_of(tx):
    """One step, its arguments and results in the same order, so that each buffer has one to take its place."""

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return step


def buffers(tree) -> list[int]:
    return [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(tree)]


@every_transformation
def test_the_state_shares_no_buffer_with_the_parameters_nor_with_itself(make):
    """Or donating it would fail: at `init`, and after an update that is not compiled."""
    tx, params = make(), params_of()
    state = tx.init(params)
    _, after = tx.update(params, state, params)
    for tree in ((params, state), (params, after)):
        assert len(set(buffers(tree))) == len(buffers(tree))


@every_transformation
def test_donated_steps_give_the_same_and_use_every_buffer(make):
    tx, params = make(), params_of()
    kept, donated = (params, tx.init(params)), (params_of(), tx.init(params))
    keep, donate = jax.jit(step_of(tx)), jax.jit(step_of(tx), donate_argnums=(0, 1), keep_unused=True)
    for _ in range(3):
        given = donated
        kept = keep(*kept, jax.tree.map(jnp.cos, kept[0]))
        donated = donate(*donated, jax.tree.map(jnp.cos, donated[0]))  # "donated buffers were not usable" is an error
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(given))
    chex.assert_trees_all_close(donated, kept, rtol=1e-6, atol=1e-7)
    assert jax.tree.structure(tx.init(params)) == jax.tree.structure(given[1])  # what the caller gave lives on


def n_bytes(tree) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def test_the_state_is_adams_memory_and_three_scalars():
    """V and the momentum's trace, `count`, `time`, `kappa` and `strength`; Γ is recomputed, never kept."""
    params = params_of()
    assert n_bytes(split_lbi(momentum=None).init(params)) == n_bytes(params) + 4 * 4
    assert n_bytes(split_lbi().init(params)) == n_bytes(optax.adam(0.1).init(params)) + 3 * 4


NO_SECOND_BUFFER = {
    "the paper's penalties": {"penalty": None},
    "Lasso": {"penalty": pm.Lasso(0.1)},
    "GroupLasso": {"penalty": pm.GroupLasso(-1)},
    "GroupLasso by rows, rms": {"penalty": pm.GroupLasso(-2, scale="rms")},
    "momentum and decay": {"momentum": 0.9, "weight_decay": 1e-4},
    "Nesterov": {"momentum": 0.9, "nesterov": True},
    "paper's momentum": {"inner": optax.trace(0.9)},
    "dual rate": {"dual_learning_rate": 0.3},
    "schedule": {"learning_rate": SCHEDULE, "nu": 1.0},
}


def compiled_step(**changes):
    tx, params = split_lbi(**{"momentum": None, "nu": 1.0} | changes), params_of(side=128)
    step = jax.jit(step_of(tx), donate_argnums=(0, 1)).lower(params, tx.init(params), params).compile()
    shapes = "|".join(",".join(map(str, w.shape)) for w in params.values())
    copies = re.findall(rf"= f32\[(?:{shapes})\]\S* copy\(", step.as_text())
    return len(copies), step.memory_analysis().temp_size_in_bytes / n_bytes(params)


@pytest.mark.parametrize("changes", NO_SECOND_BUFFER.values(), ids=NO_SECOND_BUFFER)
def test_a_donated_step_on_a_cpu_copies_neither_w_nor_v(changes):
    copies, scratch = compiled_step(**changes)
    assert copies == 0
    # Before 0.10, XLA writes the squares of V down to sum them, one parameter at a time.
    assert scratch < (0.05 if jax.__version_info__ >= (0, 10) else 1.01)


def test_without_the_recovery_of_gamma_a_donated_step_copies():
    """What the test above would see: at ακ/ν = 1 the new V does not give Γ. If XLA learns better, drop `_dual_step`."""
    copies, scratch = compiled_step(learning_rate=1.0, kappa=1.0, nu=1.0)
    assert copies > 0
    assert scratch > 0.5


@pytest.mark.parametrize(("accumulator", "tolerance"), [("float32", 1e-6), ("bfloat16", 1e-2)])
def test_v_adds_up_many_small_steps_of_bfloat16_weights(accumulator, tolerance):
    """W = 1, α/ν = 1e-3: after 2,000 steps V = 2, also in bfloat16, where a plain sum stays at 0.5."""
    params, zeros = {"kernel": jnp.ones((2, 2), jnp.bfloat16)}, {"kernel": jnp.zeros((2, 2), jnp.bfloat16)}
    tx = pm.inverse_scale_space(1e-3, nu=1.0, penalty=pm.Lasso(10.0), accumulator_dtype=accumulator)
    state, _ = jax.lax.scan(lambda s, _: (tx.update(zeros, s, params)[1], None), tx.init(params), length=2000)
    np.testing.assert_allclose(state.dual["kernel"].astype(jnp.float32), 2.0, rtol=tolerance)
    assert pm.sparse_params(params, state)["kernel"].dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("dtype", "accumulator", "expected"),
    [
        ("bfloat16", "float32", "float32"),
        ("bfloat16", "bfloat16", "bfloat16"),
        ("float32", "bfloat16", "float32"),
        ("float32", "float64", "float64"),
        ("float64", "float32", "float64"),
    ],
)
def test_v_has_the_wider_of_the_two_dtypes_and_keeps_it(dtype, accumulator, expected):
    with jax.enable_x64(True):
        params = params_of(dtype)
        tx = split_lbi(accumulator_dtype=accumulator)
        updates, state = jax.jit(tx.update)(params, tx.init(params), params)
        for tree, wanted in [(updates, dtype), (tx.init(params)[2].dual, expected), (state[2].dual, expected)]:
            assert {leaf.dtype.name for leaf in jax.tree.leaves(tree)} == {wanted}
        assert {leaf.dtype.name for leaf in jax.tree.leaves(pm.gamma(state))} == {expected}


def test_float64_parameters_are_updated_in_float64():
    """Against the equations in NumPy, to the fifteenth digit."""
    with jax.enable_x64(True):
        alpha, kappa, nu = 0.3, 1.2, 1.7
        w, v = np.array([[2.0, -0.3], [0.7, 1.1]]), np.zeros((2, 2))
        tx, params = pm.inverse_scale_space(alpha, kappa, nu, pm.Lasso(0.4)), {"kernel": jnp.asarray(w)}
        state = tx.init(params)
        for _ in range(10):
            gradient = np.sin(3 * w)
            updates, state = jax.jit(tx.update)({"kernel": jnp.sin(3 * params["kernel"])}, state, params)
            params = optax.apply_updates(params, updates)
            coupling = (w - kappa * np.sign(v) * np.maximum(np.abs(v) - 0.4, 0)) / nu
            w, v = w - kappa * alpha * (gradient + coupling), v + alpha * coupling
        np.testing.assert_allclose(params["kernel"], w, rtol=1e-14)
        np.testing.assert_allclose(state.dual["kernel"], v, rtol=1e-14)


def test_what_is_read_off_a_step_outlives_the_next_one_that_is_donated():
    """W̃, masked weights and the zeroed model share no buffer with W, and none with the state."""
    params = {"w1": jnp.ones((4, 6)), "b1": jnp.ones(6), "w2": jnp.ones((6, 3)), "key": jax.random.key(0)}
    fn = lambda p, x: jax.nn.relu(x @ p["w1"] + p["b1"][None]) @ p["w2"]
    units = pm.structure.find_units(fn, params, jnp.ones((2, 4)))
    weights = {name: w for name, w in params.items() if name != "key"}
    tx = pm.split_lbi(0.1, nu=1.0)
    state = tx.init(weights)
    read = {
        "W̃": pm.sparse_params(weights, state),
        "masked": pm.apply_masks(weights, {"w1": jnp.ones((4, 6), bool)}),
        "zeroed": units.zero({"w2": np.arange(6) < 3} if "w2" in units.sets else {"w1": np.arange(6) < 3}, params),
        "compact": pm.structure.compact(units, {}, params).params,
        "gamma": pm.gamma(state),
        "support": pm.support(state),
    }
    before = jax.tree.map(lambda x: np.asarray(jax.random.key_data(x) if x.dtype == params["key"].dtype else x), read)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(weights, state):
        updates, state = tx.update(jax.tree.map(jnp.ones_like, weights), state, weights)
        return optax.apply_updates(weights, updates), state

    step(weights, state)
    jax.block_until_ready(jax.jit(lambda key: jax.random.split(key)[0], donate_argnums=0)(params["key"]))
    after = jax.tree.map(lambda x: np.asarray(jax.random.key_data(x) if x.dtype == params["key"].dtype else x), read)
    chex.assert_trees_all_equal(before, after)
