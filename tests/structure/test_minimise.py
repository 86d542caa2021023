"""Any mask as a small dense program: the outputs of the masked model; what is idle goes, or stays for a reason."""

import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import parsimony as pm
from helpers.architectures import ARCHITECTURES, QUICK, error, flat
from helpers.cases import mostly
from helpers.small_mlp import mlp
from parsimony.structure import Units, find_units, minimise

# In float64; the others in float32. All 28 were tried in both, with more masks, when this was written.
SPANNING = [
    "convnext",
    "densenet",
    "depthwise",
    "einsum_transformer",
    "gpt",
    "group_norm",
    "gru",
    "mobilenet_v2",
    "resnet",
]


def scattered(params, seed, share=0.9):
    """Single weights of kernels at random, as a Lasso leaves them."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda w: rng.random(w.shape) >= share if w.ndim > 1 else np.ones(w.shape, bool), params)


def in_slices(params, seed):
    """Whole inputs and outputs of kernels, single weights and biases at random: many units die, the network lives."""
    rng = np.random.default_rng(seed)

    def of(w):
        mask = rng.random(w.shape) >= (0.3 if w.ndim > 1 else 0.5)
        for axis in (-1, -2) if w.ndim > 1 else ():
            lost = rng.random(w.shape[axis]) < 0.5 * rng.random()
            mask &= ~lost.reshape([-1 if a == w.ndim + axis else 1 for a in range(w.ndim)])
        return mask

    return jax.tree.map(of, params)


def check_equal(fn, params, args, masks, tolerance):
    masked = pm.apply_masks(params, masks)
    small = minimise(fn, params, masks, *args)
    assert jax.tree.structure(small.masks) == jax.tree.structure(small.params) == jax.tree.structure(params)
    for w, mask in zip(jax.tree.leaves(small.params), jax.tree.leaves(small.masks), strict=True):
        assert w.shape == mask.shape
        assert np.all(np.asarray(w)[~np.asarray(mask)] == 0)
    wanted, got = jax.jit(fn)(masked, *args), jax.jit(small.fn)(small.params, *args)
    if np.any(flat(wanted)):
        assert error(got, wanted) < tolerance
    else:  # without biases a mask can leave nothing
        assert not np.any(flat(got))
    return small


@pytest.mark.parametrize("name", mostly(sorted({*ARCHITECTURES} - {*SPANNING} | {*QUICK}), QUICK))
def test_it_computes_what_the_masked_model_computes(name):
    fn, params, args = ARCHITECTURES[name]()
    smaller = 0
    for masks in (scattered(params, 0), scattered(params, 1, 0.99), in_slices(params, 2)):
        small = check_equal(fn, params, args, masks, 1e-5)
        smaller += flat(small.params).size < flat(params).size
    assert smaller


@pytest.mark.parametrize("name", mostly(["lenet", *SPANNING], ["lenet"]))
def test_in_float64_it_does_to_twelve_digits(name):
    with jax.enable_x64(True):
        fn, params, args = ARCHITECTURES[name]()
        params, args = jax.tree.map(
            lambda x: x.astype("float64") if jnp.issubdtype(x.dtype, jnp.floating) else x, (params, args)
        )
        check_equal(fn, params, args, in_slices(params, 3), 1e-12)


def test_units_go_to_a_fixed_point_forwards_and_backwards():
    """Without w2's first row unit 0 of layer 1 goes, then the unit of layer 0 that only it reads, then its pixel."""
    params, fn = mlp(5, 4, 3, 2)
    masks = jax.tree.map(lambda w: np.ones(w.shape, bool), params)
    masks["w2"][0] = False
    masks["w1"][1, 1:] = False
    masks["w0"][3, [0, 2, 3]] = False
    masks["w0"][:, 3] = False  # a constant
    x = jnp.ones((2, 5))
    small = check_equal(fn, params, (x,), masks, 1e-6)
    assert {name: w.shape for name, w in small.params.items() if name[0] == "w"} == {
        "w0": (4, 2), "w1": (2, 2), "w2": (2, 2),
    }  # fmt: skip
    assert small.kept == {}
    again = minimise(small.fn, small.params, small.masks, x)
    assert again.keep == {}


