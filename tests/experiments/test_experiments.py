"""The main job: what a run leaves behind, and what it refuses."""

import contextlib
import dataclasses
import io
import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import parsimony as pm
from experiments import __main__ as cli
from experiments import configs
from experiments.commands import train
from experiments.comparison.config import Comparison
from experiments.config import Config
from experiments.data.load import load
from experiments.data.sampler import Sampler
from experiments.errors import RunError
from experiments.growth.config import Grow
from experiments.runs import snapshots
from experiments.runs.load import load_run
from experiments.training.build import build_network, paced, penalties
from experiments.training.network import by_name

SHORT = Config(epochs=4, checkpoint_every=2)
OLD = {"sparsity": None, "share": 0.4}


def run(tmp_path: Path, name: str, **fields) -> dict:
    directory = train.train("digits", dataclasses.replace(SHORT, run_dir=tmp_path / name, **fields))
    return json.loads((directory / "record.json").read_text())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """(record, directory, output) of one short run that several tests look at; none writes into it."""
    folder, output = tmp_path_factory.mktemp("undisturbed"), io.StringIO()
    with contextlib.redirect_stdout(output):
        record = run(folder, "a")
    return record, folder / "a", output.getvalue()


def test_a_run_leaves_record_curve_checkpoint_and_pictures(undisturbed):
    record, directory, output = undisturbed
    assert {path.name for path in directory.iterdir()} == {
        "config.json", "curve.jsonl", "snapshots", "checkpoints", "record.json", "path.png", "accuracy.png", "events",
        ".lock",
    }  # fmt: skip
    assert [line["epoch"] for line in record["curve"]] == [1, 2, 3, 4]
    assert record["configuration"]["epochs"] == 4
    assert len(record["digest"]) == 64
    assert record["images"] == {"train": 1257, "validation": 180, "test": 360}
    assert "groups in supp Γ" in output
    assert f"W {record['final']['test_accuracy']:.2%}" in output


def test_tensorboard_finds_the_curve(undisturbed):
    """Event files are records of a length, its checksum, a protocol buffer and its checksum."""
    from tensorboardX.proto.event_pb2 import Event

    record, directory, _ = undisturbed
    curve = record["curve"]
    (file,) = (directory / "events").iterdir()
    content, at, seen = file.read_bytes(), 0, {}
    while at < len(content):
        (size,) = struct.unpack("<Q", content[at : at + 8])
        event = Event.FromString(content[at + 12 : at + 12 + size])
        seen |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
        at += size + 16
    for line in curve:
        assert seen["loss", line["step"]] == pytest.approx(line["loss"])
        assert seen["density/conv2/kernel", line["step"]] == pytest.approx(line["density"]["conv2/kernel"])


def test_training_learns_and_a_path_of_strengths_opens(tmp_path):
    record = run(tmp_path, "a", **OLD)
    assert record["final"]["test_accuracy"] > 0.3
    densities = [line["density"]["dense1/kernel"] for line in record["curve"]]
    assert densities == sorted(densities)
    assert densities[0] < 0.3 < densities[-1] < 1
    assert record["curve"][-1]["groups"]["conv2/kernel"] > 0


def test_a_sparsity_opens_the_path_of_every_layer(undisturbed):
    record, *_ = undisturbed
    for name in ("conv1/kernel", "conv2/kernel", "dense1/kernel", "dense2/kernel"):
        densities = [line["density"][name] for line in record["curve"]]
        assert densities[0] < densities[1] < densities[2] == densities[3]  # open after 0.7 of the training
        np.testing.assert_allclose(densities[-1], 0.3, atol=0.06)  # of the 16 filters of conv1 a quarter


def test_after_the_path_has_opened_w_is_finished_inside_the_support(undisturbed):
    record, directory, output = undisturbed
    for line in record["curve"][2:]:
        assert line["accuracy"] == line["sparse_accuracy"]
    assert record["final"]["finished"]
    assert "W is W̃" in output
    run = load_run(directory)
    params, _, state = run.at()
    zeros = np.mean(np.concatenate([np.ravel(x == 0) for name, x in by_name(params).items() if "kernel" in name]))
    assert 0.69 < zeros < 0.72
    jax.tree.map(np.testing.assert_array_equal, params, pm.sparse_params(params, state))


