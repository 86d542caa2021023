"""`compact`: a trained run becomes a small network on disk, with a table of what it costs."""

import dataclasses
import importlib.util
import json

import jax
import numpy as np
import pytest

import parsimony as pm
from experiments import __main__ as cli
from experiments.bench.structure import structure
from experiments.commands import train
from experiments.config import Config
from experiments.runs.load import load_run
from experiments.training.network import by_name, distilled

QWIX = importlib.util.find_spec("qwix") is not None
WITHOUT_QWIX = pytest.mark.skipif(QWIX, reason="the extra `int8` is installed")
SHORT = Config(epochs=8, checkpoint_every=8, sparsity=None, share=0.3)


@pytest.fixture(scope="module", params=["layers", "units"])
def directory(request, tmp_path_factory):
    """One short run on the digits, with each notion of a group."""
    folder = tmp_path_factory.mktemp("runs") / request.param
    return train.train("digits", dataclasses.replace(SHORT, groups=request.param, run_dir=folder))


def test_a_run_is_cut_checked_saved_exported_and_timed(directory, capsys):
    assert cli.main(["compact", str(directory), "--macs", "0.4", "--order", "dual", "--rounds", "2"]) == 0
    printed = capsys.readouterr().out
    result = json.loads((directory / "compact.json").read_text())
    assert result["size"]["cut"]["macs"] <= 0.4 * result["size"]["whole"]["macs"]
    assert result["equality"]["relative error"] < 1e-5
    assert result["equality"]["same answers"] == 1
    assert f"{result['size']['cut']['parameters']:,}" in printed
    run = load_run(directory)
    images = run.dataset.normalised(run.dataset.test.inputs)
    fn, params = pm.structure.load_compact(directory / "compact")
    right = float(np.mean(np.argmax(fn(params, images), -1) == run.dataset.test.labels))
    assert right == pytest.approx(result["accuracy"]["cut"]["test"])
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == result["size"]["cut"]["parameters"]
    stored = (directory / "compact/params.safetensors").stat().st_size
    assert stored == result["size"]["cut"]["bytes on disk"]


@pytest.mark.skipif(not QWIX, reason="qwix, the extra `int8`, is not installed")
def test_a_network_of_eight_bits_is_written_beside_the_other(directory, capsys):
    words = ["compact", str(directory), "--sparsity", "0.5", "--refit", "300", "--int8", "--rounds", "1"]
    assert cli.main(words) == 0
    file = max(directory.glob("compact*.json"), key=lambda path: path.stat().st_mtime)
    result = json.loads(file.read_text())
    assert abs(result["accuracy"]["int8"]["test"] - result["accuracy"]["refitted"]["test"]) < 0.02  # 7 of 360 images
    stored = (file.with_name(f"{file.stem}-int8") / "params.safetensors").stat().st_size
    assert stored == result["size"]["int8"]["bytes on disk"] < 0.35 * result["size"]["cut"]["bytes on disk"]
    assert f"{stored:,} bytes on disk" in capsys.readouterr().out


def test_fine_tuning_works_on_the_small_network_and_nothing_is_overwritten(directory):
    before = sorted(path.name for path in directory.iterdir())
    words = [
        "compact",
        str(directory),
        "--sparsity",
        "0.6",
        "--scope",
        "layer",
        "--order",
        "magnitude",
        "--refit",
        "300",
        "--fine-tune",
        "2",
        "--distil",
        "0.5",
        "--rounds",
        "1",
    ]
    assert cli.main(words) == 0
    (name,) = {path.name for path in directory.iterdir() if path.suffix == ".json"} - set(before)
    result = json.loads((directory / name).read_text())
    scores = result["accuracy"]
    assert (result["distil"], result["temperature"]) == (0.5, 2.0)
    assert scores["refitted"]["test"] > scores["cut"]["test"]
    assert scores["tuned"]["validation"] >= scores["cut"]["validation"]
    assert scores["tuned"]["test"] > 0.3


