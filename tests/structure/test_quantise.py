"""Eight bits after the training: which weights, zeros that stay zeros, and files that run without qwix."""

import importlib.util
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import parsimony as pm
from helpers.architectures import built, error
from parsimony.structure import compact, export, load_compact, quantise

INSTALLED = importlib.util.find_spec("qwix") is not None
needs_qwix = pytest.mark.skipif(not INSTALLED, reason="qwix, the extra `int8`, is not installed")


def whole(name):
    _, params, args, units = built(name)
    return compact(units, {}, params), params, args


@needs_qwix
@pytest.mark.parametrize("activations", ["int8", "float"])
@pytest.mark.parametrize(("name", "weights"), [("lenet", 5), ("vit", 14), ("plain_lstm", 1), ("depthwise", 4)])
def test_outputs_are_near_and_only_weights_of_products_and_convolutions_are_rounded(name, weights, activations):
    small, params, args = whole(name)
    eight = quantise(small, *args, activations=activations)
    pairs = jax.tree.structure(params).flatten_up_to(eight.params)
    rounded = 0
    for before, after in zip(jax.tree.leaves(params), pairs, strict=True):
        if not isinstance(after, dict):
            np.testing.assert_array_equal(after, before)
            continue
        rounded += 1
        assert after["int8"].dtype == jnp.int8
        steps = np.abs(np.asarray(after["scale"]) * after["int8"] - before) / np.asarray(after["scale"])
        assert steps.max() <= 0.51  # the nearest of 255 numbers
    assert rounded == weights
    expected = jax.jit(small.fn)(small.params, *args)
    assert 0 < error(jax.jit(eight.fn)(eight.params, *args), expected) < 0.06


@needs_qwix
def test_zeros_are_kept_and_a_model_in_eight_bits_is_that_of_the_rounded_weights():
    small, params, args = whole("vgg")
    keys = iter(jax.random.split(jax.random.key(0), len(jax.tree.leaves(params))))
    sparse = jax.tree.map(lambda w: jnp.where(jax.random.uniform(next(keys), w.shape) < 0.8, 0, w), params)
    sparse = jax.tree.map(lambda w: w.at[..., 0].set(0) if w.ndim > 1 else w, sparse)  # an output of zeros alone
    small = compact(small.units, {}, sparse)
    eight = quantise(small, *args, activations="float")
    pairs = jax.tree.structure(params).flatten_up_to(eight.params)
    back = lambda pair: pair["int8"] * pair["scale"] if isinstance(pair, dict) else pair
    rounded = list(map(back, pairs))
    for before, after in zip(jax.tree.leaves(sparse), rounded, strict=True):
        assert (np.asarray(after)[np.asarray(before) == 0] == 0).all()
        assert np.isfinite(after).all()
    again = jax.tree.unflatten(jax.tree.structure(params), rounded)
    assert error(jax.jit(eight.fn)(eight.params, *args), jax.jit(small.fn)(again, *args)) < 1e-5


@needs_qwix
def test_a_cut_model_is_exported_with_a_quarter_of_the_bytes_and_runs_without_qwix(tmp_path):
    _, params, args, units = built("lenet")
    keep = pm.structure.choose(units, params, at_most=0.5, target="macs", order="magnitude")
    small = compact(units, keep, params)
    eight = quantise(small, *args)
    kernels = lambda tree: sum(leaf.nbytes for leaf in jax.tree.leaves(tree) if leaf.ndim > 1)
    assert kernels(eight.params) < 0.25 * kernels(small.params) + 4 * 40  # and the scales
    path = export(eight, tmp_path / "eight", *args)
    expected = jax.jit(eight.fn)(eight.params, *args)
    np.save(tmp_path / "images.npy", args[0])
    np.save(tmp_path / "outputs.npy", expected)
    code = (
        "import sys; sys.modules['qwix'] = None; import numpy as np, parsimony as pm; "
        f"fn, params = pm.structure.load_compact({str(path)!r}); "
        f"found = fn(params, np.load({str(tmp_path / 'images.npy')!r})); "
        f"np.testing.assert_allclose(found, np.load({str(tmp_path / 'outputs.npy')!r}), atol=1e-5)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    loaded, again = load_compact(path)
    more = jnp.concatenate([args[0]] * 2)  # any batch
    assert error(loaded(again, more), jnp.concatenate([expected] * 2)) < 1e-5


@needs_qwix
def test_what_cannot_be_rounded_is_named():
    small, _, args = whole("lenet")
    with pytest.raises(ValueError, match=r"activations='int4': expected one of int8, float"):
        quantise(small, *args, activations="int4")
    fn, params = (lambda p, x: x * p["scale"]), {"scale": jnp.ones(3)}
    units = pm.structure.find_units(fn, params, jnp.ones((3,)))
    with pytest.raises(ValueError, match=r"nothing to quantise: no product and no convolution"):
        quantise(compact(units, {}, params), jnp.ones((3,)))


@pytest.mark.skipif(INSTALLED, reason="the extra `int8` is installed")
def test_without_qwix_the_extra_is_named():
    small, _, args = whole("lenet")
    with pytest.raises(ImportError, match=r"quantise needs qwix: pip install 'parsimony-lbi\[int8\]'"):
        quantise(small, *args)


def test_what_is_no_compact_model_is_named():
    _, params, args, units = built("lenet")
    with pytest.raises(
        TypeError, match=r"quantise: expected what compact returns, got a .*: call quantise\(small, x\)"
    ):
        quantise(params, *args)
    unknown = compact(pm.structure.Units.from_json(units.to_json()), {}, params)
    with pytest.raises(ValueError, match=r"this compact model has no function"):
        quantise(unknown, *args)
    struct = jax.tree.map(lambda w: jax.ShapeDtypeStruct(w.shape, w.dtype), params)
    with pytest.raises(TypeError, match=r"quantise: parameter 'conv1.*' is a shape without numbers"):
        quantise(compact(units, {}, struct), *args)
