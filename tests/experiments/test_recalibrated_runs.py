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
from experiments.commands import family as family_command
from experiments.commands import train
from experiments.commands.family import warn_of_zeros
from experiments.config import Config
from experiments.data import load as data_load
from experiments.data.in_memory import digits
from experiments.data.loader import DeviceLoader
from experiments.data.placement import replicate
from experiments.data.sampler import Sampler
from experiments.runs.load import load_run
from experiments.training import recalibration
from experiments.training.family import in_turn
from experiments.training.fit import make_fine_tune
from experiments.training.network import merge_variables
from experiments.training.recalibration import make_recalibrate
from experiments.training.step import advance, make_metric, make_step

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
IMAGES = np.random.default_rng(0).integers(0, 256, (32, 28, 28, 1)).astype(np.uint8)


def enlarged(split):
    """The digits at 24 by 24 pixels inside 28 by 28, the size of MNIST."""
    images = np.kron(split.inputs, np.ones((1, 3, 3, 1), np.uint8))
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
    accuracy = make_metric(run.network.fn, run.dataset)
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
    assert final["test_sparse_accuracy"] == make_metric(run.network.fn, run.dataset)(own, run.dataset.test)
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


def test_the_networks_of_a_family_have_statistics_of_their_own_and_are_tuned_as_one(directory, capsys):
    words = ["--budgets", "0.6", "0.3", "--order", "magnitude", "--fine-tune", "2", "--alone", "--rounds", "1"]
    assert cli.main(["family", str(directory), *words]) == 0
    assert "outside of the support" not in capsys.readouterr().err
    result = json.loads((directory / "family.json").read_text())
    steps = load_run(directory).sampler.end(2)
    assert {kind: spent["steps"] for kind, spent in result["cost"].items()} == {
        "tuned": steps,
        "alone": pytest.approx(2 * steps, abs=1),
    }
    run = load_run(directory)
    images = run.dataset.normalised(run.dataset.test.inputs)
    means = []
    for row, budget in zip(result["members"], (0.6, 0.3), strict=True):
        assert row["size"]["macs"] <= budget * result["whole"]["size"]["macs"]
        assert row["accuracy"]["tuned"]["test"] > row["accuracy"]["cut"]["test"]
        fn, params = pm.structure.load_compact(row["folder"])
        right = float(np.mean(np.argmax(fn(params, images), -1) == run.dataset.test.labels))
        assert right == pytest.approx(row["accuracy"]["tuned"]["test"])
        assert len(params["conv1"]["norm"]["mean"]) == row["units"]["conv1/conv"][1]
        means.append(params["conv2"]["norm"]["mean"])
    assert not np.isin(means[1], means[0]).any()  # the second network's weights are the first one's, its means are not
    assert (directory / "family.png").stat().st_size > 0
    assert cli.main(["report", str(directory)]) == 0
    assert "tuned together" in (directory / "report.html").read_text()


def latest(directory, pattern):
    return max(directory.glob(pattern), key=lambda path: path.stat().st_mtime_ns)


def test_a_chain_tunes_each_network_from_the_larger_one_at_the_cost_of_one_training(directory, monkeypatch):
    """Watched: what each training begins with, and what it gives."""
    seen = []

    def watched(network, dataset, config, rate, epochs, seed):
        def fine_tune(params, stats):
            seen.append(
                (epochs, params, make_fine_tune(network, dataset, config, rate, epochs, seed)(params, stats)[0])
            )
            return seen[-1][2], stats

        return fine_tune

    monkeypatch.setattr(family_command, "make_fine_tune", watched)
    words = ["--budgets", "0.6", "0.3", "--order", "magnitude", "--fine-tune", "2", "--tuning", "chain"]
    assert cli.main(["family", str(directory), *words, "--rounds", "1"]) == 0
    result = json.loads(latest(directory, "family*.json").read_text())
    (large, small), tuned = result["members"], result["cost"]["tuned"]["steps"]
    assert [epochs for epochs, *_ in seen] == [1, 1]
    assert tuned == load_run(directory).sampler.end(2)
    (_, _, learnt), (_, begun, last) = seen
    scale = lambda params: np.asarray(params["conv1"]["norm"]["scale"])
    assert np.isin(scale(begun), scale(learnt)).all()
    assert len(scale(begun)) == small["units"]["conv1/conv"][1] < len(scale(learnt)) == large["units"]["conv1/conv"][1]
    for row, params in ((large, learnt), (small, last)):
        assert np.array_equal(pm.structure.load_compact(row["folder"])[1]["conv1"]["norm"]["scale"], scale(params))
    assert cli.main(["report", str(directory)]) == 0
    assert "tuned one from the next" in latest(directory, "report*.html").read_text()


