"""What goes on after a mask was minimised: the optimizer's state, masks that are held or opened; and bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import parsimony as pm
from helpers.architectures import flat
from helpers.small_mlp import mlp
from parsimony.structure import find_units, minimise, release


def steps(fn, tx, params, state, x, n=3):
    for _ in range(n):
        updates, state = tx.update(jax.grad(lambda p: jnp.square(fn(p, x)).sum())(params), state, params)
        params = optax.apply_updates(params, updates)
    return params


def test_training_goes_on_inside_the_masks_or_with_all_weights_of_the_small_arrays():
    params, fn = mlp(5, 6, 3)
    masks = {"w0": np.ones((5, 6), bool), "b1": np.array([False, True, True])}
    masks["w0"][:, 0] = False  # a constant, which b1 takes up, where it is masked too
    masks["w0"][2, 1:3] = False
    tx, x = pm.keep_support(optax.adam(1e-2), masks), jnp.ones((2, 5))
    state = tx.init(params)
    _, state = tx.update(params, state, params)
    small = minimise(fn, params, masks, x, opt_state=state)
    moment = lambda state: optax.tree.get(state, "mu")["w0"]
    np.testing.assert_array_equal(moment(small.opt_state), moment(state)[:, 1:])
    assert small.masks["b1"].all()
    assert optax.tree.get(small.opt_state, "masks")["b1"].all()
    inside = steps(small.fn, tx, small.params, small.opt_state, x)
    np.testing.assert_array_equal(np.asarray(inside["w0"]) != 0, small.masks["w0"])
    free = release(small)
    np.testing.assert_array_equal(moment(free.opt_state), moment(small.opt_state))
    assert np.all(flat(free.masks))
    assert np.all(flat(steps(free.fn, tx, free.params, free.opt_state, x)["w0"]) != 0)


@pytest.mark.parametrize("whole_units", [False, True])
def test_nothing_is_moved_into_weights_that_a_penalty_of_the_optimizer_holds(whole_units):
    """Γ of a bias that took a constant up would still be zero, and W̃ another model."""
    params, fn = mlp(5, 6, 4, 3)
    x = jnp.ones((2, 5))
    tx = pm.split_lbi(0.1, penalty=pm.structure.penalty_of(fn, params, x) if whole_units else None)
    masks = {"w0": np.ones((5, 6), bool)}
    masks["w0"][:, 0] = False
    small = minimise(fn, params, masks, x, opt_state=tx.init(params))
    if whole_units:
        why = "'b1', which would take its constant up, is under a penalty of opt_state; 'w1' itself is under a penalty"
        assert small.kept == {"w0": {0: f"{why} of opt_state"}}
    assert jax.tree.map(jnp.shape, pm.gamma(small.opt_state)) == jax.tree.map(jnp.shape, small.params)
    assert small.params["w0"].shape == (5, 6 if whole_units else 5)


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (lambda m: {**m, "w9": m["w0"]}, ValueError, r"'w9' is not a parameter of these units; they have .*w0"),
        (lambda m: {"w0": m["w0"].T}, ValueError, r"'w0' has dtype bool and shape \(4, 5\); expected bool of shape"),
        (lambda m: {"w0": 1.0 * m["w0"]}, ValueError, r"'w0' has dtype float64 and shape"),
    ],
)
def test_masks_of_another_model_are_named(change, kind, message):
    params, fn = mlp(5, 4, 2)
    with pytest.raises(kind, match=message):
        minimise(fn, params, change({"w0": np.ones((5, 4), bool)}), jnp.ones((2, 5)))


def test_other_bad_input_is_named():
    params, fn = mlp(5, 4, 2)
    x = jnp.ones((2, 5))
    with pytest.raises(TypeError, match="parameter 'b0' is a shape without numbers"):
        minimise(fn, jax.eval_shape(lambda: params), None, x)
    with pytest.raises(TypeError, match=r"parameter 'b0' is traced.*outside of jit"):
        jax.jit(lambda params: minimise(fn, params, None, x).params)(params)
    with pytest.raises(ValueError, match=r"expected the Units that find_units returns, and no arguments"):
        minimise(find_units(fn, params, x), params, None, x)
    with pytest.raises(TypeError, match="expected a function"):
        minimise(params, fn, None, x)
    with pytest.raises(TypeError, match="release: expected what minimise returns"):
        release(params)
    with pytest.raises(ValueError, match="has no masks: it was not made by minimise"):
        release(pm.structure.compact(find_units(fn, params, x), {}, params))
