"""What merely looks odd is fine: trees of any kind, scalars of any type, zeros, a penalty of one's own."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import parsimony as pm

PARAMS = {"conv1/kernel": jnp.ones((2, 2, 3, 4)), "conv1/bias": jnp.ones(4), "head/kernel": jnp.ones((4, 5))}


def one_step(tx, params) -> Any:
    """Updates and state after a step with the parameters as their own gradient."""
    return tx.update(params, tx.init(params), params)


@pytest.mark.parametrize(
    "params",
    [
        {},
        (),
        {"kernel": jnp.ones((3, 4)), "frozen": None},
        {"kernel": jnp.ones((3, 4)), "scale": jnp.ones(())},
        {"kernel": jnp.ones((3, 4)), "scale": 1.0},
        {"kernel": np.ones((3, 4)), "scale": np.float64(1.0)},
        {"kernel": jnp.ones((3, 4)), "steps": jnp.ones((), "int32")},
        [jnp.ones((3, 4)), {"deep": (jnp.ones((2, 1)),)}],
        jnp.ones((3, 4)),
        {"kernel": jnp.ones((1, 1)), "empty": jnp.ones((0, 4))},
    ],
    ids=lambda params: str(jax.tree.map(jnp.shape, params)),
)
def test_odd_trees_are_trees(params):
    updates, state = one_step(pm.split_lbi(0.5, momentum=0.9, nu=1.0), params)
    after = optax.apply_updates(params, updates)
    for tree in (after, pm.gamma(state), pm.support(state), pm.sparse_params(after, state)):
        assert jax.tree.structure(tree) == jax.tree.structure(params)
        assert jax.tree.map(jnp.shape, tree) == jax.tree.map(jnp.shape, params)
    for w in jax.tree.leaves(after):  # from 1, by a gradient of 1 and, for the matrices, the coupling (1 − 0)/ν
        expected = 0.0 if w.ndim == 2 else 0.5 if jnp.issubdtype(w.dtype, jnp.floating) else 1
        np.testing.assert_array_equal(w, np.full(w.shape, expected))


HYPER: dict[str, Any] = {"learning_rate": 0.25, "kappa": 2.0, "nu": 4.0, "dual_learning_rate": 0.5}


def after_two_steps(**hyper):
    tx = pm.inverse_scale_space(**(HYPER | hyper), penalty=pm.GroupLasso(-1, 0.125))
    params: Any = PARAMS
    state: Any = tx.init(PARAMS)
    for _ in range(2):
        updates, state = tx.update(jax.tree.map(jnp.zeros_like, params), state, params)
        params = optax.apply_updates(params, updates)
    return params, pm.gamma(state), state.time


@pytest.mark.parametrize("name", HYPER)
@pytest.mark.parametrize(
    "handed_over",
    [
        lambda name: after_two_steps(**{name: np.float32(HYPER[name])}),
        lambda name: after_two_steps(**{name: np.float64(HYPER[name])}),
        lambda name: after_two_steps(**{name: np.array(HYPER[name])}),
        lambda name: after_two_steps(**{name: jnp.float32(HYPER[name])}),
        lambda name: after_two_steps(**{name: jnp.bfloat16(HYPER[name])}),
        lambda name: jax.jit(lambda value: after_two_steps(**{name: value}))(HYPER[name]),
    ],
    ids=["float32", "float64", "0-d NumPy", "0-d JAX", "bfloat16", "traced"],
)
def test_a_hyper_parameter_may_be_any_scalar(name, handed_over):
    ours, plain = handed_over(name), after_two_steps()
    assert jax.tree.map(lambda x: x.dtype, ours) == jax.tree.map(lambda x: x.dtype, plain)
    assert all(np.any(leaf) for leaf in (plain[1]["conv1/kernel"], plain[1]["head/kernel"])), "no group entered"
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), ours, plain)


def test_a_whole_number_is_a_number():
    jax.tree.map(np.testing.assert_array_equal, after_two_steps(kappa=2, nu=4), after_two_steps())


def test_a_rate_may_pass_through_zero():
    """As the value of a schedule, or as an array, which is how `optax.inject_hyperparams` hands it over."""
    for zero in (lambda count: 0.0 * count, jnp.float32(0)):
        params, gamma, time = after_two_steps(learning_rate=zero, dual_learning_rate=zero)
        jax.tree.map(np.testing.assert_array_equal, params, PARAMS)
        assert time == 0 == sum(jnp.sum(jnp.abs(leaf)) for leaf in gamma.values())


@pytest.mark.parametrize(
    "penalty",
    [pm.Lasso(), pm.GroupLasso(), pm.SparseGroupLasso(), pm.BlockLasso((2, 2)), pm.NuclearNorm()],
    ids=lambda penalty: type(penalty).__name__,
)
def test_zero_weights_and_gradients_move_nothing_and_leave_finite_derivatives(penalty):
    params = {"kernel": jnp.zeros((4, 5))}
    tx = pm.split_lbi(0.5, nu=1.0, penalty=penalty, momentum=0.9)

    def two_steps(params) -> Any:
        updates, state = one_step(tx, params)
        params = optax.apply_updates(params, updates)
        updates, state = tx.update(updates, state, params)
        return optax.apply_updates(params, updates), pm.gamma(state), pm.sparse_params(params, state)

    jax.tree.map(lambda leaf: np.testing.assert_array_equal(leaf, np.zeros((4, 5))), two_steps(params))
    slopes = jax.jit(jax.jacrev(lambda params: jax.tree.map(jnp.sum, two_steps(params))))(params)
    assert all(np.isfinite(slope).all() for slope in jax.tree.leaves(slopes))
    assert np.any(slopes[0]["kernel"]["kernel"])  # W⁺ depends on W, whatever Γ does


class HardlyAPenalty:
    """The indicator of zero: four methods and no more, neither `shrink` nor `soft`."""

    strength = 1.0

    def prox(self, v):
        return jnp.zeros_like(v)

    def value(self, x):
        return jnp.where(jnp.any(x != 0), jnp.inf, 0.0)

    def group_norms(self, x):
        return jnp.abs(x)

    def check(self, shape):
        pass


def test_a_penalty_of_ones_own_needs_no_more_than_the_four_methods():
    updates, state = one_step(pm.split_lbi(0.5, nu=1.0, penalty=HardlyAPenalty()), PARAMS)
    np.testing.assert_array_equal(updates["head/kernel"], -np.ones((4, 5)))
    assert not np.any(pm.gamma(state)["head/kernel"])
