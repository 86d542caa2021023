"""Recalibrated statistics are the mean of those of the batches, in every framework and whatever the momentum."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import parsimony as pm

BATCHES = [jnp.asarray(np.random.default_rng(i).normal(3.0 * i, 1.0 + i, (32, 6)), jnp.float32) for i in range(4)]
WEIGHTS = jnp.asarray(np.random.default_rng(9).normal(size=(6, 5)), jnp.float32)
SECOND = jnp.asarray(np.random.default_rng(8).normal(size=(5, 4)), jnp.float32)
EPSILON = 1e-5


def moments():
    """Mean and variance of both normalised layers over each batch, in float64, averaged over the batches."""
    found = []
    for x in BATCHES:
        y = np.asarray(x, np.float64) @ np.asarray(WEIGHTS, np.float64)
        z = np.maximum((y - y.mean(0)) / np.sqrt(y.var(0) + EPSILON), 0) @ np.asarray(SECOND, np.float64)
        found.append((y.mean(0), y.var(0), z.mean(0), z.var(0)))
    return [np.mean(part, axis=0) for part in zip(*found, strict=True)]


def assert_moments(*found):
    for own, expected in zip(found, moments(), strict=True):
        np.testing.assert_allclose(own, expected, rtol=2e-4, atol=1e-4)


class LinenNet(nn.Module):
    momentum: float

    @nn.compact
    def __call__(self, x, train=True):
        norm = lambda: nn.BatchNorm(use_running_average=not train, momentum=self.momentum, epsilon=EPSILON)
        hidden = nn.relu(norm()(x @ WEIGHTS))
        return norm()(hidden @ SECOND)


@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.99])
def test_linen(momentum):
    net = LinenNet(momentum)
    variables = net.init(jax.random.key(0), BATCHES[0])
    params = variables["params"]

    @jax.jit
    def forward(stats, x):
        return net.apply({"params": params, "batch_stats": stats}, x, mutable=["batch_stats"])[1]["batch_stats"]

    stats = pm.recalibrate(forward, variables["batch_stats"], BATCHES)
    assert jax.tree.structure(stats) == jax.tree.structure(variables["batch_stats"])
    first, second = stats["BatchNorm_0"], stats["BatchNorm_1"]
    assert_moments(first["mean"], first["var"], second["mean"], second["var"])


class NnxNet(nnx.Module):
    def __init__(self, momentum):
        self.first = nnx.BatchNorm(5, momentum=momentum, epsilon=EPSILON, rngs=nnx.Rngs(0))
        self.second = nnx.BatchNorm(4, momentum=momentum, epsilon=EPSILON, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return self.second(nnx.relu(self.first(x @ WEIGHTS)) @ SECOND)


@pytest.mark.parametrize("momentum", [0.9, 0.999])
@pytest.mark.parametrize("pure", [True, False])
def test_nnx_from_any_old_statistics(momentum, pure):
    graphdef, stats, rest = nnx.split(NnxNet(momentum), nnx.BatchStat, ...)
    stats = nnx.to_pure_dict(stats) if pure else stats
    stats = jax.tree.map(lambda x: x + 7.0, stats)

    def forward(stats, x):
        net = nnx.merge(graphdef, nnx.State(stats) if pure else stats, rest)
        net(x)
        new = nnx.state(net, nnx.BatchStat)
        return nnx.to_pure_dict(new) if pure else new

    found = pm.recalibrate(forward, stats, BATCHES)
    stats = found if pure else nnx.to_pure_dict(found)
    assert_moments(*(stats[norm][part] for norm in ("first", "second") for part in ("mean", "var")))


class EquinoxNet(eqx.Module):
    first: eqx.nn.BatchNorm
    second: eqx.nn.BatchNorm

    def __init__(self, mode):
        norm = lambda n: eqx.nn.BatchNorm(n, "batch", eps=EPSILON, momentum=0.9, mode=mode)
        self.first, self.second = norm(5), norm(4)

    def __call__(self, x, state):
        y, state = self.first(x @ WEIGHTS, state)
        return self.second(jax.nn.relu(y) @ SECOND, state)


def equinox_forward(net):
    def forward(state, x):
        return jax.vmap(net, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(x, state)[1]

    return forward


@pytest.mark.parametrize("steps", [0, 3])
def test_equinox_counts_its_steps(steps):
    net, state = eqx.nn.make_with_state(EquinoxNet)("batch")
    forward = equinox_forward(net)
    for _ in range(steps):
        state = forward(state, BATCHES[0])
    state = pm.recalibrate(forward, state, BATCHES)
    read = eqx.nn.inference_mode(net)
    x, (mean, var, mean2, var2) = BATCHES[0], moments()
    y = np.maximum((np.asarray(x @ WEIGHTS) - mean) / np.sqrt(var + EPSILON), 0) @ np.asarray(SECOND)
    expected = (y - mean2) / np.sqrt(var2 + EPSILON)
    found, _ = jax.vmap(read, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(x, state)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)


def test_equinox_that_trains_on_running_statistics_is_rejected():
    net, state = eqx.nn.make_with_state(EquinoxNet)("ema")
    forward = equinox_forward(net)
    state = forward(state, BATCHES[0])  # the very first call takes the batch's statistics
    with pytest.raises(ValueError, match=r"does not move as new = m·old"):
        pm.recalibrate(forward, state, BATCHES)


def haiku_style(stats, x):
    """Haiku's BatchNorm: a moving average with a counter and zero-debiasing, of which inference reads `average`."""
    new = {}
    for name, value in (("mean", x.mean(0)), ("var", x.var(0))):
        own, decay = stats[name], 0.99
        counter = own["counter"] + 1
        hidden = own["hidden"] * decay + value * (1 - decay)
        new[name] = {"counter": counter, "hidden": hidden, "average": hidden / (1 - decay**counter)}
    return new


