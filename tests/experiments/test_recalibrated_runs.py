"""What was cut is measured with the batch statistics of its own weights, and both numbers are said once."""

import json

import flax.jax_utils
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import parsimony as pm
from experiments import __main__ as cli
from experiments.commands import train
from experiments.config import Config
from experiments.data import load as data_load
from experiments.data.in_memory import digits
from experiments.data.loader import DeviceLoader
from experiments.data.placement import replicate
from experiments.data.sampler import Sampler
from experiments.runs.load import load_run
from experiments.training import recalibration
from experiments.training.network import merge_variables
from experiments.training.recalibration import make_recalibrate
from experiments.training.step import advance, make_accuracy, make_step

CONFIG = Config(
    dataset="mnist",
    model="tiny_cnn",
    widths=(8, 16),
    epochs=6,
    batch_size=64,
    drops=(),
    checkpoint_every=6,
    sparsity=None,
    share=0.4,
    groups="layers",
)


def enlarged(split):
    """The digits at 24 by 24 pixels inside 28 by 28, the size of MNIST."""
    images = np.kron(split.images, np.ones((1, 3, 3, 1), np.uint8))
    return data_load.Split(np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0))), split.labels)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A short run of a network with batch normalisation."""
    with pytest.MonkeyPatch.context() as patch:
        train_split, test_split, maximum = digits()
        patch.setattr(data_load, "from_tfds", lambda *_: (enlarged(train_split), enlarged(test_split), maximum))
        folder = tmp_path_factory.mktemp("runs") / "run"
        yield train.train("tiny", Config(**{**vars(CONFIG), "run_dir": folder}))


def test_the_statistics_are_those_of_the_training_batches_with_their_augmentation(directory, monkeypatch):
    """Against the running statistics of a training whose step is zero, followed until they have settled."""
    monkeypatch.setattr(recalibration, "IMAGES", 128)
    run = load_run(directory)
    params, stats, _ = run.at()
    drawn = {"seed": 5, "augment": True}
    found = make_recalibrate(run.network, run.dataset, batch_size=64, **drawn)(_halved(params), params, stats)
    step, sampler = make_step(run.network, optax.sgd(0.0), run.dataset, **drawn), Sampler(5, len(run.dataset.train), 64)
    replicas = replicate((_halved(params), stats, optax.sgd(0.0).init(params)))
    chunks = list(DeviceLoader(run.dataset.train, sampler).chunks(0, 2, 1))
    means = []
    for chunk in chunks:  # the same batch again and again: its own statistics are left
        *_, (replicas, _, _) = advance(step, replicas, [chunk] * 90)
        means.append(flax.jax_utils.unreplicate(replicas[1]))
    expected = jax.tree.map(lambda *each: np.mean(each, 0), *means)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), found, expected)
    plain = make_recalibrate(run.network, run.dataset, batch_size=64, seed=5)(_halved(params), params, stats)
    assert not np.allclose(plain["conv1"]["norm"]["mean"], found["conv1"]["norm"]["mean"], rtol=1e-2)


def test_unchanged_weights_and_networks_without_statistics_keep_what_they_have(directory):
    run = load_run(directory)
    params, stats, _ = run.at()
    recalibrated = run.recalibrate()
    assert recalibrated(jax.tree.map(jnp.copy, params), params, stats) is stats
    assert recalibrated(_halved(params), params, {}) == {}
    again = load_run(directory).recalibrate()(_halved(params), params, stats)
    jax.tree.map(np.testing.assert_array_equal, recalibrated(_halved(params), params, stats), again)


@pytest.mark.parametrize(("level", "sparsity"), [("weight", 0.7), ("group", 0.5)])
def test_a_cut_network_is_worth_more_with_its_own_statistics(directory, level, sparsity):
    run = load_run(directory)
    params, stats, state = run.at()
    cut = pm.apply_masks(params, pm.select(params, state, sparsity, order="magnitude", level=level))
    accuracy = make_accuracy(run.network.fn, run.dataset)
    own = run.recalibrate()(cut, params, stats)
    old, new = (accuracy(merge_variables(cut, each), run.dataset.test) for each in (stats, own))
    assert new > old + 0.05, (old, new)


def test_records_say_both_numbers_once(directory, capsys):
    final = json.loads((directory / "record.json").read_text())["final"]
    assert {"test_sparse_accuracy", "test_sparse_accuracy_statistics_of_W"} <= set(final)
    run = load_run(directory)
    params, stats, state = run.at()
    sparse = pm.sparse_params(params, state)
    own = merge_variables(sparse, run.recalibrate()(sparse, params, stats))
    assert final["test_sparse_accuracy"] == make_accuracy(run.network.fn, run.dataset)(own, run.dataset.test)
    assert final["test_sparse_accuracy"] != final["test_sparse_accuracy_statistics_of_W"]

    assert cli.main(["prune", str(directory), "--sparsity", "0.5", "0.8", "--orders", "magnitude"]) == 0
    result = json.loads((directory / "prune.json").read_text())
    old = result["statistics_of_W"]
    assert (old["order"], old["sparsity"]) == ("magnitude", 0.5)
    assert old["test"] != result["rows"][0]["test"]

    assert cli.main(["compact", str(directory), "--sparsity", "0.4", "--order", "magnitude", "--rounds", "1"]) == 0
    scores = json.loads((directory / "compact.json").read_text())["accuracy"]
    assert scores["cut"]["test"] != scores["cut, statistics of W"]["test"]
    assert "with the batch statistics of the whole" in capsys.readouterr().out


def _halved(params):
    """Every second filter at zero: statistics that the running ones do not fit."""
    cut = jax.tree.map(jnp.copy, params)
    kernel = cut["conv1"]["conv"]["kernel"]
    cut["conv1"]["conv"]["kernel"] = kernel.at[..., ::2].set(0)
    return cut
