"""A sparsity where several groups are at one level: the share is kept as nearly as can be, and no layer is emptied."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import parsimony as pm
from helpers.cases import in_turn
from helpers.related import METHODS
from parsimony._sparsity_target import threshold_at

METHODS = METHODS | {"split_lbi": lambda **kwargs: pm.split_lbi(0.1, nu=2.0, **kwargs)}
SIGNS = np.where(np.arange(24).reshape(4, 6) % 3, 1.0, -1.0)
CONSTANT = {"body": jnp.full((4, 6), 0.5), "head": jnp.asarray(SIGNS, jnp.float32), "bias": jnp.zeros(6)}
PENALTIES = {
    "Lasso": pm.Lasso(0.3),
    "GroupLasso": pm.GroupLasso(-1, 0.3),
    "SparseGroupLasso": pm.SparseGroupLasso(-1, 0.3, 0.5),
    "BlockLasso": pm.BlockLasso((2, 3), 0.3),
    "of units": pm.structure.unit_penalty(
        pm.structure.find_units(lambda p, x: jnp.tanh(x @ p["body"]) @ p["head"].T, CONSTANT, jnp.ones((2, 4)))
    ),
}


def after(tx, params, steps=3, gradient=0.0):
    state = tx.init(params)
    for _ in range(steps):
        updates, state = tx.update(jax.tree.map(lambda w: jnp.full_like(w, gradient), params), state, params)
        params = optax.apply_updates(params, updates)
    return params, state


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize(("penalty", "make"), in_turn(PENALTIES, METHODS, each=2))
def test_layers_of_equal_weights_are_not_emptied(penalty, make, scope):
    """Every group of a layer is at one level, so that all are zero or none."""
    _, state = after(make(penalty=penalty, sparsity=0.5, sparsity_scope=scope), CONSTANT)
    for name, inside in pm.support(state).items():
        assert inside.all(), name
    assert jnp.abs(pm.gamma(state)["body"]).min() > 1e-3  # not on the threshold either


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)
def test_all_is_zero_where_all_zeros_are_asked_for(make, scope):
    _, state = after(make(penalty=pm.Lasso(), sparsity=lambda _: 1.0, sparsity_scope=scope), CONSTANT)
    assert not pm.support(state)["body"].any()


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize(
    ("levels", "share", "zeros"),
    [
        ([1, 1, 1, 1, 2, 2, 3, 4, 5, 6], 0.1, 0),  # 0 is nearer than 4
        ([1, 1, 1, 1, 2, 2, 3, 4, 5, 6], 0.3, 4),
        ([1, 1, 1, 1, 2, 2, 3, 4, 5, 6], 0.4, 4),
        ([1, 1, 1, 1, 2, 2, 3, 4, 5, 6], 0.5, 6),  # as far from 4 as from 6: from above, as ever
        ([1, 1, 1, 1, 2, 2, 3, 4, 5, 6], 0.61, 7),  # one group alone: from above
        ([0, 0, 0, 2, 2, 2, 2, 2, 2, 2], 0.9, 3),  # 10 would be nearer, and nothing left
        ([0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0.5, 10),  # zeros are zero at any strength
        ([1, 2, 3, 4, 5, 6, 7, 8, 9, 9], 0.9, 8),
        ([1, 1 + 3e-6, 2, 3, 4, 5, 6, 7, 8, 9], 0.1, 2),  # one level, as far as rounding tells
    ],
)
def test_groups_at_one_level_stay_or_leave_together_whichever_is_nearer(levels, share, zeros, scope):
    u = {"kernel": jnp.asarray(levels, jnp.float32).reshape(2, 5)}
    strength = threshold_at(pm.Lasso(0.25), u, share, scope=scope)
    found = jnp.sum(pm.Lasso(0.25).prox(u["kernel"] / jax.tree.leaves(strength)[0]) == 0)
    assert found == zeros


def test_one_layer_of_equal_weights_among_others_is_not_emptied_by_the_share_of_all():
    """Its level is where half of all weights would be zero; T stays below it, and the share with it."""
    u = {"equal": jnp.full((2, 8), 0.5), "other": jnp.linspace(0.1, 1.0, 16).reshape(2, 8)}
    strength = threshold_at(pm.Lasso(1.0), u, 0.5)
    zeros = {name: int(jnp.sum(pm.Lasso(1.0).prox(w / strength) == 0)) for name, w in u.items()}
    assert zeros == {"equal": 0, "other": int(jnp.sum(u["other"] < 0.5))}


def test_ties_that_the_gradient_breaks_leave_the_share_as_asked():
    """The first steps have nothing to go by; then the weights differ."""
    slopes = jnp.arange(24.0).reshape(4, 6) / 24
    tx, params = pm.rda(0.1, pm.Lasso(0.3), sparsity=0.5), {"kernel": jnp.full((4, 6), 0.5)}
    state, shares = tx.init(params), []
    for k in range(4):
        updates, state = tx.update({"kernel": 0.0 * slopes if k < 2 else slopes}, state, params)
        params = optax.apply_updates(params, updates)
        shares.append(float(jnp.mean(params["kernel"] == 0)))
    assert shares == [0, 0, 0.5, 0.5]
