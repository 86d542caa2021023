"""A paced path: a sparsity of every layer, W finished inside the support, and ν from a pull."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import parsimony as pm

DRAW = np.random.default_rng(0)
# Layers of sizes and magnitudes far apart: under one threshold the second would fill before the first begins.
PARAMS = {
    "first": jnp.asarray(0.1 * DRAW.normal(size=(3, 3, 2, 8)), jnp.float32),
    "second": jnp.asarray(10 * DRAW.normal(size=(8, 10)), jnp.float32),
    "bias": jnp.ones(8),
}
GOAL = jax.tree.map(lambda w: 1.5 * w + 0.01, PARAMS)
PENALTY = pm.Rules([("first", pm.GroupLasso(-1)), ("second", pm.Lasso())])
OPENED, STEPS, SHARE = 40, 60, 0.75
FINISH = OPENED + 1  # the schedule is at SHARE in the step with the count OPENED


def trained(tx, steps=STEPS):
    """(W, state) after each step towards GOAL."""

    @jax.jit
    def step(params, state):
        updates, state = tx.update(jax.tree.map(lambda w, goal: w - goal, params, GOAL), state, params)
        return optax.apply_updates(params, updates), state

    params, state, found = PARAMS, tx.init(PARAMS), []
    for _ in range(steps):
        params, state = step(params, state)
        found.append((params, state))
    return found


def zeros(tree):
    return {name: float(jnp.mean(tree[name] == 0)) for name in ("first", "second")}


def paced(scope: Any = "layer", **kwargs):
    ramp = optax.linear_schedule(1.0, SHARE, OPENED)
    return pm.split_lbi(0.05, nu=1.0, penalty=PENALTY, momentum=0.9, sparsity=ramp, sparsity_scope=scope, **kwargs)


def test_every_layer_has_the_sparsity_at_every_step():
    for k, (_, state) in enumerate(trained(paced())):
        wanted = 1 - (1 - SHARE) * min(k, OPENED) / OPENED
        for name, group in (("first", 1 / 8), ("second", 1 / 80)):
            found, most = zeros(pm.gamma(state))[name], 1 - group if wanted < 1 else 1
            assert min(wanted, most) - 1e-6 <= found < wanted + group, (k, name)


def test_under_one_threshold_a_layer_of_small_weights_stays_empty():
    assert zeros(pm.gamma(trained(paced("global"))[-1][1]))["first"] == 1
    assert zeros(pm.gamma(trained(paced("layer"))[-1][1]))["first"] == SHARE


def test_a_layer_is_never_emptied_by_rounding():
    tx = pm.split_lbi(0.05, nu=1.0, penalty=PENALTY, sparsity=0.99, sparsity_scope="layer")
    assert zeros(pm.gamma(trained(tx)[-1][1])) == pytest.approx({"first": 7 / 8, "second": 79 / 80})


@pytest.mark.parametrize("method", [pm.linbreg, pm.adabreg, pm.rda, pm.prox_sgd])
def test_related_methods_take_the_scope(method):
    tx = method(0.05, penalty=PENALTY, sparsity=SHARE, sparsity_scope="layer")
    params, state = trained(tx)[-1]
    assert zeros(params) == {"first": SHARE, "second": SHARE} == zeros(pm.gamma(state))


def test_the_members_of_a_unit_share_a_threshold():
    params = {"w1": jnp.asarray(DRAW.normal(size=(4, 6)), jnp.float32), "b1": jnp.ones(6),
              "w2": jnp.asarray(0.01 * DRAW.normal(size=(6, 5)), jnp.float32), "b2": jnp.zeros(5),
              "w3": jnp.ones((5, 3))}  # fmt: skip
    fn = lambda p, x: jax.nn.relu(jax.nn.relu(x @ p["w1"] + p["b1"][None]) @ p["w2"] + p["b2"][None]) @ p["w3"]
    penalty = pm.structure.unit_penalty(pm.structure.find_units(fn, params, jnp.ones((2, 4))))
    tx = pm.split_lbi(0.1, nu=1.0, penalty=penalty, sparsity=0.5, sparsity_scope="layer")
    update, state = jax.jit(tx.update), tx.init(params)
    for _ in range(5):
        _, state = update(jax.tree.map(jnp.zeros_like, params), state, params)
    strength = optax.tree.get(state, "strength")
    assert strength["w1"] == strength["b1"] != strength["w2"] == strength["b2"]
    inside = pm.support(state)
    np.testing.assert_array_equal(inside["w1"].any(0), inside["b1"])
    assert (int(inside["b1"].sum()), int(inside["w2"].any(0).sum())) == (3, 2)


def test_w_is_finished_inside_the_support():
    runs = trained(pm.record_path(paced(finish=FINISH)))
    opened, end = runs[OPENED], runs[-1]
    for params, state in (opened, end):
        assert zeros(params) == {"first": SHARE, "second": SHARE}
        inside = pm.support(state)
        for name in PARAMS:
            np.testing.assert_array_equal(params[name], pm.sparse_params(params, state)[name])
            np.testing.assert_array_equal(inside[name], pm.support(opened[1])[name])  # the support stays


def test_until_the_path_is_open_w_loses_what_is_behind():
    """W_g = 0 after step k where ‖V_g‖ ≤ (k/K₀)T; single weights, far apart, go little by little."""
    left = []
    for k, (params, state) in enumerate(trained(paced(finish=FINISH))[:FINISH], start=1):
        strengths, dual = optax.tree.get(state, "strength"), optax.tree.get(state, "dual")
        for name, omega in (("first", pm.GroupLasso(-1)), ("second", pm.Lasso())):
            kept = omega.prox(dual[name] / (k / FINISH * strengths[name])) != 0
            np.testing.assert_array_equal(params[name] != 0, kept)
        left.append(zeros(params))
    weights = [share["second"] for share in left]
    assert 0 < weights[5] < weights[15] < weights[25] < weights[-1] == SHARE == left[-1]["first"]


def test_inside_the_support_the_finish_is_plain_momentum():
    tx = optax.chain(optax.trace(0.9), pm.inverse_scale_space(
        0.05, 1.0, 1.0, PENALTY, sparsity=SHARE, sparsity_scope="layer", finish=1))  # fmt: skip
    plain = optax.sgd(0.05, momentum=0.9)
    grads, (params, state) = jax.tree.map(jnp.ones_like, PARAMS), trained(tx, 2)[-1]
    updates: Any = tx.update(grads, state, params)[0]
    expected: Any = plain.update(grads, (state[0], optax.EmptyState()), params)[0]
    inside = pm.support(state)
    for name in PARAMS:
        np.testing.assert_allclose(updates[name], jnp.where(inside[name], expected[name], 0), rtol=1e-5, atol=1e-6)


def test_what_starts_from_zero_is_not_behind():
    """It has no V yet."""
    params = {"kernel": jnp.zeros((4, 4)).at[0].set(1.0)}
    tx = pm.split_lbi(0.1, penalty=pm.Lasso(), **pm.pace(0.1, 100, sparsity=0.5))
    updates, _ = tx.update({"kernel": jnp.ones((4, 4))}, tx.init(params), params)
    assert jnp.all(optax.apply_updates(params, updates)["kernel"] != 0)


def test_a_finish_needs_weights_that_can_be_zero():
    with pytest.raises(ValueError, match=r"finish=5 needs a sparsity"):
        pm.split_lbi(0.1, finish=5)
    with pytest.raises(ValueError, match="NuclearNorm"):
        pm.split_lbi(0.1, penalty=pm.NuclearNorm(), sparsity=0.5, finish=5).init({"kernel": jnp.ones((4, 4))})
    wrong: list[Any] = [0, 2.5, True]
    for value in wrong:
        with pytest.raises(ValueError, match=r"finish=.*expected the steps"):
            pm.split_lbi(0.1, finish=value)


def test_a_scope_needs_a_sparsity():
    with pytest.raises(ValueError, match="needs a sparsity"):
        pm.split_lbi(0.1, sparsity_scope="layer")
    with pytest.raises(ValueError, match="expected one of global, layer"):
        pm.split_lbi(0.1, sparsity=0.5, sparsity_scope="layers")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("steps", [100, 200, 400])
def test_a_weight_that_the_loss_does_not_hold_shrinks_by_the_pull_whatever_the_length(steps):
    own = pm.pace(0.01, steps=steps, sparsity=0.5, pull=2.0, finish=False)
    tx = pm.split_lbi(0.01, nu=own["nu"], penalty=PENALTY, sparsity=lambda count: 1.0)
    nothing = jax.tree.map(jnp.zeros_like, PARAMS)

    def step(_, now):
        params, state = now
        updates, state = tx.update(nothing, state, params)
        return optax.apply_updates(params, updates), state

    params, _ = jax.lax.fori_loop(0, steps // 2, step, (PARAMS, tx.init(PARAMS)))
    np.testing.assert_allclose(
        params["second"] / PARAMS["second"], np.exp(-2), rtol=4 / steps + 0.01
    )  # (1 − 2p/K)^(K/2)


def test_a_pace_follows_the_learning_rate():
    falls: Any = optax.linear_schedule(0.2, 0.0, 100)
    own = pm.pace(falls, steps=100, sparsity=0.9, open_by=0.4, pull=3.0)
    assert own["nu"] == pytest.approx(sum(float(falls(k)) for k in range(40)) / 3)
    assert (own["finish"], own["sparsity_scope"]) == (40, "layer")
    assert pm.pace(falls, 100, 0.9, finish=False)["finish"] is None


@pytest.mark.parametrize("steps", [2, 10])
def test_a_finished_support_has_the_sparsity_that_was_asked_for(steps):
    """However few steps there are: the share after the last one before the finish is q."""
    tx = pm.split_lbi(0.1, penalty=pm.Lasso(), **pm.pace(0.1, steps, sparsity=0.6))
    params = {"kernel": jnp.linspace(0.1, 1.0, 100).reshape(10, 10)}
    state = tx.init(params)
    for _ in range(steps):
        updates, state = tx.update(params, state, params)
        params = optax.apply_updates(params, updates)
    assert int((params["kernel"] == 0).sum()) == 60


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps=0"),
        ({"sparsity": 90}, "write 0.9"),
        ({"sparsity": None}, "a number in"),
        ({"open_by": 0.0}, "open_by=0.0"),
        ({"open_by": 1.0}, "leaves none of the 50 steps"),
        ({"pull": -1.0}, "pull=-1.0"),
        ({"scope": "unit"}, "expected one of"),
        ({"learning_rate": 0.0}, "learning_rate=0.0"),
        ({"learning_rate": lambda count: 0.0 * count}, "adds up to 0"),
    ],
)
def test_what_cannot_be_paced_is_rejected(change, message):
    with pytest.raises((ValueError, TypeError), match=message):
        pm.pace(**({"learning_rate": 0.1, "steps": 50, "sparsity": 0.9} | change))
