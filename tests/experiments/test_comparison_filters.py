"""Filters in a comparison: what is cut with each, networks of fewer of them, and batch statistics of what is left."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import parsimony as pm
from experiments.baselines import network_slimming
from experiments.comparison import runs, search
from experiments.comparison.config import Comparison
from experiments.comparison.results import Job
from experiments.comparison.setup import make_setup
from experiments.config import Config
from experiments.data import load as data_load
from experiments.data.dataset import Split
from experiments.data.in_memory import digits
from experiments.errors import RunError
from experiments.models import models, takes
from experiments.training.build import load_data
from experiments.training.network import by_name, merge_variables

FILTERS = Comparison(
    dataset="cifar10", model="resnet8", level="group", sparsity=(0.7,), tune_at=(), epochs=2, batch_size=64,
    images=640, augment=True, methods=("split_lbi_paced", "one_shot", "slimming", "narrow"), mask_interval=0.1,
    fixed=(("learning_rate", 0.1), ("weight_decay", 1e-4), ("strength", 3e-3)),
)  # fmt: skip


def enlarged(split: Split) -> Split:
    """The digits at 16 by 16 pixels, in three colours."""
    return Split(np.kron(split.inputs, np.ones((1, 2, 2, 3), np.uint8)), split.labels)


@pytest.fixture(scope="module")
def setup():
    """Of ResNet-8, whose seven convolutions have 240 filters."""
    with pytest.MonkeyPatch.context() as patch:
        train, test, maximum = digits()
        patch.setattr(data_load, "from_tfds", lambda *_: (enlarged(train), enlarged(test), maximum))
        return make_setup(FILTERS)


@pytest.fixture(scope="module")
def trained(setup):
    """method → (what was measured of a run of 20 steps to 70 % zeros, its result)."""

    @functools.cache
    def run(method):
        (own,) = search.settled(FILTERS, method)
        with pytest.MonkeyPatch.context() as patch:
            kept, measure_all = [], runs.measure_all
            patch.setattr(runs, "measure_all", lambda *args: kept.append(args) or measure_all(*args))
            (done,) = runs.run(setup, [Job("trial", method, own.setting, 0, 0.7)])
        return kept[0], done.results[0]

    return run


def zero_filters(params) -> list[int]:
    """Of each convolution."""
    kernels = [w for w in by_name(params).values() if w.ndim == 4]
    return [int(jnp.sum(jnp.all(w == 0, axis=(0, 1, 2)))) for w in kernels]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["one_shot", "slimming"])
def test_a_cut_leaves_the_filters_that_were_asked_for_over_the_whole_network(trained, method):
    (_, _, params, *_), _ = trained(method)
    assert sum(zero_filters(params)) == int(0.7 * 240)


def test_a_path_leaves_them_in_every_layer(setup, trained):
    """Of each layer the share that was asked for, to within a filter."""
    (_, _, params, *_), _ = trained("split_lbi_paced")
    widths = [w.shape[-1] for w in by_name(setup.variables).values() if w.ndim == 4]
    assert zero_filters(params) == [int(np.ceil(0.7 * width - 1e-9)) for width in widths]


@pytest.mark.parametrize("method", ["split_lbi_paced", pytest.param("slimming", marks=pytest.mark.slow)])
def test_a_filter_goes_with_its_scale_and_shift(trained, method):
    leaves = by_name(trained(method)[0][2])
    kernels = [name for name, w in leaves.items() if w.ndim == 4]
    for name in kernels:
        gone = np.all(np.asarray(leaves[name]) == 0, axis=(0, 1, 2))
        for vector in ("scale", "bias"):
            own = np.asarray(leaves[name.replace("conv/kernel", f"norm/{vector}")])
            assert np.all(own[gone] == 0)
            assert np.all(own[~gone] != 0)


@pytest.mark.slow
def test_a_narrow_network_is_what_is_left_and_its_shares_are_of_the_whole(setup, trained):
    (small, _, params, *_), result = trained("narrow")
    kernels = {name: w for name, w in by_name(setup.variables).items() if w.ndim == 4}
    assert {name: by_name(params)[name].shape[-1] for name in kernels} == {
        name: {16: 4, 32: 9, 64: 19}[w.shape[-1]] for name, w in kernels.items()
    }
    assert result.zeros_of_all == pytest.approx(1 - sum(w.size for w in jax.tree.leaves(params)) / setup.parameters)
    dense = lambda setup: pm.structure.count_at(setup.units, {}, setup.variables).macs
    assert result.macs == dense(small) < 0.5 * dense(setup)
    assert setup.narrowed(0.7) is small
    with pytest.raises(ValueError, match="narrow already"):
        small.narrowed(0.5)


def test_a_cell_is_measured_with_the_statistics_of_its_own_weights(setup, trained):
    """Whatever those are that the run left."""
    (_, job, params, stats, _), result = trained("split_lbi_paced")
    wrong = jax.tree.map(lambda x: x + 3, stats)
    assert runs.measure(setup, job, "W", 0.7, "own", params, wrong) == result
    image = setup.dataset.normalised(setup.dataset.test.inputs[:4])
    own, other = (setup.network.fn(merge_variables(params, s), image) for s in (stats, wrong))
    assert not np.allclose(own, other, rtol=0.1)


def test_slimming_shrinks_the_scales_and_then_cuts_by_them():
    """Against NumPy, with a plain step of 0.1."""
    params = {"conv": {"kernel": np.ones((1, 1, 2, 4), np.float32)}, "norm": {"scale": np.array([0.3, 2, 0.6, 1.0])}}
    params = jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), params)
    names = [("conv/kernel", "norm/scale")]
    tx = network_slimming(optax.sgd(0.1), names, strength=0.5, sparsity=0.5, at=2)
    state, zero = tx.init(params), jax.tree.map(jnp.zeros_like, params)
    for expected in ([0.25, 1.95, 0.55, 0.95], [0.2, 1.9, 0.5, 0.9], [0, 1.9, 0, 0.9], [0, 1.9, 0, 0.9]):
        updates, state = tx.update(zero, state, params)
        params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(params["norm"]["scale"], expected, atol=1e-6)
    assert params["conv"]["kernel"][0, 0].tolist() == [[0, 1, 0, 1]] * 2
    with pytest.raises(ValueError, match="found those of 0 of 1"):
        network_slimming(optax.sgd(0.1), [("conv/kernel",)], 0.5, 0.5, 2)


def test_a_range_is_searched_even_where_all_methods_have_the_number_fixed():
    config = dataclasses.replace(FILTERS, methods=("one_shot",), ranges=(("one_shot.learning_rate", (0.02, 0.05)),))
    rates = [dict(setting)["learning_rate"] for setting in search.searched(config, "one_shot")]
    assert len(set(rates)) == config.trials
    assert all(0.02 <= rate <= 0.05 for rate in rates)
    assert not search.settled(config, "one_shot")
    assert dict(search.settled(config, "slimming")[0].setting)["learning_rate"] == 0.1


def test_images_are_averaged_down_once_for_networks_that_take_any_size():
    whole, half = (data_load.load("digits", 180, image_size=size) for size in (None, 4))
    blocks = whole.test.inputs.reshape(-1, 4, 2, 4, 2, 1).mean((2, 4))
    assert half.test.inputs.dtype == np.uint8
    np.testing.assert_array_less(np.abs(half.test.inputs - blocks), 0.51)
    np.testing.assert_array_equal(half.train.labels, whole.train.labels)
    assert takes("resnet8", (16, 16, 3))
    assert not takes("resnet8", (16, 16, 1))
    assert not takes("vgg16", (16, 16, 3))
    logits = models["resnet8"](rngs=nnx.Rngs(0))(jnp.ones((2, 16, 16, 3)))
    assert logits.shape == (2, 10)
    with pytest.raises(RunError, match="imagenet2012 is cropped to the size of the model"):
        data_load.load("imagenet2012", 10, image_size=64)
    with pytest.raises(RunError, match="model small_cnn takes inputs of another size"):  # a run asks for the same
        load_data(Config(image_size=4))
