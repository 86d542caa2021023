"""Runs on a noisy quadratic loss inside Optax's wrappers."""

import functools
import zlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

import parsimony as pm

RULES = pm.Rules([("conv", pm.GroupLasso(-1, strength=1.9)), ("dense/kernel", pm.Lasso(0.3))])
NUMBERS = {"learning_rate": 0.2, "kappa": 1.5, "nu": 2.0}
STEPS = 12


def initial_params():
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape) * unequal(shape), jnp.float32)
    return {"conv": {"kernel": draw(2, 2, 3, 8)}, "dense": {"kernel": draw(6, 5), "bias": draw(5)}}


def unequal(shape):
    """Some filters matter more than others, so that they enter one by one."""
    return np.linspace(0.1, 2, shape[-1])


def loss_gradient(params, step):
    """Of a noisy quadratic loss. It depends on a parameter's name, not on its place, so that a part can train alone."""

    def of(path, w):
        seed = zlib.crc32(jax.tree_util.keystr(path).encode())
        rng, noise = np.random.default_rng(seed), np.random.default_rng([seed, step])
        curvature, goal = rng.uniform(0.1, 1, w.shape), rng.normal(size=w.shape) * unequal(w.shape)
        return (curvature * (w - goal) + 0.1 * noise.normal(size=w.shape)).astype(w.dtype)

    return jax.tree_util.tree_map_with_path(of, params)


def train(tx, params, steps=range(STEPS), state=None, **extra_args):
    state = tx.init(params) if state is None else state
    update = jax.jit(tx.update)
    for step in steps:
        updates, state = update(loss_gradient(params, step), state, params, **extra_args)
        params = optax.apply_updates(params, updates)
    return params, state


@functools.cache
def bare_run():
    return train(bare(), initial_params())


def readouts(params, state):
    return pm.gamma(state), pm.support(state), pm.sparse_params(params, state)


def assert_close(one, other):
    chex.assert_trees_all_close(one, other, rtol=1e-5, atol=1e-6)


def bare(**changes):
    return pm.split_lbi(**NUMBERS | {"penalty": RULES, "momentum": 0.5} | changes)


def inject(**changes):
    return optax.inject_hyperparams(pm.split_lbi)(**NUMBERS | {"penalty": RULES, "momentum": 0.5} | changes)


def everything(params):
    return jax.tree.map(lambda _: True, params)


def all_to_one(tx):
    return optax.partition({"all": tx}, lambda params: jax.tree.map(lambda _: "all", params))


TRANSPARENT = {
    "chain": lambda: optax.chain(optax.clip(1e6), bare()),
    "chain in a chain": lambda: optax.chain(optax.identity(), optax.chain(bare(), optax.scale(1.0))),
    "named_chain": lambda: optax.named_chain(("clip", optax.clip(1e6)), ("lbi", bare())),
    "masked": lambda: optax.masked(bare(), everything),
    "partition": lambda: all_to_one(bare()),
    "MultiSteps": lambda: optax.MultiSteps(bare(), every_k_schedule=1),
    "apply_if_finite": lambda: optax.apply_if_finite(bare(), max_consecutive_errors=3),
    "inject_hyperparams": lambda: inject(),
    "inject_hyperparams in a chain": lambda: optax.chain(optax.clip(1e6), inject()),
    "masked in partition": lambda: all_to_one(optax.masked(bare(), everything)),
    "apply_if_finite of partition of inject_hyperparams": lambda: optax.apply_if_finite(all_to_one(inject()), 3),
    "MultiSteps of apply_if_finite of masked of a chain": lambda: optax.MultiSteps(
        optax.apply_if_finite(optax.masked(optax.chain(bare(), optax.identity()), everything), 3), 1
    ),
    "MultiSteps of inject_hyperparams, as a transformation": lambda: optax.MultiSteps(
        inject(), 1
    ).gradient_transformation(),
}
LABELS = {"conv": "one", "dense": "other"}
GROUPS = pm.GroupLasso(strength=1.9)


def part_of(tree, label):
    return {name: sub for name, sub in tree.items() if LABELS[name] == label}
