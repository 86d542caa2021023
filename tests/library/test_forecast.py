"""What V after some steps says of a path of fixed strengths, and a paced path over units with a normalisation."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import parsimony as pm

PARAMS = {"kernel": jnp.asarray(np.linspace(0.5, 1.5, 20)[None], jnp.float32)}
RATE, STEPS = 0.1, 1000


def after(steps, tx):
    def step(_, now):  # a loss that holds W where it is
        params, state = now
        updates, state = tx.update(jax.tree.map(lambda w, w0: w - w0, params, PARAMS), state, params)
        return optax.apply_updates(params, updates), state

    return jax.lax.fori_loop(0, steps, step, (PARAMS, tx.init(PARAMS)))


@pytest.mark.parametrize(
    ("strength", "verdict"), [(1e-3, "fills at once"), (0.5, "unfolds"), (1e3, "stays empty")], ids=str
)
def test_a_path_is_told_by_its_first_steps(strength, verdict):
    tx = pm.split_lbi(RATE, nu=100.0, penalty=pm.Lasso(strength))
    params, state = after(50, tx)
    forecast = pm.path_forecast(params, state, RATE, STEPS)
    assert (forecast.verdict, bool(forecast.advice)) == (verdict, verdict != "unfolds")
    assert forecast.done == pytest.approx(0.05)
    found = float(jnp.mean(pm.support(after(STEPS, tx)[1])["kernel"]))
    assert {"fills at once": found == 1, "unfolds": 0 < found <= 1, "stays empty": found == 0}[verdict]
    assert forecast.inside <= found <= forecast.expected


def test_what_has_no_forecast_is_rejected():
    tx = pm.split_lbi(RATE, nu=100.0)
    with pytest.raises(ValueError, match="before the first step"):
        pm.path_forecast(PARAMS, tx.init(PARAMS), RATE, STEPS)
    params, state = after(5, pm.split_lbi(RATE, nu=100.0, sparsity=0.5))
    with pytest.raises(ValueError, match="opens by the schedule"):
        pm.path_forecast(params, state, RATE, STEPS)


def network(p, x):
    h = x @ p["w1"]
    h = (h - p["mean"][None]) / jnp.sqrt(p["var"] + 1e-5)[None] * p["scale"][None] + p["shift"][None]
    return jax.nn.relu(h) @ p["w2"]


def test_the_penalty_of_a_normalised_network_has_scale_and_shift_in_its_groups():
    ones = jnp.ones(6)
    params = {
        "w1": jnp.ones((4, 6)),
        "mean": 0 * ones,
        "var": ones,
        "scale": ones,
        "shift": ones,
        "w2": jnp.ones((6, 3)),
    }
    penalty = pm.structure.penalty_of(network, params, jnp.ones((2, 4)))
    assert penalty == pm.structure.unit_penalty(pm.structure.find_units(network, params, jnp.ones((2, 4))))
    trained = {name: params[name] for name in ("w1", "scale", "shift", "w2")}
    np.testing.assert_allclose(np.square(penalty.group_norms(trained)), 4 + 1 + 1)
    tx = pm.split_lbi(0.1, penalty=penalty, **pm.pace(0.1, steps=6, sparsity=0.5))
    tx.update(jax.tree.map(jnp.zeros_like, trained), tx.init(trained), trained)
