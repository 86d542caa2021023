"""Any mask as a small dense program: the outputs of the masked model; what is idle goes, or stays for a reason."""

import itertools
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import parsimony as pm
from helpers.architectures import ARCHITECTURES, QUICK, error, flat
from helpers.cases import mostly
from parsimony.structure import Units, find_units, minimise, release

NAMES = sorted(ARCHITECTURES)


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
    wanted = jax.jit(fn)(masked, *args)
    assert np.any(flat(wanted))
    assert error(jax.jit(small.fn)(small.params, *args), wanted) < tolerance
    return small


@pytest.mark.parametrize("name", mostly(NAMES, QUICK))
def test_it_computes_what_the_masked_model_computes(name):
    fn, params, args = ARCHITECTURES[name]()
    smaller = 0
    for masks in (scattered(params, 0), scattered(params, 1, 0.99), in_slices(params, 2)):
        small = check_equal(fn, params, args, masks, 1e-5)
        smaller += flat(small.params).size < flat(params).size
    assert smaller


@pytest.mark.parametrize("name", mostly(NAMES, ["lenet"]))
def test_in_float64_it_does_to_twelve_digits(name):
    with jax.enable_x64(True):
        fn, params, args = ARCHITECTURES[name]()
        params, args = jax.tree.map(
            lambda x: x.astype("float64") if jnp.issubdtype(x.dtype, jnp.floating) else x, (params, args)
        )
        check_equal(fn, params, args, in_slices(params, 3), 1e-12)


def mlp(*widths):
    """(params, fn): positive weights throughout, so that every unit is at work."""
    rng = np.random.default_rng(0)
    shapes = list(itertools.pairwise(widths))
    params = {f"w{i}": jnp.asarray(rng.uniform(0.5, 1, shape), "float32") for i, shape in enumerate(shapes)}
    params |= {f"b{i}": jnp.asarray(rng.uniform(0.5, 1, shape[1]), "float32") for i, shape in enumerate(shapes)}

    def fn(params, x):
        for i in range(len(shapes)):
            x = x @ params[f"w{i}"] + params[f"b{i}"][None]
            x = jax.nn.relu(x) if i < len(shapes) - 1 else x
        return x

    return params, fn


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
    assert pm.structure.count(small.fn, small.params, x[:1]).macs == 3 * 4 + 4 * 2
    units = Units.from_json(find_units(fn, params, x, inputs=True).to_json())
    assert units.inputs
    assert list(units.sets) == ["w0.inputs", "w0"]
    assert list(find_units(fn, params, x).sets) == ["w0"]
    with tempfile.TemporaryDirectory() as folder:
        path = pm.structure.export(small, folder + "/small", x)
        for loaded in (pm.structure.load_compact(path), pm.structure.load_compact(path, fn)):
            np.testing.assert_allclose(loaded[0](loaded[1], x), small.fn(small.params, x), rtol=1e-6)


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


def test_a_bias_that_is_added_twice_takes_nothing_up_and_a_kernel_that_is_used_twice_keeps_its_rows():
    params, _ = mlp(5, 4, 3)
    masks = {"w0": np.ones((5, 4), bool)}
    masks["w0"][:, 0] = False
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5)), "float32")

    def shared_bias(params, x):
        x = jax.nn.relu(x @ params["w0"] + params["b0"][None])
        return jax.nn.relu(x @ params["w1"] + params["b1"][None]) + params["b1"][None]

    small = check_equal(shared_bias, params, (x,), masks, 1e-6)
    assert small.kept == {"w0": {0: "'w1' reads its constant, and no bias of its own follows"}}

    def shared_kernel(params, x):
        constant, other = (x @ params[name] + params["b0"][None] for name in ("w0", "w2"))
        return jax.nn.relu(constant) @ params["w1"] + params["b1"][None] + jnp.tanh(other) @ params["w1"]

    small = check_equal(shared_kernel, params | {"w2": 0.1 * params["w0"]}, (x,), masks, 1e-6)
    assert small.params["w1"].shape == (4, 3)


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
