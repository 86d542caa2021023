"""What is not finite is never taken for structure: it stays in sight, or is rejected by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import parsimony as pm

PENALTIES = [
    pm.Lasso(0.1), pm.GroupLasso(-1, 0.1), pm.GroupLasso(-1, 0.1, "rms"), pm.SparseGroupLasso(-1, 0.1, 0.5),
    pm.BlockLasso((2, 2), 0.1), pm.NuclearNorm(0.1),
]  # fmt: skip
NAMES = [f"{type(penalty).__name__} {getattr(penalty, 'scale', None) or ''}".strip() for penalty in PENALTIES]


@pytest.mark.parametrize("penalty", PENALTIES, ids=NAMES)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_norms_and_prox_of_a_group_that_is_not_finite_are_not_finite(penalty, value):
    v = jnp.ones((4, 4)).at[1, 2].set(value)
    assert not bool(jnp.isfinite(penalty.prox(v)).all())
    assert not bool(jnp.isfinite(penalty.group_norms(v)).all())
    assert not bool(jnp.isfinite(penalty.value(v)))


@pytest.mark.parametrize("penalty", PENALTIES, ids=NAMES)
def test_in_half_precision_the_squares_of_a_group_do_not_overflow(penalty):
    v = jnp.full((64, 4), 40.0, jnp.float16)  # groups of norm 320, whose squares are beyond 65,504
    wide = v.astype(jnp.float32)
    np.testing.assert_allclose(penalty.group_norms(v), penalty.group_norms(wide), rtol=2e-3, atol=0.7)
    np.testing.assert_allclose(penalty.prox(v).astype(jnp.float32), penalty.prox(wide), rtol=2e-3)
    assert penalty.prox(v).dtype == jnp.float16
    assert bool(jnp.isfinite(penalty.value(v)))


def diverged(penalty=None):
    """(params, state) after a step with a NaN in the gradient of one filter, and one after it."""
    params = {"conv": jnp.ones((3, 3, 2, 4)), "mat": jnp.ones((3, 4))}
    tx = pm.record_path(pm.split_lbi(1.0, nu=1.0, penalty=penalty or pm.Rules([("conv", pm.GroupLasso(-1, 0.1))])))
    state = tx.init(params)
    for step in range(3):
        grads = jax.tree.map(jnp.zeros_like, params)
        if step == 1:
            grads["conv"] = grads["conv"].at[0, 0, 0, 1].set(jnp.nan)
        updates, state = tx.update(grads, state, params)
        params = jax.tree.map(jnp.add, params, updates)
    return params, state


def test_the_summary_counts_what_is_not_finite_apart_from_the_support():
    params, state = diverged()
    (row, _) = pm.sparsity_summary(state)
    assert (row.groups, row.all_groups, row.not_finite) == (3, 4, 18)
    assert "18 not finite" in str(pm.sparsity_summary(state))
    norms = pm.group_norms(state)["conv"]
    np.testing.assert_array_equal(np.isnan(norms), [False, True, False, False])
    np.testing.assert_array_equal(np.isnan(pm.group_norms(state, params)["conv"]), [False, True, False, False])


def test_a_filter_that_diverges_before_it_enters_is_recorded_as_never_entered():
    params = {"conv": jnp.ones((3, 3, 2, 4))}
    tx = pm.record_path(pm.split_lbi(1.0, nu=4.0, penalty=pm.GroupLasso(-1, 3.0)))
    state = tx.init(params)
    for _ in range(6):  # ‖V‖ = 4.24·(1 − 0.75^k) exceeds 3 at k = 5
        grads = {"conv": jnp.zeros((3, 3, 2, 4)).at[0, 0, 0, 1].set(jnp.nan)}
        updates, state = tx.update(grads, state, params)
        params = jax.tree.map(jnp.add, params, updates)
    steps = pm.entry_steps(state)["conv"]
    assert steps[1] == pm.NEVER
    assert bool((steps[jnp.array([0, 2, 3])] != pm.NEVER).all())


def test_the_sparse_model_keeps_what_diverged_in_sight():
    params, state = diverged()
    sparse = pm.sparse_params(params, state)["conv"]
    assert bool(jnp.isnan(sparse[..., 1]).all())
    assert bool(jnp.isfinite(sparse[..., 0]).all())
    assert bool(jnp.isnan(pm.gamma(state)["conv"][..., 1]).all())


@pytest.mark.parametrize("order", ["entry", "dual", "gamma", "magnitude"])
def test_no_order_takes_weights_that_are_not_finite(order):
    params, state = diverged()
    with pytest.raises(ValueError, match=r"of 'conv' holds .* values that are not finite"):
        pm.select(params, state, 0.5, order=order)
    with pytest.raises(ValueError, match=r"of 'conv' holds .* values that are not finite"):
        pm.rank(params, state, order=order)


def test_masks_and_shares_of_a_support_that_is_not_finite_are_rejected_by_name():
    _, state = diverged(pm.GroupLasso(-1, 0.1))
    with pytest.raises(ValueError, match="V of 'conv' holds 1 of 72 values"):
        pm.support(state)
    assert not bool(jax.jit(pm.support)(state)["conv"][..., 1].any())  # inside jit nothing can be raised
    fn = lambda p, x: jax.nn.relu(x @ p["w1"]) @ p["w2"]
    weights = {"w1": jnp.ones((4, 6)), "w2": jnp.ones((6, 3))}
    units = pm.structure.find_units(fn, weights, jnp.ones((2, 4)))
    tx = pm.split_lbi(0.1, penalty=pm.structure.unit_penalty(units))
    _, state = tx.update(
        jax.tree.map(jnp.ones_like, weights), tx.init(weights), weights | {"w1": weights["w1"] * jnp.nan}
    )
    with pytest.raises(ValueError, match="V of 'w1' holds"):
        pm.support(state)
    unread = weights | {"w2": weights["w2"].at[0, 0].set(jnp.nan)}
    with pytest.raises(ValueError, match="W of 'w2' holds 1 of"):
        pm.structure.used_units(units, unread)
    damaged = weights | {"w1": weights["w1"].at[0, 2].set(jnp.nan)}
    with pytest.raises(ValueError, match="W of 'w1' holds 1 of 24 values"):
        pm.structure.choose(units, damaged, sparsity=0.5, order="magnitude")
    with pytest.raises(ValueError, match="the numbers of 'w1' contain NaN"):
        pm.structure.choose(units, weights, sparsity=0.5, order={"w1": np.array([1.0, np.nan, 0, 0, 0, 0])})
    with pytest.raises(ValueError, match="W of 'w1' holds 1 of 24 values"):
        pm.path_speed(damaged, steps=10, learning_rate=0.1, nu=1.0, penalty=pm.Lasso())
