"""Inside a fixed support: weights outside it are exactly zero, whatever the optimizer."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import parsimony as pm

MASKS = {"kernel": jnp.asarray(np.random.default_rng(1).random((6, 5)) < 0.4)}


def initial_params(dtype=jnp.float32):
    rng = np.random.default_rng(0)
    return {"kernel": jnp.asarray(rng.normal(size=(6, 5)), dtype), "bias": jnp.asarray(rng.normal(size=5), dtype)}


def gradient(params, step):
    """Noisy, and nowhere zero."""
    return jax.tree.map(lambda w: jnp.sin(7 * w + step.astype(w.dtype)) + w, params)


def train(tx, params, steps):
    @jax.jit
    def run(params):
        def step(carry, number):
            params, state = carry
            updates, state = tx.update(gradient(params, number), state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, tx.init(params)), jnp.arange(steps))[0]

    return run(params)


DECAYING = optax.cosine_decay_schedule(0.05, 3000)
OPTIMIZERS = {
    "sgd, momentum and decay": optax.chain(optax.add_decayed_weights(1e-2), optax.sgd(DECAYING, momentum=0.9)),
    "sgd, Nesterov": optax.sgd(0.01, momentum=0.9, nesterov=True),
    "adam": optax.adam(DECAYING),
    "adamw": optax.adamw(0.01, weight_decay=0.1),
    "lion": optax.lion(DECAYING, weight_decay=0.1),
    "noise added": optax.chain(optax.add_noise(1e-3, 0.5, key=jax.random.key(0)), optax.sgd(0.01)),
    "adam after clipping": optax.chain(optax.clip_by_global_norm(0.1), optax.adam(0.01)),
    "split_lbi": pm.split_lbi(0.01, nu=5.0, momentum=0.9),
    "injected": optax.inject_hyperparams(optax.adam)(DECAYING),
    "apply_if_finite": optax.apply_if_finite(optax.adam(0.01), 3),
}


@pytest.mark.parametrize("dtype", [jnp.float32, pytest.param(jnp.bfloat16, marks=pytest.mark.slow)])
@pytest.mark.parametrize("tx", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_zeros_are_exact_after_thousands_of_steps(tx, dtype):
    params, _ = train(pm.keep_support(tx, MASKS), initial_params(dtype), 3000)
    outside = np.asarray(params["kernel"])[~np.asarray(MASKS["kernel"])]
    inside = np.asarray(params["kernel"])[np.asarray(MASKS["kernel"])]
    assert (outside == 0).all()
    assert (inside != 0).all()
    assert (np.asarray(params["bias"]) != 0).all()
    assert params["kernel"].dtype == dtype


@pytest.mark.parametrize("name", ["sgd, momentum and decay", "adam after clipping", "lion"])
def test_the_small_network_trains_as_it_would_alone(name):
    """What is outside the support has no part in norms and moments: against training the kept weights as a vector."""
    keep = np.asarray(MASKS["kernel"])
    params = pm.apply_masks(initial_params(), MASKS)
    kept, _ = train(pm.keep_support(OPTIMIZERS[name], MASKS), params, 50)
    alone = {"kernel": params["kernel"][keep], "bias": params["bias"]}
    alone, _ = train(OPTIMIZERS[name], alone, 50)
    np.testing.assert_allclose(kept["kernel"][keep], alone["kernel"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(kept["bias"], alone["bias"], rtol=1e-4, atol=1e-6)


def test_the_first_step_removes_what_stands_outside():
    params = initial_params()
    tx = pm.keep_support(optax.sgd(0.1), MASKS)
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    moved = optax.apply_updates(params, updates)
    np.testing.assert_array_equal(moved["kernel"], pm.apply_masks(params, MASKS)["kernel"])


def test_inside_multi_steps_and_with_donated_state_the_callers_masks_live_on():
    tx = optax.MultiSteps(pm.keep_support(optax.adam(0.1), MASKS), 2)
    params, step = initial_params(), jax.jit(lambda g, s, p: tx.update(g, s, p), donate_argnums=1)
    state = tx.init(params)
    for number in range(4):
        updates, state = step(gradient(params, jnp.array(number)), state, params)
        params = optax.apply_updates(params, updates)
    assert (np.asarray(params["kernel"])[~np.asarray(MASKS["kernel"])] == 0).all()


def test_a_support_of_the_path_is_a_mask():
    params = initial_params()
    state = pm.split_lbi(0.1).init(params)
    kept = pm.apply_masks(params, pm.support(state))
    assert not kept["kernel"].any()
    np.testing.assert_array_equal(kept["bias"], params["bias"])


def test_what_a_mask_does_not_name_is_kept():
    params = initial_params()
    np.testing.assert_array_equal(pm.apply_masks(params, {"kernel": MASKS["kernel"]})["bias"], params["bias"])


BAD = {
    "another shape": ({"kernel": np.ones((5, 6), bool)}, ValueError, r"mask of shape \(5, 6\) for 'kernel'.*\(6, 5\)"),
    "another name": ({"weight": np.ones((6, 5), bool)}, ValueError, r"'weight', params have only \['bias', 'kernel'\]"),
    "floats": ({"kernel": np.ones((6, 5))}, TypeError, r"float64 for 'kernel'; for 0 and 1 write mask != 0"),
    "lists": ({"kernel": True}, TypeError, "expected bool arrays, got bool"),
}


@pytest.mark.parametrize(("masks", "error", "message"), BAD.values(), ids=BAD)
def test_masks_that_do_not_fit_are_rejected_before_any_work(masks, error, message):
    with pytest.raises(error, match=message):
        pm.apply_masks(initial_params(), masks)
    with pytest.raises(error, match=message):
        pm.keep_support(optax.sgd(0.1), masks).init(initial_params())


def test_a_wrapper_without_weights_or_without_a_transformation_is_rejected():
    tx = pm.keep_support(optax.sgd(0.1), MASKS)
    with pytest.raises(ValueError, match=r"tx.update\(grads, state, params\)"):
        tx.update(initial_params(), tx.init(initial_params()))
    with pytest.raises(TypeError, match="expected an Optax transformation"):
        pm.keep_support(MASKS, optax.sgd(0.1))


def test_map_params_reaches_the_inner_state():
    tx = pm.keep_support(optax.adam(0.1), {"kernel": MASKS["kernel"], "bias": jnp.ones(5, bool)})
    state = optax.tree.map_params(tx, lambda leaf: leaf + 1, tx.init(initial_params()))
    assert (optax.tree.get(state.inner_state, "mu")["bias"] == 1).all()


def test_an_average_of_the_weights_stays_in_the_support_too():
    """Schedule-free keeps a second sequence, from which the weights for evaluation are made."""
    params, masks = {"kernel": jnp.arange(1.0, 7.0).reshape(2, 3)}, {"kernel": jnp.array(2 * [[True, False, True]])}
    tx = pm.keep_support(optax.contrib.schedule_free(optax.sgd(0.1), 0.1, b1=0.9), masks)
    state = tx.init(params)
    for _ in range(5):
        updates, state = tx.update(jax.tree.map(jnp.ones_like, params), state, params)
        params = optax.apply_updates(params, updates)
    average = optax.contrib.schedule_free_eval_params(state.inner_state, params)["kernel"]
    assert average[:, 1].tolist() == [0.0, 0.0]
    assert bool((average[:, ::2] != 0).all())