def convolutions(padding, bias):
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), "float32")
    params = {"k1": draw(3, 3, 2, 6), "b1": 1 + jnp.abs(draw(6)), "k2": draw(3, 3, 6, 4), "head": draw(4, 3)}
    params |= {"b2": draw(4)} if bias else {}

    def conv(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def fn(params, x):
        x = jax.nn.relu(conv(x, params["k1"]) + params["b1"][None, None, None])
        x = conv(x, params["k2"]) + (params["b2"][None, None, None] if bias else 0.0)
        return jax.nn.relu(x) @ params["head"]

    return params, fn, jnp.asarray(rng.normal(size=(2, 7, 7, 2)), "float32")


@pytest.mark.parametrize(
    ("padding", "bias", "left", "reason"),
    [
        ("VALID", True, 3, None),
        ("SAME", True, 4, "'k2' reads its constant where zeros pad it"),
        ("VALID", False, 4, "'k2' reads its constant, and no bias of its own follows"),
    ],
)
def test_constants_go_into_a_bias_and_where_that_is_not_exact_into_one_unit(padding, bias, left, reason):
    """The outputs are compared at each place, those at the border included."""
    params, fn, x = convolutions(padding, bias)
    masks = jax.tree.map(lambda w: np.ones(w.shape, bool), params)
    masks["k1"][..., [0, 2, 5]] = False
    masks["k2"][:2, :, 2] = False
    small = check_equal(fn, params, (x,), masks, 1e-6)
    assert small.params["k1"].shape[-1] == left
    assert [why for units in small.kept.values() for why in units.values()] == ([reason] if reason else [])


def test_what_a_normalisation_averages_over_stays_and_is_named():
    """The stream of a transformer: a channel that is constant, and one that is zero, which goes."""

    def fn(params, x):
        x = x @ params["embed"] + params["shift"][None]
        y = (x - x.mean(-1, keepdims=True)) * jax.lax.rsqrt(x.var(-1, keepdims=True) + 1e-5)
        return (y * params["scale"][None]) @ params["head"]

    rng = np.random.default_rng(0)
    params = {"embed": rng.normal(size=(4, 8)), "shift": rng.normal(size=8), "head": rng.normal(size=(8, 3))}
    params = jax.tree.map(lambda w: jnp.asarray(w, "float32"), params | {"scale": np.ones(8)})
    masks = jax.tree.map(lambda w: np.ones(w.shape, bool), params)
    masks["embed"][:, [1, 2]] = False
    masks["shift"][1] = False
    masks["head"][[1, 2]] = False
    small = check_equal(fn, params, (jnp.asarray(rng.normal(size=(5, 4)), "float32"),), masks, 1e-6)
    assert small.route == "jaxpr"  # the mean is still over eight
    assert small.params["embed"].shape == (4, 7)
    assert small.kept == {"embed": {2: "reduce_sum over an axis whose removed part is not zero there"}}


def test_nothing_is_moved_away_from_a_unit_that_stays():
    params, _ = mlp(5, 4, 3)

    def fn(params, x):
        x = jax.nn.relu(x @ params["w0"] + params["b0"][None])
        return x @ params["w1"] + params["b1"][None] + x.max(-1, keepdims=True)

    masks = {"w0": np.ones((5, 4), bool)}
    masks["w0"][:, 0] = False
    small = check_equal(fn, params, (jnp.ones((2, 5)),), masks, 1e-6)
    np.testing.assert_array_equal(small.params["w1"], params["w1"])
    np.testing.assert_array_equal(small.params["b1"], params["b1"])
    assert list(small.kept) == ["w0"]


def test_a_layer_that_everything_passes_through_keeps_a_unit():
    params, fn = mlp(5, 4, 3, 2)
    masks = {"w1": np.zeros((4, 3), bool)}
    small = check_equal(fn, params, (jnp.ones((2, 5)),), masks, 1e-6)
    assert {w.shape for name, w in small.params.items() if name[0] == "w"} == {(1, 1), (1, 2)}
    assert set(small.kept) == {"w0.inputs", "w0", "w1"}
    assert {why for units in small.kept.values() for why in units.values()} == {
        "all that there is passes through its layer"
    }


def test_features_that_nothing_reads_are_left_out_of_the_input():
    params, fn = mlp(6, 4, 2)
    masks = {"w0": np.ones((6, 4), bool)}
    masks["w0"][[0, 3, 4]] = False
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 6)), "float32")
    small = check_equal(fn, params, (x,), masks, 1e-6)
    assert small.params["w0"].shape == (3, 4)
    heard = jax.grad(lambda x: small.fn(small.params, x).sum())(x)
    np.testing.assert_array_equal(heard[:, [0, 3, 4]], 0)
    before = pm.structure.count_at(find_units(fn, params, x[:1], inputs=True), {"w0.inputs": 3}, params)
    assert before == pm.structure.count(small.fn, small.params, x[:1])
    assert before.macs == 3 * 4 + 4 * 2
    units = Units.from_json(find_units(fn, params, x, inputs=True).to_json())
    assert units.inputs
    assert list(units.sets) == ["w0.inputs", "w0"]
    assert list(find_units(fn, params, x).sets) == ["w0"]
    with tempfile.TemporaryDirectory() as folder:
        path = pm.structure.export(small, folder + "/small", x)
        for loaded in (pm.structure.load_compact(path), pm.structure.load_compact(path, fn)):
            np.testing.assert_allclose(loaded[0](loaded[1], x), small.fn(small.params, x), rtol=1e-6)


def test_what_is_used_twice_takes_nothing_up():
    """A bias, what it is added to, a kernel: in the other place the constant would be there as well, or be gone."""
    params, _ = mlp(5, 4, 3)
    masks = {"w0": np.ones((5, 4), bool)}
    masks["w0"][:, 0] = False
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5)), "float32")

    def shared_bias(params, x):
        x = jax.nn.relu(x @ params["w0"] + params["b0"][None])
        return jax.nn.relu(x @ params["w1"] + params["b1"][None]) + params["b1"][None]

    def sum_used_twice(params, x):
        x = jax.nn.relu(x @ params["w0"] + params["b0"][None]) @ params["w1"]
        return jax.nn.relu(x + params["b1"][None]) + x

    for fn in (shared_bias, sum_used_twice):
        small = check_equal(fn, params, (x,), masks, 1e-6)
        assert small.kept == {"w0": {0: "'w1' reads its constant, and no bias of its own follows"}}

    def shared_kernel(params, x):
        constant, other = (x @ params[name] + params["b0"][None] for name in ("w0", "w2"))
        return jax.nn.relu(constant) @ params["w1"] + params["b1"][None] + jnp.tanh(other) @ params["w1"]

    small = check_equal(shared_kernel, params | {"w2": 0.1 * params["w0"]}, (x,), masks, 1e-6)
    assert small.params["w1"].shape == (4, 3)
