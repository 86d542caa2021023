"""Split LBI in Flax: NNX in its functional form, `nnx.Optimizer`, and Linen's `TrainState`.

Parsimony never imports Flax; what it must get right is the names of parameters and the states that Flax wraps.
"""

import chex
import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState

import parsimony as pm
from helpers.flax_runs import (
    HYPER,
    STEPS,
    LinenNet,
    X,
    alone,
    cross_entropy,
    expected_run,
    functional_run,
    optimizer_run,
    plain,
)


def assert_close(one, other):
    chex.assert_trees_all_close(plain(one), plain(other), rtol=1e-4, atol=1e-5)


WRAPPED = {
    "split_lbi": alone,
    "inside a chain": lambda: optax.chain(optax.clip_by_global_norm(1e6), alone()),
    "inject_hyperparams": lambda: optax.inject_hyperparams(pm.split_lbi)(**HYPER),
    "apply_if_finite": lambda: optax.apply_if_finite(alone(), 3),
    "MultiSteps": lambda: optax.MultiSteps(alone(), 1).gradient_transformation(),
}


@pytest.mark.parametrize(
    ("name", "transform"),
    [
        pytest.param(name, transform, marks=() if transform is nnx.jit and name == "split_lbi" else pytest.mark.slow)
        for name, transform in [
            *((name, nnx.jit) for name in WRAPPED),
            *((name, lambda step: step) for name in ("split_lbi", "inject_hyperparams")),
        ]
    ],
    ids=[*WRAPPED, "split_lbi, eager", "inject_hyperparams, eager"],
)
def test_nnx_optimizer_runs_and_reads_as_the_functional_form(name, transform):
    """Read-outs take `optimizer.opt_state` as it is."""
    net, optimizer = optimizer_run(WRAPPED[name](), transform)
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


@pytest.mark.slow
def test_a_hyper_parameter_of_an_nnx_optimizer_is_changed_in_place():
    """A learning rate of zero stops W and V where they are."""
    net, optimizer = optimizer_run(WRAPPED["inject_hyperparams"]())
    before = plain(nnx.state(net, nnx.Param)), plain(pm.gamma(optimizer.opt_state))
    optimizer.opt_state.hyperparams["learning_rate"][...] = jnp.float32(0.0)
    optimizer.update(net, nnx.grad(lambda net: cross_entropy(net(X)))(net))
    chex.assert_trees_all_equal((plain(nnx.state(net, nnx.Param)), plain(pm.gamma(optimizer.opt_state))), before)


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