def test_the_members_of_a_family_are_trained_in_turn(directory):
    run = load_run(directory)
    params, stats, state = run.at()
    units = pm.structure.find_units(run.network.fn, merge_variables(params, stats), run.dataset.normalised(IMAGES))
    weights = merge_variables(params, stats)
    cut = pm.structure.family(units, weights, state, budgets=(18, 9), target="units", scope="layer")
    network, shared, start = in_turn(run.network, cut, stats)
    large, small = (member.keep["conv1/conv"] for member in cut.members)
    outside = ~small[large]  # among the filters that are shared, those that the second network does not have
    assert outside.any()

    @jax.jit
    def step(state):
        loss = lambda params: (lambda logits, new: (jnp.sum(logits**2), new))(
            *network.forward(params, state, run.dataset.normalised(IMAGES), jax.random.key(0))
        )
        return jax.grad(loss, has_aux=True)(shared)

    means = lambda state: [member["conv1"]["norm"]["mean"] for member in state["members"]]
    for place in (0, 1, 0):
        grads, after = step(start)
        seen = np.abs(grads["conv1"]["conv"]["kernel"]).sum((0, 1, 2))[outside] > 0
        assert seen.all() if place == 0 else not seen.any()
        moved = [not np.array_equal(*pair) for pair in zip(means(start), means(after), strict=True)]
        assert moved == [place == 0, place == 1]
        start = after


def test_units_outside_the_support_of_a_finished_run_are_told(directory, capsys):
    run = load_run(directory)
    params, stats, state = run.at()
    units = pm.structure.find_units(run.network.fn, merge_variables(params, stats), run.dataset.normalised(IMAGES))
    cut = pm.structure.family(units, merge_variables(params, stats), state, budgets=(0.9,), scope="layer")
    warn_of_zeros(cut, params, state)
    assert not capsys.readouterr().err
    empty = optax.tree.set(state, dual=jax.tree.map(jnp.zeros_like, optax.tree.get(state, "dual")))
    number = sum(map(np.sum, cut.members[0].keep.values()))
    warn_of_zeros(cut, pm.sparse_params(params, empty), empty)
    assert f"WARNING: {number} units of the network of 0.9 are outside of the support" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--budgets", "0.5", "0.5"], 1, "lead to the same model"),
        (["--budgets", "0.5", "0.0001"], 1, "budgets, 0.0001: at_most=0.0001: the least that this order can leave"),
        (
            ["--budgets", "0.5", "0.3", "--tuning", "chain", "--fine-tune", "3"],
            2,
            "with --tuning chain each of 2 networks has an equal part of the epochs; expected a multiple of 2, got 3; "
            "take 4.",
        ),
        (["--alone", "--fine-tune", "0"], 2, "--fine-tune: expected a number of epochs ≥ 0, with --alone ≥ 1, got 0"),
    ],
)
def test_bad_words_for_a_family_end_in_one_sentence(directory, words, code, message, capsys):
    try:
        found = cli.main(["family", str(directory), *words])
    except SystemExit as stop:
        found = stop.code
    assert found == code
    assert message in " ".join(capsys.readouterr().err.replace("│", "").split())


def _halved(params):
    """Every second filter at zero: statistics that the running ones do not fit."""
    cut = jax.tree.map(jnp.copy, params)
    kernel = cut["conv1"]["conv"]["kernel"]
    cut["conv1"]["conv"]["kernel"] = kernel.at[..., ::2].set(0)
    return cut