def test_a_student_learns_from_the_network_that_it_was_cut_from(directory):
    """With all weight on the teacher the whole network has nothing to learn, and a cut one the same from any labels."""
    run = load_run(directory)
    params, stats, state = run.at()
    part = next(run.dataset.test.parts(64))
    images, labels = run.dataset.normalised(part.inputs), part.labels
    network = distilled(run.network, lambda images: run.network.fn(params, images), temperature=4.0, weight=1.0)

    @jax.jit
    def gradient(params, labels):
        loss = lambda params: network.loss(network.forward(params, stats, images, jax.random.key(0))[0], labels).mean()
        return by_name(jax.grad(loss)(params))

    largest = lambda tree: max(float(abs(leaf).max()) for leaf in tree.values())
    cut = pm.apply_masks(params, pm.select(params, state, 0.9, order="magnitude"))
    assert largest(gradient(params, labels)) < 1e-4 * largest(found := gradient(cut, labels))
    again = gradient(cut, 9 - labels)
    assert all(np.array_equal(found[name], again[name]) for name in found)


@pytest.mark.slow
def test_the_support_of_a_path_over_units_is_removed_without_a_change(tmp_path):
    """No retraining, no loss: the small network is W̃."""
    config = dataclasses.replace(SHORT, epochs=20, drops=(0.9,), groups="units", share=0.8, checkpoint_every=20)
    folder = train.train("digits", dataclasses.replace(config, run_dir=tmp_path / "run"))
    assert cli.main(["compact", str(folder), "--rounds", "1"]) == 0
    result = json.loads((folder / "compact.json").read_text())
    assert result["size"]["cut"]["parameters"] < 0.8 * result["size"]["whole"]["parameters"]
    assert result["accuracy"]["cut"] == result["accuracy"]["sparse W̃"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--sparsity", "1.0"], 2, r"--sparsity: expected a share of the units in [0, 1), got 1.0"),
        (["--sparsity", "0.5", "--macs", "0.5"], 2, "expected one of --sparsity, --parameters, --macs"),
        (["--distil", "0.5"], 2, "--distil: is about the fine-tuning; give --fine-tune, a number of epochs"),
        (["--fine-tune", "1", "--distil", "1.5"], 2, "--distil: expected a share in (0, 1], got 1.5"),
        (["--refit", "-1"], 2, "--refit: expected a number of images ≥ 0, got -1"),
        (["--images", "0"], 2, "--images: expected at least 1, got 0"),
        (["--ms", "0.001", "--images", "2"], 1, "at_most=0.001: the least that this order can leave is"),
        pytest.param(["--int8"], 2, "--int8: needs qwix: pip install 'parsimony-lbi[int8]'", marks=WITHOUT_QWIX),
        (["--parameters", "3"], 1, "the least that this order can leave is"),
        (["--sparsity", "0.5", "--protect", "convv"], 1, "pattern 'convv' matches no name"),
    ],
)
def test_bad_words_end_in_one_sentence(directory, words, code, message, capsys):
    before = sorted(path.name for path in directory.iterdir())
    try:
        found = cli.main(["compact", str(directory), *words])
    except SystemExit as stop:
        found = stop.code
    assert found == code
    assert " ".join(message.split()) in " ".join(capsys.readouterr().err.replace("│", "").split())
    assert sorted(path.name for path in directory.iterdir()) == before


def test_a_ticket_of_units_is_rejected(directory, capsys):
    """A unit reaches over several layers, and the mask of one of them alone is none of units."""
    if directory.name == "units":
        assert cli.main(["ticket", str(directory), "--at-epoch", "8"]) == 1
        assert "has units as groups, and a ticket masks single layers" in capsys.readouterr().err


@pytest.mark.slow
def test_the_benchmark_of_structure_says_what_it_measured(capsys):
    structure(models=("lenet", "resnet20"), rounds=1)
    printed = capsys.readouterr().out
    assert "100,000 units: 50 sets" in printed
    assert printed.count("as fast") == 16
