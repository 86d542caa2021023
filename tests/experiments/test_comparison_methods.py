"""The methods of a comparison: each descends, meets its sparsity, and trains beside others as it would alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import parsimony as pm
from experiments import baselines
from experiments.comparison import methods
from experiments.comparison.plan import Plan, unit_strengths
from experiments.data.load import load
from experiments.training import build, sweep
from helpers.cases import mostly

SHAPES = {"conv": {"kernel": (2, 2, 3, 6)}, "head": {"kernel": (6, 20), "bias": (20,)}}


_rng = np.random.default_rng(0)


_drawn = lambda shape: jnp.asarray(_rng.normal(size=shape), jnp.float32)


PARAMS, GOALS = (jax.tree.map(_drawn, SHAPES, is_leaf=lambda s: isinstance(s, tuple)) for _ in range(2))


def plan(steps=80, level="weight") -> Plan:
    weights = pm.Rules([("kernel", pm.Lasso())])
    return Plan(steps, (0.625, 0.875), 10.0, level, unit_strengths(PARAMS, level), 4, groups=weights)


def loss(params):
    return sum(jnp.sum((w - g) ** 2) for w, g in zip(jax.tree.leaves(params), jax.tree.leaves(GOALS), strict=True))


def descended(tx, steps=80):
    def step(at, _):
        updates, state = tx.update(jax.grad(loss)(at[0]), at[1], at[0])
        return (optax.apply_updates(at[0], updates), state), None

    return jax.jit(lambda: jax.lax.scan(step, (PARAMS, tx.init(PARAMS)), length=steps)[0])()


def middle(method: methods.Method) -> dict:
    """The geometric middle of a search space."""
    return {name: float(np.sqrt(low * high)) for name, (low, high) in method.search.items()} | dict(method.fixed)


OF_WEIGHTS = [name for name, method in methods.METHODS.items() if "weight" in method.levels]


@pytest.mark.parametrize("name", mostly(OF_WEIGHTS, ["split_lbi", "split_lbi_paced", "one_shot", "gradual"]))
def test_every_method_descends_and_meets_its_sparsity(name):
    method = methods.METHODS[name]
    setting = middle(method) | {"seed": 0} | ({} if method.cuts else {"sparsity": 0.75})
    params, state = descended(method.make(plan(), setting))
    kernels = [np.asarray(params[name]["kernel"]) for name in ("conv", "head")]
    assert np.isfinite(float(loss(params)))
    if method.cuts:
        assert loss(params) < loss(PARAMS)
    else:
        assert sum(int((w == 0).sum()) for w in kernels) == 144
        assert loss(params) < loss(pm.apply_masks(PARAMS, baselines.magnitude_masks(PARAMS, 0.75)))
    assert method.split_lbi == (optax.tree.get(state, "SplitLBIState") is not None and method.cuts)


def test_the_gradient_outside_a_finished_support_slows_nothing_inside():
    """The clipping does not count it."""
    setting = middle(methods.METHODS["split_lbi_paced"]) | {"seed": 0, "sparsity": 0.75}
    tx = dataclasses.replace(plan(), clip_norm=0.1)
    tx = methods.METHODS["split_lbi_paced"].make(tx, setting)
    params, state = descended(tx, 60)  # finished at 40
    gradient = jax.grad(loss)(params)
    large = jax.tree.map(lambda g, w: jnp.where(w == 0, 1e3 * g, g), gradient, params)
    one, other = (tx.update(g, state, params)[0] for g in (gradient, large))
    jax.tree.map(np.testing.assert_array_equal, one, other)
    assert sum(float(jnp.sum(g**2)) for g in jax.tree.leaves(gradient)) > 0.1  # more than is let through


@pytest.mark.parametrize("kappa", [1.0, 4.0])
def test_a_traced_strength_is_that_of_the_penalty(kappa):
    """V/λ in the place of V, with α/λ, κλ and strength 1."""
    setting = {"learning_rate": 0.05, "kappa": kappa, "nu": 2.0, "strength": 0.3, "finish": 0.3}
    ours, state = descended(methods.METHODS["split_lbi"].make(plan(), setting))
    rules = [(pattern, dataclasses.replace(own, strength=0.3 * own.strength)) for pattern, own in plan().penalty.rules]
    rate = lambda count: 0.05 / kappa * jnp.where(count < 50, 1, jnp.where(count < 70, 0.1, 0.01))
    dual = lambda count: jnp.where(count < 50, rate(count), 0.3 * 2.0 / kappa)
    tx = optax.chain(
        optax.clip_by_global_norm(10.0),
        pm.split_lbi(rate, kappa, 2.0, pm.Rules(rules), momentum=0.9, dual_learning_rate=dual),
    )
    theirs, reference = descended(tx)
    for one, other in ((ours, theirs), (pm.gamma(state), pm.gamma(reference))):
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(a, b, atol=2e-5)
    assert 0 < np.mean(np.asarray(pm.support(reference)["head"]["kernel"])) < 1


def test_the_time_of_a_share_is_the_sum_of_the_rates():
    own = plan()
    for share in (0.3, 0.625, 0.8, 1.0):
        expected = sum(float(own.rate(1.0)(k)) for k in range(round(80 * share)))
        assert float(own.time(share)) == pytest.approx(expected, rel=1e-4)


SETTINGS = [
    {"learning_rate": 0.05, "pull": 20.0, "share": 0.5, "kappa": 1.0, "finish": 0.0, "seed": 0},
    {"learning_rate": 0.1, "pull": 5.0, "share": 0.8, "kappa": 2.0, "finish": 0.25, "seed": 0},
    {"learning_rate": 0.02, "pull": 9.0, "share": 0.6, "kappa": 1.0, "finish": 0.0, "seed": 3},
]


@pytest.mark.slow
def test_runs_that_train_as_one_are_what_they_are_alone():
    """To the rounding of float32: 36 steps of SmallCNN, with weights of up to 0.6."""
    network, params, _ = build.build_model("small_cnn", 0)
    dataset = load("digits", 180)
    own = Plan(36, (0.625, 0.875), 1.0, "weight", unit_strengths(params, "weight"), 4)
    runs = sweep.Sweep(network, dataset, 4, 128, lambda setting: methods.METHODS["split_lbi"].make(own, setting))
    numbers = [{name: np.float32(x) for name, x in s.items() if name != "seed"} | {"seed": s["seed"]} for s in SETTINGS]
    starts = [build.build_model("small_cnn", s["seed"])[1:] for s in SETTINGS]
    together = sweep.train(runs, numbers, starts)
    for setting, start, (params, _, state) in zip(numbers, starts, together, strict=True):
        ((alone, _, alone_state),) = sweep.train(runs, [setting], [start])
        for a, b in zip(
            jax.tree.leaves((params, pm.gamma(state))), jax.tree.leaves((alone, pm.gamma(alone_state))), strict=True
        ):
            np.testing.assert_allclose(a, b, atol=2e-5)
    first, second = (jax.tree.leaves(run[0])[0] for run in together[:2])
    assert float(jnp.abs(first - second).max()) > 1e-3  # they are not one run
