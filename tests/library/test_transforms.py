"""Split LBI under JAX's transformations: compiled once, scanned, mapped, differentiated, on many devices."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import parsimony as pm
from helpers.mapped import (
    BATCH,
    STEPS,
    TRANSFORMATIONS,
    assert_same,
    at,
    every_transformation,
    injected,
    loss,
    make_step,
    problem,
    readouts,
    run,
    scanned,
    split_lbi,
)


@every_transformation
def test_compiled_and_scanned_runs_equal_the_eager_run(name):
    make = TRANSFORMATIONS[name]
    eager = run(make(), *problem(0), transform=lambda step: step)
    assert_same(eager, run(make(), *problem(0)))
    assert_same(eager, jax.jit(lambda *arguments: scanned(make(), *arguments))(*problem(0)))
    chex.assert_trees_all_close(jax.jit(readouts)(*eager), readouts(*eager), rtol=2e-5, atol=2e-6)


@every_transformation
def test_a_step_is_compiled_once(name):
    """The state of `init` and that of `update` are of one type, weak types included."""
    make = TRANSFORMATIONS[name]
    chex.clear_trace_counter()
    run(make(), *problem(0), transform=lambda step: jax.jit(chex.assert_max_traces(step, n=1)))


def test_a_changed_hyper_parameter_compiles_nothing_anew():
    chex.clear_trace_counter()
    tx, (params, batches) = injected(), problem(0)
    step, state = jax.jit(chex.assert_max_traces(make_step(tx), n=1)), tx.init(params)
    for number, rate in enumerate([0.1, 0.05, 0.025]):
        state.hyperparams["learning_rate"] = jnp.float32(rate)
        params, state = step(params, state, at(batches, number))


@every_transformation
def test_seeds_under_vmap_are_the_runs_one_by_one(name):
    """Three runs at once, and all read-outs by `jax.vmap` of the ones for one run."""
    make = TRANSFORMATIONS[name]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(problem, range(3)))
    mapped = jax.jit(jax.vmap(lambda *arguments: scanned(make(), *arguments)))(*stacked)
    read = jax.vmap(readouts)(*mapped)
    with pytest.raises(ValueError, match=r"extra axis of size 3.*jax\.vmap\(pm\.gamma\)"):
        pm.gamma(mapped[1])
    alone = jax.jit(lambda *arguments: scanned(make(), *arguments))
    for seed in range(3):
        assert_same(at(mapped, seed), alone(*problem(seed)))
        chex.assert_trees_all_close(at(read, seed), readouts(*alone(*problem(seed))), rtol=2e-5, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["learning_rate", "dual_learning_rate", "kappa", "nu", "momentum"])
def test_hyper_parameters_under_vmap_are_the_runs_one_by_one(name):
    values = {"kappa": [1.0, 1.5, 2.0], "nu": [1.5, 2.0, 2.5]}.get(name, [0.15, 0.2, 0.25])
    mapped = jax.jit(jax.vmap(lambda value: scanned(split_lbi(**{name: value}), *problem(0))))(jnp.array(values))
    for number, value in enumerate(values):
        assert_same(at(mapped, number), run(split_lbi(**{name: value}), *problem(0)))


def test_eight_devices_with_averaged_gradients_are_one_device_on_the_joined_batch():
    """`jax.pmap` and `psum`, one example a device: the replicas agree, and one of them is the run on one device."""
    devices = jax.device_count()
    assert devices == BATCH

    def average(grads):
        return jax.tree.map(lambda g: jax.lax.psum(g, "devices") / devices, grads)

    tx, (params, batches) = split_lbi(), problem(0)
    step = jax.pmap(make_step(tx, average), axis_name="devices")
    many = jax.tree.map(lambda leaf: jnp.stack([leaf] * devices), (params, tx.init(params)))
    for number in range(STEPS):
        many = step(*many, jax.tree.map(lambda x, n=number: x[n][:, None], batches))
    with pytest.raises(ValueError, match=r"extra axis of size 8.*flax\.jax_utils\.unreplicate"):
        pm.gamma(many[1])
    single = run(tx, *problem(0))
    for device in range(devices):
        assert_same(single, at(many, device))
    chex.assert_trees_all_close(jax.pmap(pm.gamma)(many[1])["conv"][5], pm.gamma(single[1])["conv"], atol=2e-6)


def test_a_run_can_be_differentiated():
    """By the initial weights and by the hyper-parameters, against central differences, away from the kinks."""

    def outcome(scale, learning_rate, nu):
        first, batches = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), problem(0))
        params = jax.tree.map(lambda w: scale * w, first)
        params, state = scanned(split_lbi(learning_rate=learning_rate, nu=nu), params, batches)
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves((params, pm.gamma(state))))

    with jax.enable_x64(True):
        point = (1.0, 0.2, 2.0)
        gradient = jax.jit(jax.grad(outcome, argnums=(0, 1, 2)))(*point)
        value = jax.jit(outcome)
        for place in range(3):
            up, down = ([x + sign * 1e-6 * (n == place) for n, x in enumerate(point)] for sign in (1, -1))
            np.testing.assert_allclose(gradient[place], (value(*up) - value(*down)) / 2e-6, rtol=1e-6)
        # With rates known beforehand the step of a CPU goes another way (`_dual_step`), to the same derivative.
        known = jax.jit(jax.grad(lambda scale: outcome(scale, *point[1:])))(1.0)
        np.testing.assert_allclose(known, gradient[0], rtol=1e-12)


class Layer(NamedTuple):
    kernel: jax.Array
    bias: jax.Array


CONTAINERS = {  # how the three parameters are held, and the pattern that finds the first of them
    "list": (lambda conv, kernel, bias: [conv, [kernel, bias]], "^0$"),
    "tuple": (lambda conv, kernel, bias: ((conv,), (kernel, (bias,))), "^0/0"),
    "NamedTuple": (lambda conv, kernel, bias: (Layer(conv, bias), kernel), "0/kernel"),
    "dict of lists": (lambda conv, kernel, bias: {"a": [conv], "b": [kernel, bias]}, "a/0"),
    "with nothing in places": (lambda conv, kernel, bias: {"f": None, "conv": conv, "g": [(), kernel, bias]}, "conv"),
}


@pytest.mark.parametrize(("hold", "pattern"), CONTAINERS.values(), ids=CONTAINERS)
def test_any_tree_of_parameters_is_as_good_as_another(hold, pattern):
    rules = pm.Rules([(pattern, pm.GroupLasso(-1, strength=0.8))], default=pm.Lasso(0.2))
    rehold = lambda tree: hold(tree["conv"], tree["dense"]["kernel"], tree["dense"]["bias"])
    params, batches = problem(0)
    state, step = split_lbi().init(params), jax.jit(make_step(split_lbi()))
    held, tx = rehold(params), split_lbi(penalty=rules)
    held_state, update = tx.init(held), jax.jit(tx.update)
    for number in range(STEPS):
        gradient = rehold(jax.grad(loss)(params, at(batches, number)))
        params, state = step(params, state, at(batches, number))
        updates, held_state = update(gradient, held_state, held)
        held = optax.apply_updates(held, updates)
    chex.assert_trees_all_close(held, rehold(params), rtol=2e-5, atol=2e-6)
    for read, expected in zip(readouts(held, held_state), readouts(params, state), strict=True):
        chex.assert_trees_all_close(read, rehold(expected), rtol=2e-5, atol=2e-6)
