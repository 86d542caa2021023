"""Hyper-parameters that move: schedules, `inject_hyperparams`, and values changed in the middle of a run."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import parsimony as pm

STEPS = 12
HYPER = {"learning_rate": 0.2, "kappa": 1.5, "nu": 2.0, "penalty": pm.Lasso(0.3), "momentum": 0.5}


def bare(**changes):
    return pm.split_lbi(**HYPER | changes)


def inject(**changes):
    return optax.inject_hyperparams(pm.split_lbi)(**HYPER | changes)


both_ways = pytest.mark.parametrize("make", [bare, inject], ids=["bare", "inject_hyperparams"])


def initial_params(dtype=jnp.float32):
    rng = np.random.default_rng(0)
    return {
        name: jnp.asarray(rng.normal(size=shape), dtype) for name, shape in {"kernel": (6, 5), "bias": (5,)}.items()
    }


def loss_gradient(w, step):
    goal = 2 * jnp.cos(jnp.arange(w.size, dtype=w.dtype)).reshape(w.shape)
    return 0.3 * (w - goal) + 0.1 * jnp.sin(w + jnp.asarray(step, w.dtype))


def train(tx, params, steps=range(STEPS), state=None, transform=jax.jit):
    state = tx.init(params) if state is None else state
    update = transform(tx.update)
    for step in steps:
        updates, state = update({name: loss_gradient(w, step) for name, w in params.items()}, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def assert_same_run(one, other):
    """The same W, V, Γ, κ and time; and the support is neither empty nor full."""
    (params, state), (other_params, other_state) = one, other
    chex.assert_trees_all_close(params, other_params, rtol=1e-5, atol=1e-6)
    mine, others = optax.tree.get(state, "SplitLBIState"), optax.tree.get(other_state, "SplitLBIState")
    chex.assert_trees_all_close(mine, others, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(pm.gamma(state), pm.gamma(other_state), rtol=1e-5, atol=1e-6)
    assert 0 < pm.support(state)["kernel"].mean() < 1


SCHEDULES = {
    "cosine": {"learning_rate": optax.cosine_decay_schedule(0.3, STEPS)},
    "steps": {"learning_rate": optax.piecewise_constant_schedule(0.3, {4: 0.1, 8: 2.0})},
    "warm-up": {"learning_rate": optax.linear_schedule(0.0, 0.3, 6)},
    "of V alone": {"dual_learning_rate": optax.linear_schedule(0.1, 0.4, STEPS)},
    "of W and of V": {
        "learning_rate": optax.cosine_decay_schedule(0.3, STEPS),
        "dual_learning_rate": optax.linear_schedule(0.1, 0.4, STEPS),
    },
    "too far for one formula": {"learning_rate": optax.linear_schedule(0.1, 1.9, STEPS)},  # ακ/ν from 0.08 to 1.4
}
every_schedule = pytest.mark.parametrize("rates", SCHEDULES.values(), ids=SCHEDULES)


@every_schedule
def test_a_schedule_is_a_new_transformation_every_step(rates):
    """And `time` is the sum of the dual rates."""
    params, total = initial_params(), 0.0
    state = bare().init(params)
    for step in range(STEPS):
        now = {name: float(rate(step)) for name, rate in rates.items()}
        now["learning_rate"] = max(now.get("learning_rate", HYPER["learning_rate"]), 1e-30)  # no fixed rate may be zero
        total += now.get("dual_learning_rate", now["learning_rate"])
        params, state = train(bare(**now), params, [step], state, transform=lambda update: update)  # not compiled anew
    run = train(bare(**rates), initial_params())
    assert_same_run(run, (params, state))
    assert optax.tree.get(run[1], "SplitLBIState").time == pytest.approx(total)


@every_schedule
def test_injected_schedules_are_the_schedules(rates):
    assert_same_run(train(inject(**rates), initial_params()), train(bare(**rates), initial_params()))


CHANGES = [{"learning_rate": 0.02}, {"kappa": 0.7}, {"nu": 5.0}, {"kappa": 3.0, "nu": 9.0}, {"momentum": 0.0}]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_hyper_parameter_changed_in_mid_run_acts_from_the_next_step(change):
    """As if another transformation took over with the same state."""
    first, rest = range(STEPS // 2), range(STEPS // 2, STEPS)
    params, state = train(inject(), initial_params(), first)
    before = pm.gamma(state)
    for name, value in change.items():
        state.hyperparams[name] = jnp.asarray(value)
    chex.assert_trees_all_equal(pm.gamma(state), before)  # Γ is that of the last step, whatever comes next
    run = train(inject(), params, rest, state)

    params, state = train(bare(), initial_params(), first)
    assert_same_run(run, train(bare(**change), params, rest, state))
    assert optax.tree.get(run[1], "SplitLBIState").kappa == pytest.approx(change.get("kappa", HYPER["kappa"]))
    unchanged, _ = train(bare(), initial_params())
    assert jnp.abs(run[0]["kernel"] - unchanged["kernel"]).max() > 0.01


@both_ways
def test_a_warm_up_from_zero_moves_nothing_in_its_first_step(make):
    tx = make(**SCHEDULES["warm-up"])
    params, state = train(tx, initial_params(), range(1))
    chex.assert_trees_all_equal(params, initial_params())
    chex.assert_trees_all_equal(optax.tree.get(state, "SplitLBIState").dual, jax.tree.map(jnp.zeros_like, params))
    assert (optax.tree.get(state, "SplitLBIState").time, optax.tree.get(state, "SplitLBIState").count) == (0, 1)
    moved, _ = train(tx, params, range(1, 2), state)
    assert jnp.any(moved["kernel"] != params["kernel"])


def test_an_injected_rate_takes_the_weights_dtype_unless_told_otherwise():
    """Optax rounds what it injects to the parameters' dtype; `hyperparam_dtype` keeps α, κ and ν exact."""
    exact = optax.inject_hyperparams(pm.split_lbi, hyperparam_dtype=jnp.float32)(**HYPER)
    params = initial_params(jnp.bfloat16)
    for tx, time in [(exact, 0.2), (inject(), float(jnp.bfloat16(0.2)))]:
        state = optax.tree.get(train(tx, params, range(1))[1], "SplitLBIState")
        assert state.time == jnp.float32(time)
        assert state.dual["kernel"].dtype == jnp.float32
