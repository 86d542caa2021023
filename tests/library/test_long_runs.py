"""V, t and the record of the path after a million steps, each far smaller than what it is added to."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import parsimony as pm
from experiments import baselines
from parsimony._sums import add

STEPS = 1_000_000
LAST = np.iinfo(np.int32).max


def after(tx, params, steps=STEPS, gradient=0.0):
    """The state after so many steps at the same W and ∇L."""
    grads = jax.tree.map(lambda w: jnp.full_like(w, gradient), params)
    step = lambda _, state: tx.update(grads, state, params)[1]
    return jax.jit(lambda state: jax.lax.fori_loop(0, steps, step, state))(tx.init(params))


SCHEDULES = {
    "constant": 3e-3,
    "steps": optax.piecewise_constant_schedule(0.1, {300_000: 0.1, 600_000: 0.1, 800_000: 0.1}),
    "cosine": optax.cosine_decay_schedule(0.1, STEPS, alpha=1e-4),
}


@pytest.mark.parametrize("alpha", SCHEDULES.values(), ids=SCHEDULES)
def test_v_is_the_sum_of_its_steps_and_t_that_of_the_rates(alpha):
    """While Γ = 0, V = tW/ν; a plain float32 sum is off by up to 1e-2 in these runs."""
    params = {"kernel": jnp.array([[0.05, -0.011, 0.7]])}
    state = after(pm.inverse_scale_space(alpha, nu=100.0, penalty=pm.Lasso(1e3)), params)
    rates = alpha(np.arange(STEPS)) if callable(alpha) else np.full(STEPS, np.float32(alpha))
    time = np.sum(np.asarray(rates, np.float64))
    assert float(state.time) == pytest.approx(time, rel=1e-5)
    np.testing.assert_allclose(state.dual["kernel"], time * np.asarray(params["kernel"], np.float64) / 100, rtol=1e-5)


@pytest.mark.parametrize(("make", "start"), [(pm.linbreg, 4.0), (pm.rda, 3.0)])
def test_the_related_methods_add_up_their_steps(make, start):
    """U = U₀ − Σα∇L from W₀ = 3 at ∇L = −1e-4; λ = 1 is a part of the U₀ of `linbreg`."""
    state = after(make(1e-3, penalty=pm.Lasso(1.0)), {"kernel": jnp.full((1, 2), 3.0)}, gradient=-1e-4)
    own = optax.tree.get(state, "SplitLBIState")
    np.testing.assert_allclose(own.dual["kernel"], start + STEPS * 1e-7, rtol=1e-5)
    np.testing.assert_allclose(own.time, STEPS * 1e-3, rtol=1e-5)


def test_the_path_records_late_entries_at_their_step_and_time():
    """The last group's V passes λ = 1 after 900,000 steps of 1e-4, the first's after 3."""
    params = {"kernel": jnp.array([[1 / 3 + 1e-6, 1 / 450_000, 1 / 900_000]]) * 1e4}
    tx = pm.record_path(pm.inverse_scale_space(1e-4, nu=1.0, penalty=pm.Lasso(1.0)))
    state = after(tx, params)
    expected = np.array([[3, 450_000, 900_000]])
    np.testing.assert_allclose(pm.entry_steps(state)["kernel"], expected, rtol=1e-4)
    np.testing.assert_allclose(pm.entry_times(state)["kernel"], expected * 1e-4, rtol=1e-4)


SMALL = np.float32(10) ** np.linspace(-9, -3, 32, dtype=np.float32)
STEP_OF = {
    "equal": lambda k: SMALL,
    "of alternating sign": lambda k: SMALL * jnp.where(k % 2 == 0, 3.0, -1.0),
    "of period 89": lambda k: SMALL * (k % 89).astype(jnp.float32) / 44,  # a Fibonacci number, near which φ repeats
    "noisy": lambda k: SMALL * (1 + jnp.sin(k * 1.7 + jnp.arange(32)) * jnp.cos(k * 0.37)),
}


@pytest.mark.parametrize("start", [0.0, 3.0, -1000.0])
@pytest.mark.parametrize("step_of", STEP_OF.values(), ids=STEP_OF)
def test_a_sum_is_that_of_float64(step_of, start):
    def both(k, sums):
        step = jnp.asarray(step_of(k), jnp.float32)
        return add(sums[0], step, k), sums[1] + step.astype(jnp.float64)

    with jax.enable_x64(True):
        begin = (jnp.full(32, start, jnp.float32), jnp.full(32, start, jnp.float64))
        ours, exact = jax.jit(lambda sums: jax.lax.fori_loop(0, 200_000, both, sums))(begin)
    assert ours.dtype == jnp.float32
    np.testing.assert_allclose(ours, exact, rtol=5e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_the_rule_takes_a_neighbour_of_the_exact_sum_is_exact_where_it_can_be_and_odd(dtype):
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        v, d = (jnp.asarray(rng.normal(size=1000) * scale, dtype) for scale in (1.0, 0.03))
        for count in (0, 1, 12345, LAST):
            found = add(v, d, count)
            assert found.dtype == dtype
            np.testing.assert_array_equal(add(-v, -d, count), -found)
            nearest = v + d
            assert (jnp.abs(found.astype("float64") - nearest.astype("float64")) <= jnp.spacing(jnp.abs(nearest))).all()
            whole = jnp.arange(1, 100, dtype=dtype)
            np.testing.assert_array_equal(add(whole, whole + 1, count), 2 * whole + 1)
        np.testing.assert_array_equal(add(v, d, LAST), v + d)


def test_the_derivative_of_a_sum_is_one():
    slope = jax.grad(lambda v, d: add(v, d, 5), argnums=(0, 1))
    assert slope(jnp.float32(1.0), jnp.float32(1e-9)) == (1.0, 1.0)


def test_the_count_stops_at_its_largest_value_and_nothing_else_does():
    """2³¹ − 1 steps: the schedule keeps its last value, an entry is recorded with it, and V and t go on."""
    params = {"kernel": jnp.array([[4.0, 0.001]])}
    rate = lambda count: jnp.where(count > 2**31 - 3, 0.5, 7.0)
    tx = pm.record_path(pm.inverse_scale_space(rate, nu=1.0, penalty=pm.Lasso(6.5)))
    state = optax.tree.set(tx.init(params), count=jnp.int32(LAST - 1))
    for _ in range(4):
        _, state = tx.update(jax.tree.map(jnp.zeros_like, params), state, params)
    assert optax.tree.get(state, "count") == LAST
    assert optax.tree.get(state, "time") == 2.0
    assert pm.entry_steps(state)["kernel"].tolist() == [[LAST, pm.NEVER]]
    assert pm.entry_times(state)["kernel"].tolist() == [[2.0, pm.NEVER]]


BASELINES = {
    "gradual": lambda: baselines.gradual_magnitude_pruning(optax.sgd(0.1), 0.5, 0, 10, 2),
    "iht": lambda: baselines.iterative_hard_thresholding(optax.sgd(0.1), 0.5),
    "rigl": lambda: baselines.rigl(optax.sgd(0.1), 0.5, jax.random.key(0), 10, 2),
    "adabound": lambda: baselines.adabound(0.1),
}


@pytest.mark.parametrize("make", BASELINES.values(), ids=BASELINES)
def test_the_count_of_a_baseline_does_not_become_negative(make):
    params = {"kernel": jnp.ones((3, 4))}
    state = optax.tree.set(make().init(params), count=jnp.int32(LAST))
    updates, state = make().update(params, state, params)
    assert optax.tree.get(state, "count") == LAST
    chex.assert_tree_all_finite(updates)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_sum_passes_a_power_of_two(sign):
    """Below it the last place is half as large as above it: a sum that were dithered by one width would stay there."""
    start = np.float32(sign) * np.array([1 - 3e-7, 4 - 1e-6, 1 + 3e-7, 0.5], np.float32)
    step = np.float32(sign) * np.array([1e-9, 4e-9, -1e-9, -1e-9], np.float32)
    found = jax.lax.fori_loop(0, 10_000, lambda k, v: add(v, step, k), jnp.asarray(start))
    np.testing.assert_allclose(found, start.astype(float) + 10_000 * step.astype(float), rtol=3e-7)