@pytest.mark.slow
def test_without_a_finish_w_stays_dense_beside_its_sparse_network(tmp_path):
    record = run(tmp_path, "a", finish=False)
    assert "finished" not in record["final"]
    params = load_run(tmp_path / "a").at()[0]
    assert all(np.all(x != 0) for name, x in by_name(params).items() if "kernel" in name)


@pytest.mark.slow
def test_without_a_share_the_strengths_are_taken_as_given(tmp_path):
    record = run(tmp_path, "a", sparsity=None, filter_strength=0.1, weight_strength=0.005)
    assert record["penalties"]["^conv1/kernel$"] == "GroupLasso(axis=-1, strength=0.1, scale=None)"
    assert record["penalties"]["^dense1/kernel$"] == "Lasso(strength=0.005)"


def test_the_path_can_run_on_while_the_weights_converge(tmp_path):
    """V's step rises at the drop of α, and with it the time and the density that a last epoch adds."""
    slow, fast = (run(tmp_path, name, **OLD, **own)["curve"] for name, own in (("a", {}), ("b", {"dual_finish": 2.0})))
    assert [line["density"] for line in slow[:3]] == [line["density"] for line in fast[:3]]
    assert slow[3]["time"] - slow[2]["time"] == pytest.approx(10 * 0.005, rel=1e-4)
    assert fast[3]["time"] - fast[2]["time"] == pytest.approx(10 * 0.1, rel=1e-4)
    assert fast[3]["total_density"] > slow[3]["total_density"]


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(undisturbed, tmp_path):
    digests = [run(tmp_path, name, seed=seed)["digest"] for name, seed in [("b", 0), ("c", 1)]]
    assert undisturbed[0]["digest"] == digests[0] != digests[1]


def test_an_interrupted_run_resumes_to_the_same_bits(undisturbed, tmp_path, monkeypatch):
    whole, *_ = undisturbed
    append = snapshots.append

    def interrupt(directory, line, *more):
        append(directory, line, *more)
        if line["epoch"] == 3:  # after the checkpoint of epoch 2: this epoch's work is lost and done again
            raise KeyboardInterrupt

    monkeypatch.setattr(snapshots, "append", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "broken")
    assert [line["epoch"] for line in snapshots.curve(tmp_path / "broken")] == [1, 2, 3]  # what it had is kept
    monkeypatch.setattr(snapshots, "append", append)
    resumed = run(tmp_path, "broken")
    assert resumed["digest"] == whole["digest"]
    measured = lambda record: [{k: v for k, v in line.items() if k != "seconds"} for line in record["curve"]]
    assert measured(resumed) == measured(whole)


def test_a_finished_run_other_settings_and_strange_files_are_left_alone(undisturbed, tmp_path):
    shutil.copytree(undisturbed[1], tmp_path / "a")
    before = (tmp_path / "a" / "record.json").read_bytes()
    with pytest.raises(RunError, match="finished run; choose another folder by --run-dir"):
        run(tmp_path, "a")
    assert (tmp_path / "a" / "record.json").read_bytes() == before
    (tmp_path / "a" / "record.json").unlink()
    with pytest.raises(RunError, match=r"other settings \(nu None → 7.0\)"):
        run(tmp_path, "a", nu=7.0)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.tex").write_text("mine")
    with pytest.raises(RunError, match="not a run written here"):
        run(tmp_path, "b")


