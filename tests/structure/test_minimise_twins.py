"""Units that compute the same: one stays, read in the place of all, where nothing else hears the others."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import parsimony as pm
from helpers.architectures import ARCHITECTURES, error
from helpers.cases import mostly
from helpers.small_mlp import mlp
from parsimony._tree import named_leaves
from parsimony.structure import find_units, minimise


def with_twins(units, params, share=0.4):
    """Makes every second unit, with this probability, what the one before it is, in all that makes it."""
    rng = np.random.default_rng(0)
    leaves, treedef = named_leaves(params)
    arrays = {name: np.array(leaf) for name, leaf in leaves}
    for unit_set in units.sets.values():
        for one in range(0, unit_set.size - 1, 2):
            for parameter, axis in unit_set.makers if rng.random() < share else ():
                unit, w = unit_set.members[parameter][axis], np.moveaxis(arrays[parameter], axis, 0)
                w[unit == one + 1] = w[unit == one]
    return treedef.unflatten([jnp.asarray(arrays[name]) for name, _ in leaves])


def gone(small):
    return {name: np.flatnonzero(~mask).tolist() for name, mask in small.keep.items()}


# In float64; the others in float32.
DOUBLE = ["convnext", "lenet", "mobilenet_v2"]


@pytest.mark.parametrize(
    "name", mostly(["convnext", "gpt", "lenet", "mobilenet_v2", "resnet", "vit"], ["lenet", "vit"])
)
def test_twins_are_merged_in_any_network(name):
    double = name in DOUBLE
    with jax.enable_x64(double):
        fn, params, args = ARCHITECTURES[name]()
        if double:
            params, args = jax.tree.map(
                lambda x: x.astype("float64") if jnp.issubdtype(x.dtype, jnp.floating) else x, (params, args)
            )
        units = find_units(fn, params, *args)
        twins = with_twins(units, params)
        small = minimise(units, twins, None)
        assert error(small.fn(small.params, *args), fn(twins, *args)) < (1e-12 if double else 1e-5)
        assert sum(map(len, gone(small).values())) > 0
        assert small.kept == {}


def test_the_first_is_read_in_the_place_of_all():
    params, fn = mlp(3, 5, 2)
    for name in ("w0", "b0"):
        params[name] = params[name].at[..., jnp.array([2, 4])].set(params[name][..., [0]])
    small = minimise(fn, params, None, jnp.ones((1, 3)))
    assert gone(small) == {"w0": [2, 4]}
    w = params["w1"]
    np.testing.assert_array_equal(small.params["w1"], jnp.stack([w[0] + w[2] + w[4], w[1], w[3]]))
    np.testing.assert_array_equal(small.params["w0"], params["w0"][:, [0, 1, 3]])


def test_units_that_are_almost_equal_stay():
    params, fn = mlp(3, 4, 2)
    params["w0"] = params["w0"].at[:, 1].set(params["w0"][:, 0])
    params["b0"] = params["b0"].at[1].set(params["b0"][0] * (1 + 2.0**-22))
    assert gone(minimise(fn, params, None, jnp.ones((1, 3)))) == {}


def test_merging_makes_others_equal():
    """Units 0 and 1 of layer 1 weigh two twins differently, and their sum alike."""
    params, fn = mlp(3, 2, 2, 2)
    params |= {"w0": jnp.ones((3, 2)), "b0": jnp.ones(2), "w1": jnp.array([[1.0, 2.0], [2.0, 1.0]]), "b1": jnp.ones(2)}
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), "float32")
    small = minimise(fn, params, None, x)
    assert gone(small) == {"w0": [1], "w1": [1]}
    np.testing.assert_allclose(small.fn(small.params, x), fn(params, x), rtol=1e-6)


def test_what_a_mask_makes_equal_is_merged_and_its_weights_are_open():
    params, fn = mlp(3, 4, 2)
    masks = {"w0": np.ones((3, 4), bool), "w1": np.ones((4, 2), bool)}
    params["w0"] = params["w0"].at[:2, 1].set(params["w0"][:2, 0])
    params["b0"] = params["b0"].at[1].set(params["b0"][0])
    masks["w0"][2, :2] = False  # all in which they differ
    masks["w1"][0, 1] = False
    small = minimise(fn, params, masks, jnp.ones((1, 3)))
    assert gone(small) == {"w0": [1]}
    np.testing.assert_array_equal(small.params["w1"][0], [params["w1"][0, 0] + params["w1"][1, 0], params["w1"][1, 1]])
    assert small.masks["w1"].all()


def convolutions(shift):
    """A convolution, a normalisation by stored statistics, one filter a channel, pooling, a flat head; all padded."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), "float32")
    params = {"k1": draw(3, 3, 2, 4), "mean": draw(4), "depth": draw(3, 3, 1, 4), "k2": draw(3, 3, 4, 2)}
    params |= {"head": draw(3 * 3 * 2, 3)}

    def conv(x, kernel, groups=1):
        numbers = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), "feature_group_count": groups}
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", **numbers)

    def fn(params, x):
        x = jax.nn.gelu(conv(x, params["k1"]) - params["mean"][None, None, None])
        x = conv(jax.nn.relu(conv(x, params["depth"], 4) + 1.0), params["k2"])
        x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        return x.reshape(x.shape[0], -1) @ params["head"]

    for name in ("k1", "mean", "depth"):
        params[name] = params[name].at[..., 3].set(params[name][..., 1])
    params["k2"] = params["k2"].at[..., 1].set(params["k2"][..., 0])
    params["depth"] = params["depth"].at[0, 0, 0, 3].add(shift)
    return params, fn, draw(2, 6, 6, 2)


