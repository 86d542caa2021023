"""Whatever changes in a run's folder after it was written is seen: checkpoints, settings, curve and snapshots."""

import dataclasses
import json
import shutil

import pytest

from experiments.commands import train
from experiments.commands.report import ReportOptions, report
from experiments.config import Config
from experiments.errors import RunError
from experiments.runs import snapshots
from experiments.runs.folder import locked
from experiments.runs.load import load_run, read_config
from experiments.training.checkpoints import latest, open_checkpoints
from helpers.processes import damage

SHORT = Config(epochs=3, drops=(2 / 3,), checkpoint_every=1, snapshots=2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """One short run on the digits, finished."""
    return train.train("digits", dataclasses.replace(SHORT, run_dir=tmp_path_factory.mktemp("runs") / "a"))


@pytest.fixture
def directory(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "copy")


def restored(directory):
    """(number, position) of the checkpoint that a resumed run would start from."""
    run = load_run(directory)
    start = (*run.start, run.tx.init(run.start[0]))
    with open_checkpoints(directory, writing=True) as checkpoints:
        number, _, position = latest(checkpoints, directory, lambda _: start)
    return number, position


@pytest.mark.parametrize("field", ["step", "losses", "feed", "seed"])
def test_a_checkpoint_whose_position_has_changed_falls_back_to_the_one_before(directory, field, capsys):
    last, before = (sorted(int(path.name) for path in (directory / "checkpoints").iterdir())[i] for i in (-1, -2))
    (file,) = (directory / "checkpoints" / str(last) / "position").glob("metadata")
    own = json.loads(file.read_text())
    position = own["position"]
    if field == "losses":
        position["losses"] = [*position["losses"], 0.5]
    elif field == "step":
        position["step"] -= 1
    elif field == "feed":
        position["feed"]["next_batch"] -= 1
    else:
        position["feed"]["seed"] ^= 1
    file.write_text(json.dumps(own))
    number, position = restored(directory)
    assert number == before == position["step"]
    assert f"checkpoint {last}" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["config.json", "curve.jsonl"])
@pytest.mark.parametrize("how", ["flipped digit", "missing"])
def test_settings_and_curve_of_a_finished_run_are_those_of_its_record(directory, name, how):
    file = directory / name
    text = file.read_text()
    digit = next(i for i, letter in enumerate(text) if letter in "2345678")
    if how == "missing":
        file.unlink()
    else:
        file.write_text(text[:digit] + ("9" if text[digit] != "9" else "1") + text[digit + 1 :])
    with pytest.raises(RunError, match=name.replace(".", r"\.") if how == "flipped digit" else "config|curve"):
        read_config(directory)


@pytest.mark.parametrize("how", ["truncated", "flipped"])
def test_a_damaged_snapshot_costs_its_point_in_the_picture_alone(directory, tmp_path, how, capsys):
    file = sorted((directory / "snapshots").glob("*.npz"))[2]
    damage(file, how)
    norms = snapshots.norms(directory, "gamma")["conv1/kernel"]
    assert len(norms) == len(snapshots.curve(directory)) == 6
    page = report(ReportOptions((directory,), output=tmp_path / "report.html"))
    assert page.stat().st_size > 10_000
    assert file.name in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not valid JSON"),
        ('{"epochs": 3', "is not valid JSON"),
        ("[]", "its content is '\\[\\]'"),
        ('{"epochs": "3"}', "epochs: '3' is not what this field holds"),
        ('{"epochs": true}', "epochs: True is not what"),
        ('{"dataset": "digit"}', "dataset: 'digit' is not what"),
        ('{"drops": [0.5, "x"]}', "drops: .* is not what"),
        ('{"nu": NaN}', "nu: expected a positive, finite number"),
        ('{"colour": 1}', "unexpected keyword argument 'colour'"),
    ],
)
def test_settings_that_cannot_be_are_one_sentence(directory, text, message):
    (directory / "record.json").unlink()
    (directory / "config.json").write_text(text)
    with pytest.raises(RunError, match=message):
        read_config(directory)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"final": {}}', '{"final": 1}', '{"files": []}', "null"])
def test_a_record_that_cannot_be_is_one_sentence(directory, text):
    (directory / "record.json").write_text(text)
    with pytest.raises(RunError, match=r"record.json .*(not valid JSON|damaged, or of another version)"):
        report(ReportOptions((directory,)))


def test_a_line_that_is_damaged_is_named(directory):
    (directory / "record.json").unlink()
    lines = (directory / "curve.jsonl").read_text().splitlines(keepends=True)
    (directory / "curve.jsonl").write_text("".join([lines[0], "{]\n", *lines[1:]]))
    with pytest.raises(RunError, match=r"line 2 of .*curve.jsonl is not valid JSON"):
        snapshots.curve(directory)


def test_a_lock_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "thesis.tex")
    with pytest.raises(RunError, match=r"\.lock cannot be used as a lock"), locked(tmp_path / "run"):
        pass
    assert (tmp_path / "thesis.tex").read_text() == "mine"