@pytest.mark.slow
def test_a_run_without_a_folder_takes_the_first_free_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quick = dataclasses.replace(SHORT, epochs=1)
    assert [train.train("digits", quick) for _ in range(2)] == [Path("runs/digits"), Path("runs/digits-2")]


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_the_run_with_its_step(tmp_path):
    with pytest.raises(RunError, match=r"loss is nan at step \d+ .* Try a smaller --learning-rate"):
        run(tmp_path, "a", learning_rate=1e4, nu=1e6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": 100}, "does not divide among 8 devices"),
        ({"batch_size": 1600}, "more than the 1257 training examples"),
        ({"model": "lenet"}, "inputs of another size"),
        ({"snapshots": 10}, "more than the 9 whole batches of an epoch"),
    ],
)
def test_what_does_not_fit_is_rejected_before_a_folder_is_made(tmp_path, fields, message):
    with pytest.raises(RunError, match=message):
        run(tmp_path, "a", **fields)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("nu", -1.0),
        ("kappa", float("nan")),
        ("momentum", 1.0),
        ("weight_decay", -1.0),
        ("drops", (1.0,)),
        ("sparsity", 1.0),
        ("open_by", 1.0),
        ("pull", 0.0),
        ("dual_finish", 0.0),
        ("keep", (0.0,)),
        ("stop_sparsity", 1.0),
        ("patience", 0),
    ],
)
def test_a_configuration_rejects_invalid_values(field, value):
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(Config(), **{field: value})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"share": 0.4}, "share: the sparsity of 0.7 sets the pace .* add --sparsity None"),
        ({"filter_strength": 0.5}, "filter_strength: the sparsity of 0.7"),
        ({"dual_finish": 2.0}, "dual_finish: the sparsity"),
        ({"dual_ratio": 0.5}, "dual_ratio: the sparsity"),
        ({"nu": 10.0, "pull": 2.0}, "pull: sets ν, which is given"),
        ({"sparsity": None}, "nothing sets the pace of the path; give --sparsity 0.7"),
        ({"sparsity": None, "share": 1.5}, "share: expected a share"),
        ({"sparsity": None, "share": 0.4, "weight_strength": 2.0}, "weight_strength: a share sets the strengths"),
        ({"sparsity": None, "share": 0.4, "finish": False}, "finish: has a meaning only with a sparsity"),
        ({"sparsity": None, "share": 0.4, "pull": 3.0}, "pull: has a meaning only with a sparsity"),
    ],
)
def test_a_sparsity_a_share_and_strengths_exclude_each_other(fields, message):
    with pytest.raises(ValueError, match=message):
        Config(**fields)
    assert Config(sparsity=None, share=0.4).share == 0.4
    assert Config(sparsity=None, filter_strength=0.5).filter_strength == 0.5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"share": 1.0, "nu": 1e4}, None),
        ({"filter_strength": 50.0, "weight_strength": 50.0}, "the path stays empty (0% of the groups are inside"),
        ({"filter_strength": 1e-3, "weight_strength": 1e-4}, "the path fills at once ("),
    ],
)
def test_a_path_that_stays_empty_or_fills_at_once_is_told_while_it_happens(tmp_path, fields, message, capsys):
    run(tmp_path, "a", sparsity=None, epochs=3, drops=(), **fields)
    told = [line for line in capsys.readouterr().out.splitlines() if "WARNING" in line]
    assert [message in line and "give --sparsity 0.7" in line for line in told] == ([True] if message else [])


def test_networks_with_batch_statistics_have_units_as_groups_by_default():
    for model, units in [("small_cnn", False), ("tiny_cnn", True)]:
        config = Config(model=model, dataset="digits" if model == "small_cnn" else "mnist")
        network, params, stats = build_network(config)
        rules = penalties(config, Sampler(0, 1000, 128), network, params, stats).rules
        assert any(isinstance(penalty, pm.UnitPenalty) for _, penalty in rules) == units


