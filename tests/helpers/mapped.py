"""Runs to compile, scan and map: Split LBI in several forms on a small problem."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import parsimony as pm
from helpers.cases import mostly

STEPS, BATCH = 12, 8
RULES = pm.Rules([("conv", pm.GroupLasso(-1, strength=0.8)), ("kernel", pm.Lasso(0.2))])
HYPER = {"learning_rate": 0.2, "kappa": 1.5, "nu": 2.0, "penalty": RULES, "momentum": 0.5}


def split_lbi(**changes):
    return pm.split_lbi(**HYPER | changes)


def injected(**changes):
    return optax.inject_hyperparams(pm.split_lbi)(**HYPER | changes)


DECAYING = optax.cosine_decay_schedule(0.2, 2 * STEPS)
TRANSFORMATIONS = {
    "plain": lambda: split_lbi(momentum=None),
    "momentum": split_lbi,
    "schedule": lambda: split_lbi(learning_rate=DECAYING),
    "inner": lambda: split_lbi(momentum=None, inner=optax.trace(0.5)),
    "adam before": lambda: optax.chain(optax.scale_by_adam(), pm.inverse_scale_space(0.1, nu=2.0, penalty=RULES)),
    "injected": injected,
    "injected schedule": lambda: injected(learning_rate=DECAYING),
}


every_transformation = pytest.mark.parametrize("name", mostly(TRANSFORMATIONS, ["plain", "injected schedule"]))


def draw(seed, *leading):
    """Three parameters, or trees of examples like them. Filters have unequal sizes, so that they enter one by one."""
    rng = np.random.default_rng(seed)

    def one(*shape):
        scale = np.broadcast_to(np.linspace(0.2, 2, shape[-1]), shape)
        return (rng.normal(size=(*leading, *shape)) * scale).astype(np.float32)

    return {"conv": one(2, 2, 3, 6), "dense": {"kernel": one(5, 4), "bias": one(4)}}


@functools.cache
def problem(seed):
    """Initial weights, and the batches of all steps, stacked."""
    return jax.tree.map(jnp.asarray, (draw(seed), draw([seed, 1], STEPS, BATCH)))


def at(tree, place):
    return jax.tree.map(lambda leaf: leaf[place], tree)


def loss(params, batch):
    """Least squares to examples, with a curvature of its own for each weight."""
    sums = [
        jnp.sum(jnp.linspace(0.1, 1, w.size, dtype=w.dtype).reshape(1, *w.shape) * jnp.square(w[None] - x))
        for w, x in zip(jax.tree.leaves(params), jax.tree.leaves(batch), strict=True)
    ]
    return sum(sums) / (2 * len(jax.tree.leaves(batch)[0]))


def make_step(tx, average=lambda grads: grads):
    def step(params, state, batch):
        updates, state = tx.update(average(jax.grad(loss)(params, batch)), state, params)
        return optax.apply_updates(params, updates), state

    return step


def run(tx, params, batches, transform=jax.jit):
    step, state = transform(make_step(tx)), tx.init(params)
    for number in range(STEPS):
        params, state = step(params, state, at(batches, number))
    return params, state


def scanned(tx, params, batches):
    step = make_step(tx)
    return jax.lax.scan(lambda carry, batch: (step(*carry, batch), None), (params, tx.init(params)), batches)[0]


def assert_same(one, other):
    """Close in W and in the whole state; and the supports have something in them and something not."""
    chex.assert_trees_all_close(one, other, rtol=2e-5, atol=2e-6)
    support = pm.support(one[1])
    assert 0 < jnp.mean(support["conv"]) < 1
    assert 0 < jnp.mean(support["dense"]["kernel"]) < 1


def readouts(params, state):
    return pm.gamma(state), pm.support(state), pm.sparse_params(params, state)