@pytest.mark.parametrize("steps", [0, 1, 5, 1000])
def test_a_debiased_average_is_the_mean_at_every_age(steps):
    new = lambda: {"counter": jnp.int32(steps), "hidden": jnp.ones(6), "average": jnp.ones(6)}
    stats = pm.recalibrate(haiku_style, {"mean": new(), "var": new()}, BATCHES)
    mean = np.mean([np.asarray(x, np.float64).mean(0) for x in BATCHES], axis=0)
    np.testing.assert_allclose(stats["mean"]["average"], mean, rtol=1e-4, atol=1e-4)
    after = haiku_style(stats, BATCHES[0])["mean"]["average"]  # training goes on from there by its momentum
    np.testing.assert_allclose(after, 0.99 * mean + 0.01 * np.asarray(BATCHES[0]).mean(0), rtol=1e-4, atol=1e-4)


def test_a_mean_over_all_steps_is_taken_as_it_is():
    def forward(stats, x):
        n = stats["steps"]
        return {"steps": n + 1, "mean": stats["mean"] + (x.mean(0) - stats["mean"]) / (n + 1)}

    stats = pm.recalibrate(forward, {"steps": jnp.int32(7), "mean": jnp.zeros(6)}, BATCHES)
    np.testing.assert_allclose(stats["mean"], np.mean([np.asarray(x).mean(0) for x in BATCHES], axis=0), rtol=1e-4)


def test_the_variance_is_the_one_that_the_normalisation_keeps():
    unbiased = lambda stats, x: {"var": 0.9 * stats["var"] + 0.1 * x.var(0, ddof=1)}
    stats = pm.recalibrate(unbiased, {"var": jnp.ones(6)}, BATCHES)
    np.testing.assert_allclose(stats["var"], np.mean([np.asarray(x).var(0, ddof=1) for x in BATCHES], axis=0), 1e-5)


def test_dtypes_stay_and_coarse_statistics_are_worked_out_in_float32():
    forward = lambda stats, x: {"mean": 0.99 * stats["mean"] + 0.01 * x.mean(0), "frozen": stats["frozen"]}
    stats = {"mean": jnp.zeros(6, jnp.bfloat16), "frozen": jnp.full(2, 3.0)}
    stats = pm.recalibrate(forward, stats, BATCHES)
    assert stats["mean"].dtype == jnp.bfloat16
    expected = np.mean([np.asarray(x).mean(0) for x in BATCHES], axis=0)
    np.testing.assert_allclose(np.asarray(stats["mean"], np.float32), expected, rtol=1e-2)
    assert stats["frozen"].tolist() == [3.0, 3.0]


MEAN = {"mean": jnp.zeros(6)}


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda stats, x: stats, "training mode"),
        (lambda stats, x: {"mean": 1.5 * stats["mean"] + x.mean(0)}, "'mean' does not move"),
        (lambda stats, x: {"mean": jnp.maximum(stats["mean"], x.max(0))}, "'mean' does not move"),
        (lambda stats, x: {"mean": jnp.sqrt(jnp.abs(stats["mean"])) + x.mean(0)}, "'mean' does not move"),
        (lambda stats, x: {"mean": stats["mean"] + x.mean(0)}, "'mean' does not move"),
    ],
    ids=["inference", "grows", "maximum", "root", "sum"],
)
def test_what_is_no_running_mean_is_rejected_by_name(forward, message):
    with pytest.raises(ValueError, match=message):
        pm.recalibrate(forward, MEAN, BATCHES)


def test_nothing_to_average_is_rejected():
    with pytest.raises(ValueError, match="no batches"):
        pm.recalibrate(lambda stats, x: stats, MEAN, [])
    with pytest.raises(ValueError, match="no floating-point arrays"):
        pm.recalibrate(lambda stats, x: stats, {}, BATCHES)
    with pytest.raises(TypeError, match="must return new statistics"):
        pm.recalibrate(lambda stats, x: {"mean": x.mean(0), "logits": x}, MEAN, BATCHES)