def test_pace_sets_nu_from_the_pull_and_a_given_nu_stays():
    sampler = Sampler(0, 1257, 128)
    half = 0.05 * round(0.5 * sampler.end(4))
    for fields, nu in [({}, half / 2), ({"finish": False, "pull": 4.0}, half / 4), ({"nu": 3.0}, 3.0)]:
        own = paced(Config(epochs=4, open_by=0.5, drops=(), **fields), sampler)
        assert own["nu"] == pytest.approx(nu, rel=1e-5)
        assert own["finish"] == (None if fields.get("finish") is False else round(0.5 * sampler.end(4)))
    assert paced(Config(**OLD), sampler) == {"nu": 10.0}
    with pytest.raises(RunError, match="leaves none of the 2 steps"):
        paced(Config(epochs=1, drops=(), open_by=0.9), Sampler(0, 256, 128))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "unknown command 'trian'; did you mean 'train'?"),
        (["train", "lenet_mnst"], "unknown configuration 'lenet_mnst'; did you mean 'lenet_mnist'?"),
        (["prepare", "minst"], "unknown data set 'minst'; did you mean 'mnist'?"),
    ],
)
def test_unknown_names_suggest_the_nearest(words, message, capsys):
    assert cli.main(words) == 2
    assert message in capsys.readouterr().err


def test_unknown_fields_suggest_the_nearest(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "--learning-rat", "0.1"])
    assert stop.value.code == 2
    assert "--learning-rate" in capsys.readouterr().err


def test_every_configuration_says_its_command():
    for command, kind in [("train", Config), ("grow", Grow), ("compare", Comparison)]:
        for name in configs.names(command):
            module = configs.load(command, name)
            assert type(module.config) is kind
            assert f"python -m experiments {command} {name}" in (module.__doc__ or "")


def test_a_data_set_that_is_not_there_is_one_sentence_with_the_command(tmp_path, capsys):
    assert cli.main(["train", "lenet_mnist", "--data-dir", str(tmp_path), "--run-dir", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err
    assert f"python -m experiments prepare mnist --data-dir {tmp_path}" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_digits_are_split_once_and_for_all():
    one, two = load("digits", 180), load("digits", 180)
    np.testing.assert_array_equal(one.validation.inputs, two.validation.inputs)
    assert (len(one.train), len(one.validation), len(one.test)) == (1257, 180, 360)
    assert one.train.inputs.max() == one.maximum == 16
    seen = {image.tobytes() for image in one.train.inputs}
    assert not seen & {image.tobytes() for image in one.validation.inputs}
    with pytest.raises(RunError, match="cannot be held out"):
        load("digits", 2000)


@pytest.mark.slow
@pytest.mark.skipif("TFDS_DATA_DIR" not in os.environ, reason="needs TFDS_DATA_DIR with a prepared mnist")
def test_mnist_is_decoded_once_and_then_read_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    decoded = load("mnist", 2000)
    assert (len(decoded.train), len(decoded.validation), len(decoded.test)) == (58000, 2000, 10000)
    assert decoded.train.inputs.shape[1:] == (28, 28, 1)
    assert len(list((tmp_path / "parsimony").iterdir())) == 2

    import tensorflow_datasets as tfds

    monkeypatch.setattr(tfds.core.DatasetBuilder, "as_data_source", None)  # a second decoding would fail
    cached = load("mnist", 2000)
    np.testing.assert_array_equal(cached.train.inputs, decoded.train.inputs)
    np.testing.assert_array_equal(cached.test.labels, decoded.test.labels)


@pytest.mark.slow
def test_eight_devices_train_as_one_device_does(tmp_path):
    """Against the same run in a process with one device; not to the bit, since the sums are ordered otherwise."""
    here = run(tmp_path, "eight", epochs=1, augment=True)
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=1"
    environment = {**os.environ, "XLA_FLAGS": flags}
    words = [
        "train",
        "--epochs",
        "1",
        "--augment",
        "--run-dir",
        str(tmp_path / "one"),
        "--checkpoint-every",
        "2",
    ]
    subprocess.run([sys.executable, "-m", "experiments", *words], env=environment, check=True, capture_output=True)
    there = json.loads((tmp_path / "one" / "record.json").read_text())
    assert (len(here["devices"]), len(there["devices"])) == (8, 1)
    for key in ("loss", "time"):
        assert there["curve"][0][key] == pytest.approx(here["curve"][0][key], rel=1e-5)
