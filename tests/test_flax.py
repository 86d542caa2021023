"""Split LBI in Flax: NNX in its functional form, `nnx.Optimizer`, and Linen's `TrainState`.

Parsimony never imports Flax; what it must get right is the names of parameters and the states that Flax wraps.
"""

import functools

import chex
import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState

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


def assert_close(one, other):
    chex.assert_trees_all_close(plain(one), plain(other), rtol=1e-4, atol=1e-5)


def alone(**changes):
    return pm.split_lbi(**HYPER | changes)


WRAPPED = {
    "split_lbi": alone,
    "inside a chain": lambda: optax.chain(optax.clip_by_global_norm(1e6), alone()),
    "inject_hyperparams": lambda: optax.inject_hyperparams(pm.split_lbi)(**HYPER),
    "apply_if_finite": lambda: optax.apply_if_finite(alone(), 3),
    "MultiSteps": lambda: optax.MultiSteps(alone(), 1).gradient_transformation(),
}


@pytest.mark.parametrize("make", WRAPPED.values(), ids=WRAPPED)
@pytest.mark.parametrize("transform", [nnx.jit, lambda step: step], ids=["nnx.jit", "eager"])
def test_nnx_optimizer_runs_and_reads_as_the_functional_form(make, transform):
    """Read-outs take `optimizer.opt_state` as it is."""
    net, optimizer = optimizer_run(make(), transform)
    _, params, _, state = expected_run()
    assert_close(nnx.state(net, nnx.Param), params)
    assert_close(pm.gamma(optimizer.opt_state), pm.gamma(state))
    support = plain(pm.support(optimizer.opt_state))
    chex.assert_trees_all_equal(support, pm.support(state))
    for kernel in (support["conv"]["kernel"], support["dense"]["kernel"]):
        assert 0 < kernel.mean() < 1
    assert support["norm"]["scale"].all()
    assert pm.sparsity_summary(optimizer.opt_state) == pm.sparsity_summary(state)


@pytest.mark.parametrize("pure", [False, True], ids=["variables", "arrays"])
def test_the_sparse_model_of_an_nnx_optimizer_is_put_back_by_nnx_update(pure):
    """From `nnx.state(net, nnx.Param)`, or from the same as plain arrays; the result is of the same kind."""
    net, optimizer = optimizer_run(alone())
    variables = nnx.state(net, nnx.Param)
    given = nnx.to_pure_dict(variables) if pure else variables
    sparse = pm.sparse_params(given, optimizer.opt_state)
    assert jax.tree.structure(sparse) == jax.tree.structure(given)

    dense, kept = np.asarray(net.conv.kernel[...]), plain(pm.support(optimizer.opt_state))["conv"]["kernel"]
    nnx.update(net, sparse)
    np.testing.assert_array_equal(net.conv.kernel[...], dense * kept)
    net.eval()
    hidden = net.conv(X)
    np.testing.assert_array_equal(  # a removed filter emits its bias and nothing else
        hidden[..., ~kept[0, 0, 0]],
        jnp.broadcast_to(net.conv.bias[...][~kept[0, 0, 0]], hidden[..., ~kept[0, 0, 0]].shape),
    )


def test_the_sparse_model_of_the_functional_form_is_merged():
    graphdef, params, rest, state = expected_run()
    sparse = nnx.merge(graphdef, nnx.State(pm.sparse_params(params, state)), nnx.State(rest))
    net, optimizer = optimizer_run(alone())
    nnx.update(net, pm.sparse_params(nnx.state(net, nnx.Param), optimizer.opt_state))
    np.testing.assert_allclose(sparse(X), net(X), rtol=1e-4, atol=1e-5)


def test_an_nnx_optimizer_takes_split_lbi_beside_another_transformation():
    """`optax.partition` by a function of the parameters: the convolution alone is penalised, the rest is Adam's."""
    labels = lambda params: jax.tree_util.tree_map_with_path(
        lambda path, _: "lbi" if "conv" in jax.tree_util.keystr(path) else "adam", params
    )
    tx = optax.partition({"lbi": alone(penalty=pm.GroupLasso(strength=0.7)), "adam": optax.adam(1e-2)}, labels)
    net, optimizer = optimizer_run(tx)
    _, params, _, state = functional_run(tx)
    assert_close(nnx.state(net, nnx.Param), params)
    gamma = pm.gamma(optimizer.opt_state)
    np.testing.assert_allclose(gamma["conv"]["kernel"][...], pm.gamma(state)["conv"]["kernel"], rtol=1e-4, atol=1e-5)
    assert 0 < pm.support(state)["conv"]["kernel"].mean() < 1
    sparse = pm.sparse_params(nnx.state(net, nnx.Param), optimizer.opt_state)
    chex.assert_trees_all_equal(sparse["dense"], nnx.state(net, nnx.Param)["dense"])


def test_a_hyper_parameter_of_an_nnx_optimizer_is_changed_in_place():
    """A learning rate of zero stops W and V where they are."""
    net, optimizer = optimizer_run(WRAPPED["inject_hyperparams"]())
    before = plain(nnx.state(net, nnx.Param)), plain(pm.gamma(optimizer.opt_state))
    optimizer.opt_state.hyperparams["learning_rate"][...] = jnp.float32(0.0)
    optimizer.update(net, nnx.grad(lambda net: cross_entropy(net(X)))(net))
    chex.assert_trees_all_equal((plain(nnx.state(net, nnx.Param)), plain(pm.gamma(optimizer.opt_state))), before)


class LinenNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(8, (3, 3), name="conv")(x))
        return nn.Dense(3, name="dense")(x.mean((1, 2)))


@pytest.mark.parametrize("freeze", [lambda tree: tree, flax.core.freeze], ids=["dict", "FrozenDict"])
def test_linens_train_state(freeze):
    """`apply_gradients` is the plain loop; `TrainState.opt_state` is read as it is, and takes W as it is."""
    net = LinenNet()
    params = net.init(jax.random.key(0), X)["params"]
    params["conv"]["kernel"] = params["conv"]["kernel"] * jnp.linspace(0.2, 3, 8).reshape(1, 1, 1, 8)
    loss_gradient = jax.jit(jax.grad(lambda params: cross_entropy(net.apply({"params": params}, X))))

    tx = alone()
    train_state = TrainState.create(apply_fn=net.apply, params=freeze(params), tx=tx)
    state = tx.init(params)
    for _ in range(STEPS):
        train_state = train_state.apply_gradients(grads=loss_gradient(train_state.params))
        updates, state = tx.update(loss_gradient(params), state, params)
        params = optax.apply_updates(params, updates)

    assert train_state.step == STEPS
    read = [pm.gamma(train_state.opt_state), pm.support(train_state.opt_state)]
    read.append(pm.sparse_params(train_state.params, train_state.opt_state))
    expected = pm.gamma(state), pm.support(state), pm.sparse_params(params, state)
    for got, wanted in zip([train_state.params, *read], [params, *expected], strict=True):
        assert type(got) is type(train_state.params)
        assert_close(got, wanted)
    assert 0 < expected[1]["conv"]["kernel"].mean() < 1
    assert 0 < expected[1]["dense"]["kernel"].mean() < 1
