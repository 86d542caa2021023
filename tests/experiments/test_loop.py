"""The compiled step: batch statistics, many steps a call, and augmentation that no device layout changes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import jax_utils, nnx

from experiments import models
from experiments.data import load as data_load
from experiments.data.augment import crop_and_flip
from experiments.data.dataset import Dataset, Split
from experiments.data.load import load
from experiments.data.loader import DeviceLoader
from experiments.data.placement import replicate
from experiments.data.sampler import Sampler
from experiments.errors import RunError
from experiments.training.network import frozen, merge_variables, parts_of, split_variables
from experiments.training.step import advance, make_step

RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.integers(0, 256, (64, 28, 28, 1), np.uint8), RNG.integers(0, 10, 64).astype(np.int32)
SPLIT = Split(IMAGES, LABELS)
DATASET = Dataset(SPLIT, SPLIT, SPLIT, 255, (100.0,), (50.0,))
SAMPLER = Sampler(seed=0, size=64, batch_size=16)
TX = optax.sgd(0.1, momentum=0.9)


def start():
    return parts_of(models.models["tiny_cnn"](rngs=nnx.Rngs(0)))


def trained(network, params, stats, per_call=1, **options):
    step = make_step(network, TX, DATASET, **options)
    replicas, losses = replicate((params, stats, TX.init(params))), []
    for latest, _, more in advance(step, replicas, DeviceLoader(SPLIT, SAMPLER).chunks(0, 4, per_call)):
        replicas, losses = latest, losses + more
    return jax_utils.unreplicate(tuple(replicas)), losses


def test_a_step_takes_the_mean_of_the_devices_losses_and_statistics():
    """Eight devices with two images each, against one after the other by hand."""
    network, params, stats = start()
    step = make_step(network, optax.sgd(0.0), DATASET)
    replicas = replicate((params, stats, optax.sgd(0.0).init(params)))
    *_, ((_, after, _), _, losses) = advance(step, replicas, DeviceLoader(SPLIT, SAMPLER).chunks(0, 1))
    expected, means = [], []
    for share in SAMPLER.batches(0, 1).reshape(8, 2):
        logits, own = network.forward(params, stats, DATASET.normalised(IMAGES[share]), jax.random.key(0))
        expected.append(optax.softmax_cross_entropy_with_integer_labels(logits, LABELS[share]).mean())
        means.append(own["conv1"]["norm"]["mean"])
    np.testing.assert_allclose(losses, [np.mean(expected)], rtol=1e-5)
    np.testing.assert_allclose(jax_utils.unreplicate(after)["conv1"]["norm"]["mean"], np.mean(means, 0), rtol=1e-4)
    assert np.any(np.mean(means, 0) != stats["conv1"]["norm"]["mean"])


def test_a_step_that_takes_what_another_has_left_is_the_same_program():
    """JAX traces and compiles anew for arrays that lie on another mesh, though the devices are the same."""
    network, params, stats = start()
    traced = []
    counted = optax.stateless(lambda updates, params: traced.append("once") or updates)
    step = make_step(network, optax.chain(counted, TX), DATASET)
    replicas = replicate((params, stats, optax.chain(counted, TX).init(params)))
    assert len([*advance(step, replicas, DeviceLoader(SPLIT, SAMPLER).chunks(0, 2, 1))]) == 3
    assert traced == ["once"]


@pytest.mark.slow
def test_many_steps_a_call_are_the_steps_one_by_one():
    network, params, stats = start()
    one, losses = trained(network, params, stats, 1, augment=True)
    for per_call in (3, 4):  # 4 steps: 3 and a rest of 1, or all in one call
        many, others = trained(network, params, stats, per_call, augment=True)
        np.testing.assert_allclose(losses, others, rtol=1e-4)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), one, many)


def test_augmentation_moves_and_mirrors_each_image_by_its_own_key():
    images = RNG.integers(0, 256, (32, 6, 5, 3), np.uint8)
    keys = jax.random.split(jax.random.key(0), 32)
    result = np.asarray(crop_and_flip(images, keys, 2))
    assert result.dtype == np.uint8
    seen = set()
    for image, after in zip(images, result, strict=True):
        padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
        places = {
            (top, left, mirrored): padded[top : top + 6, left : left + 5][:, :: -1 if mirrored else 1]
            for top in range(5) for left in range(5) for mirrored in (False, True)
        }  # fmt: skip
        found = [place for place, own in places.items() if np.array_equal(own, after)]
        assert found
        seen.add(found[0])
    assert len(seen) > 15
    np.testing.assert_array_equal(crop_and_flip(images[5:9], keys[5:9], 2), result[5:9])


def test_parameters_and_statistics_come_apart_as_they_were_put_together():
    _, params, stats = start()
    variables = merge_variables(params, stats)
    assert jax.tree.structure(split_variables(variables, stats)) == jax.tree.structure((params, stats))
    assert len(jax.tree.leaves(variables)) == len(jax.tree.leaves(params)) + len(jax.tree.leaves(stats))
    assert split_variables(params, {}) == (params, {})


@pytest.mark.slow
def test_a_frozen_network_trains_and_leaves_its_statistics():
    network, params, stats = start()
    (after, own, _), _ = trained(frozen(network.fn), params, stats)
    jax.tree.map(np.testing.assert_array_equal, own, stats)
    assert np.any(np.asarray(after["conv1"]["conv"]["kernel"]) != params["conv1"]["conv"]["kernel"])


def test_colour_images_are_normalised_by_the_training_images(monkeypatch):
    images = RNG.integers(0, 256, (40, 4, 4, 3), np.uint8)
    monkeypatch.setattr(data_load, "from_tfds", lambda *_: (Split(images, np.arange(40) % 10), SPLIT, 255))
    dataset = load("cifar10", 10, images=20)
    assert (len(dataset.train), len(dataset.validation)) == (20, 10)
    x = dataset.normalised(jnp.asarray(dataset.train.inputs))
    np.testing.assert_allclose(np.mean(x, (0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(np.std(x, (0, 1, 2)), 1, rtol=1e-5)
    with pytest.raises(RunError, match="30 training examples after validation, not 31"):
        load("cifar10", 10, images=31)
