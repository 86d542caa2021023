"""A residual branch may lose all of its units: the shortcut stays. What everything passes through may not."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import parsimony as pm
from helpers.architectures import built, error
from helpers.cases import mostly
from parsimony.structure import compact, count, export, find_units, keep_from_masks, load_compact
from parsimony.structure._rewrite.flow import passes


@pytest.mark.parametrize("name", mostly(["resnet", "resnet_bottleneck", "vit", "gpt"], ["resnet"]))
def test_every_branch_can_go_and_leaves_the_shortcut(name):
    fn, params, args, units = built(name)
    branches, whole = 0, jax.jit(fn)
    for own in units.sets.values():
        if own.reduced or own.size == 1:
            continue
        keep = {own.name: np.zeros(own.size, bool)}
        if not passes(next(iter(units._cache.values())), keep):
            with pytest.raises(ValueError, match="nothing passes through"):
                compact(units, keep, params)
            continue
        small = compact(units, keep, params)
        branches += 1
        assert error(jax.jit(small.fn)(small.params, *args), whole(units.zero(keep, params), *args)) < 1e-5
        assert count(small.fn, small.params, *args).macs < count(fn, params, *args).macs
    assert branches >= 2
    assert branches < len(units.sets)


def normal(*shape):
    return jnp.asarray(np.random.default_rng(shape).normal(size=shape), jnp.float32)


PARAMS = {"stem": normal(4, 8), "w1": normal(8, 6), "w2": normal(6, 8), "head": normal(8, 3)}
X = normal(2, 4)


def residual(p, x):
    h = x @ p["stem"]
    return (h + jax.nn.relu(h @ p["w1"]) @ p["w2"]) @ p["head"]


def test_its_optimizer_state_its_gradient_and_its_export_go_along(tmp_path):
    units = find_units(residual, PARAMS, X)
    tx = pm.record_path(pm.split_lbi(0.1, momentum=0.9, penalty=pm.GroupLasso(-1)))
    small = compact(units, {"w1": np.zeros(6, bool)}, PARAMS, tx.init(PARAMS))
    assert small.params["w1"].shape == (8, 0)
    fn, loaded = load_compact(export(small, tmp_path / "model", X))
    plain = X @ PARAMS["stem"] @ PARAMS["head"]
    np.testing.assert_allclose(fn(loaded, X), plain, rtol=1e-5)
    gradient = jax.grad(lambda p: small.fn(p, X).sum())(small.params)
    updates, _ = tx.update(gradient, small.opt_state, small.params)
    trained = optax.apply_updates(small.params, updates)
    assert jax.tree.map(jnp.shape, trained) == jax.tree.map(jnp.shape, small.params)


def test_masks_may_remove_it():
    units = find_units(residual, PARAMS, X)
    masks = {name: jnp.ones(w.shape, bool) for name, w in PARAMS.items()}
    keep = keep_from_masks(units, masks | {"w1": jnp.zeros((8, 6), bool)})
    assert not keep["w1"].any()
    whole = residual(PARAMS | {"w1": jnp.zeros((8, 6)), "w2": jnp.zeros((6, 8))}, X)
    small = compact(units, keep, PARAMS)
    np.testing.assert_allclose(small.fn(small.params, X), whole, rtol=1e-5)
    with pytest.raises(ValueError, match="leave no unit of the set 'stem'"):
        keep_from_masks(units, masks | {"stem": jnp.zeros((4, 8), bool), "w2": jnp.zeros((6, 8), bool)})


@pytest.mark.parametrize("own", ["stem", "w1"])
def test_a_chain_is_never_broken(own):
    chain = lambda p, x: jax.nn.relu(x @ p["stem"] @ p["w1"]) @ p["w2"] @ p["head"]
    units = find_units(chain, PARAMS, X)
    with pytest.raises(ValueError, match=r"would empty the layer: all \d units are removed and nothing passes through"):
        compact(units, {own: np.zeros(units.sets[own].size, bool)}, PARAMS)


def test_units_without_their_function_keep_one_of_each_set():
    units = pm.structure.Units.from_json(find_units(residual, PARAMS, X).to_json())
    with pytest.raises(ValueError, match="would empty the layer"):
        compact(units, {"w1": np.zeros(6, bool)}, PARAMS)
