"""A small network in Flax under Split LBI: in NNX's functional form, under `nnx.Optimizer`, and for Linen."""

import functools

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import parsimony as pm

STEPS = 10
# Anchored, so that a name that differs between `init` and `update` (`dense/kernel/value`) is found out.
RULES = pm.Rules([("^conv/kernel$", pm.GroupLasso(-1, strength=0.7)), ("^dense/kernel$", pm.Lasso(0.15))])
HYPER = {"learning_rate": 0.1, "nu": 1.0, "penalty": RULES, "momentum": 0.5}
X = jnp.asarray(np.random.default_rng(0).normal(size=(8, 6, 6, 1)), jnp.float32)
Y = jnp.asarray(np.random.default_rng(1).integers(0, 3, 8))


class Net(nnx.Module):
    """A convolution, a normaliser with statistics, and a head."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(1, 8, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.dense = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        return self.dense(nnx.relu(self.norm(self.conv(x))).mean((1, 2)))


def cross_entropy(logits):
    return optax.softmax_cross_entropy_with_integer_labels(logits, Y).mean()


def new_net():
    net = Net(nnx.Rngs(0))
    # Filters of unequal size, so that they enter one by one.
    net.conv.kernel[...] = net.conv.kernel[...] * jnp.linspace(0.2, 3, 8).reshape(1, 1, 1, 8)
    return net


def functional_run(tx):
    """The loop that Flax recommends for speed: plain dictionaries of arrays under `jax.jit`."""
    graphdef, variables, rest = nnx.split(new_net(), nnx.Param, ...)
    params, rest = nnx.to_pure_dict(variables), nnx.to_pure_dict(rest)

    @jax.jit
    def step(params, rest, state):
        def loss(params):
            net = nnx.merge(graphdef, nnx.State(params), nnx.State(rest))
            return cross_entropy(net(X)), nnx.to_pure_dict(nnx.state(net, nnx.BatchStat))

        grads, rest = jax.grad(loss, has_aux=True)(params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), rest, state

    state = tx.init(params)
    for _ in range(STEPS):
        params, rest, state = step(params, rest, state)
    return graphdef, params, rest, state


@functools.cache
def expected_run():
    return functional_run(alone())


def optimizer_run(tx, transform=nnx.jit):
    """The convenient loop: the module and the optimizer are updated in place."""

    def step(net, optimizer):
        optimizer.update(net, nnx.grad(lambda net: cross_entropy(net(X)))(net))

    net = new_net()
    optimizer, step = nnx.Optimizer(net, tx, wrt=nnx.Param), transform(step)
    for _ in range(STEPS):
        step(net, optimizer)
    return net, optimizer


def plain(tree):
    """Nested dictionaries of arrays, whatever Flax holds them in."""
    return nnx.to_pure_dict(tree) if isinstance(tree, nnx.State) else flax.core.unfreeze(tree)


def alone(**changes):
    return pm.split_lbi(**HYPER | changes)


class LinenNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(8, (3, 3), name="conv")(x))
        return nn.Dense(3, name="dense")(x.mean((1, 2)))