@pytest.mark.parametrize("shift", [0.0, 0.1])
def test_filters_are_merged_through_normalisation_pooling_and_a_flat_head(shift):
    """Zeros that pad an image are the same for both; another filter of its own makes a channel another one."""
    params, fn, x = convolutions(shift)
    small = minimise(fn, params, None, x)
    assert gone(small) == {"k2": [1]} | ({} if shift else {"k1": [3]})
    assert error(small.fn(small.params, x), fn(params, x)) < 1e-6


def test_what_something_else_hears_is_not_merged():
    """A LayerNorm divides by the number of channels that it sums over; and a stream has two that make it."""
    params, _ = mlp(4, 4, 3)
    params |= {"more": params["w0"] + 1.0}
    for name in ("w0", "b0"):
        params[name] = params[name].at[..., 2].set(params[name][..., 1])

    def normalised(params, x):
        x = jnp.tanh(x @ params["w0"] + params["b0"][None])
        return (x - x.mean(-1, keepdims=True)) @ params["w1"]

    def stream(params, x):
        x = jnp.tanh(x @ params["w0"] + params["b0"][None])
        return jax.nn.relu(x + x @ params["more"]) @ params["w1"]

    for fn in (normalised, stream):
        small = minimise(fn, params, None, jnp.ones((2, 4)))
        assert gone(small) == {}
        jax.tree.map(np.testing.assert_array_equal, small.params, params)
    params["more"] = params["more"].at[..., 2].set(params["more"][..., 1])
    assert gone(minimise(stream, params, None, jnp.ones((2, 4)))) == {"w0": [2]}


def test_the_moments_are_those_of_the_one_that_stays():
    params, fn = mlp(3, 4, 2)
    for name in ("w0", "b0"):
        params[name] = params[name].at[..., 3].set(params[name][..., 1])
    tx = optax.adam(1e-2)
    gradient = jax.grad(lambda p: jnp.square(fn(p, jnp.ones((1, 3)))).sum())(params)
    _, state = tx.update(gradient, tx.init(params), params)
    small = minimise(fn, params, None, jnp.ones((1, 3)), opt_state=state)
    moments = optax.tree.get(state, "mu")
    left = {"w0": moments["w0"][:, :3], "b0": moments["b0"][:3], "w1": moments["w1"][:3], "b1": moments["b1"]}
    jax.tree.map(np.testing.assert_array_equal, optax.tree.get(small.opt_state, "mu"), left)


def test_weights_under_a_penalty_take_no_others_up():
    params, fn = mlp(3, 4, 2)
    for name in ("w0", "b0"):
        params[name] = params[name].at[..., 3].set(params[name][..., 1])
    tx = pm.split_lbi(0.1, penalty=pm.Rules([("w1", pm.Lasso())]))
    assert gone(minimise(fn, params, None, jnp.ones((1, 3)), opt_state=tx.init(params))) == {}
    tx = pm.split_lbi(0.1, penalty=pm.Rules([("w0", pm.Lasso())]))
    assert gone(minimise(fn, params, None, jnp.ones((1, 3)), opt_state=tx.init(params))) == {"w0": [3]}
