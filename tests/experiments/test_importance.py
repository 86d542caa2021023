"""Criteria of importance against their definitions on a small network, and the cuts that `importance` makes of it."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import parsimony as pm
from experiments import __main__ as cli
from experiments.commands import train
from experiments.config import Config
from experiments.runs.load import load_run
from experiments.training import fit as training_fit
from experiments.training import importance, unit_paths
from experiments.training.network import by_name

CONFIG = Config(epochs=4, batch_size=64, drops=(), widths=(4, 6, 8), nu=1e30, sparsity=None, filter_strength=1.0)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A network of 18 units, trained by SGD."""
    return train.train("digits", Config(**{**vars(CONFIG), "run_dir": tmp_path_factory.mktemp("runs") / "a"}))


@pytest.fixture(scope="module")
def trained(directory):
    run = load_run(directory)
    params = run.at()[0]
    return run, pm.structure.find_units(run.network.fn, params, jnp.ones((1, *run.dataset.shape))), params


def test_taylor_is_gradient_times_weight_of_what_reads_a_unit(trained, monkeypatch):
    monkeypatch.setattr(importance, "IMAGES", 128)
    run, units, params = trained
    expected = dict.fromkeys(units.sets, 0.0)
    for at in (0, 64):
        images, labels = (jnp.asarray(x[at : at + 64]) for x in (run.dataset.train.inputs, run.dataset.train.labels))

        def loss(params, images=images, labels=labels):
            logits = run.network.fn(params, run.dataset.normalised(images))
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        product = jax.tree.map(lambda w, g: np.asarray(w * g, np.float64), params, jax.grad(loss)(params))
        expected["conv1"] += product["conv2"]["kernel"].sum((0, 1, 3)) ** 2
        expected["conv2"] += product["dense1"]["kernel"].reshape(16, 6, 8).sum((0, 2)) ** 2
        expected["dense1"] += product["dense2"]["kernel"].sum(1) ** 2
    found = importance.taylor(run, units, params)
    for name, scores in expected.items():
        np.testing.assert_allclose(found[name], -scores, rtol=1e-3, atol=1e-9)


def test_activation_is_the_norm_of_what_reads_a_unit_times_what_it_reads(trained, monkeypatch):
    monkeypatch.setattr(importance, "IMAGES", 128)
    run, units, params = trained
    x = run.dataset.normalised(run.dataset.train.inputs[:128])
    network = nnx.merge(run.network.graphdef, params)
    first = nnx.relu(network.conv1(x))
    second = nnx.max_pool(nnx.relu(network.conv2(first)), (2, 2), (2, 2)).reshape(128, -1)
    third = nnx.relu(network.dense1(second))
    power = lambda a: np.square(np.asarray(a, np.float64)).mean(tuple(range(a.ndim - 1)))
    weights = {name: np.square(np.asarray(leaf, np.float64)) for name, leaf in by_name(params).items()}
    expected = {
        "conv1": weights["conv2/kernel"].sum((0, 1, 3)) * power(first),
        "conv2": (weights["dense1/kernel"].sum(1) * power(second)).reshape(16, 6).sum(0),
        "dense1": weights["dense2/kernel"].sum(1) * power(third),
    }
    found = importance.activation(run, units, params)
    for name, squares in expected.items():
        np.testing.assert_allclose(found[name], -np.sqrt(squares), rtol=1e-4)


def test_every_cut_costs_as_many_epochs_and_what_is_cut_stays_out(directory, trained, monkeypatch, capsys):
    taken, ends = [], []
    fit = training_fit.fit

    def watched(step, params, stats, state, dataset, epochs, *more):
        taken.append(epochs)
        ends.append(fit(step, params, stats, state, dataset, epochs, *more))
        return ends[-1]

    monkeypatch.setattr(training_fit, "fit", watched)
    monkeypatch.setattr(unit_paths, "fit", watched)
    words = ["importance", str(directory), "--fine-tune", "3", "--path-sparsity", "0.4", "--sparsity", "0.3", "0.5"]
    assert cli.main([*words, "--criteria", "random", "gates", "weights"]) == 0
    path, rest = 1, 2
    assert taken == [3, 3, path, rest, rest, rest, path, rest, rest, rest]
    result = json.loads((directory / "importance.json").read_text())
    assert result["units"] == {"conv1": 4, "conv2": 6, "dense1": 8}
    tuned = [row for row in result["rows"] if row["fine_tune"]]
    assert [(row["criterion"], row["sparsity"], row["weights"]) for row in tuned] == [
        ("random", 0.3, "trained"), ("random", 0.5, "trained"),
        ("gates", 0.3, "trained"), ("gates", 0.5, "trained"), ("gates", 0.5, "of the path"),
        ("weights", 0.3, "trained"), ("weights", 0.5, "trained"), ("weights", 0.5, "of the path"),
    ]  # fmt: skip
    of_cuts = [end for end, epochs in zip(ends, taken, strict=True) if epochs != path]
    for row, (params, *_) in zip(tuned, of_cuts, strict=True):
        assert sum(row["kept"].values()) == {0.3: 12, 0.5: 9}[row["sparsity"]]
        alive = {
            "conv1": np.asarray(params["conv1"]["kernel"]).any((0, 1, 2)),
            "conv2": np.asarray(params["conv2"]["bias"]) != 0,
            "dense1": np.asarray(params["dense2"]["kernel"]).any(1),
        }
        assert {name: int(mask.sum()) for name, mask in alive.items()} == row["kept"]

    out = capsys.readouterr().out
    assert "test accuracy (%), global, 1 run; dense" in out
    assert "gates, weights of the path, fine-tuned 3" in out
    assert cli.main(["report", str(directory)]) == 0
    assert "gates, weights of the path, fine-tuned 3" in (directory / "report.html").read_text()


def test_a_path_that_leaves_nothing_of_the_budget_is_an_error(directory, capsys):
    with pytest.raises(SystemExit):
        cli.main(["importance", str(directory), "--fine-tune", "1", "--path-epochs", "2"])
    assert "at most the 1 epochs of" in " ".join(capsys.readouterr().err.split())


def test_a_path_that_empties_a_layer_says_so(capsys):
    options = unit_paths.UnitPath(1, 0.05, 2.0, 0.5, "global")
    unit_paths._tell_emptied({"conv1": np.array([True, False]), "conv2": np.ones(2, bool)}, options)
    assert not capsys.readouterr().out
    unit_paths._tell_emptied({"conv1": np.zeros(2, bool), "conv2": np.ones(2, bool)}, options)
    assert "no unit of conv1 at a sparsity of 0.5" in capsys.readouterr().out
