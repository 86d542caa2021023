"""A comparison that is made in parts: in the time there is, on several machines, and with more asked for later."""

import collections
import dataclasses
import itertools
import json

import pytest

from experiments import __main__ as cli
from experiments.commands.compare import compare
from experiments.comparison import runs
from experiments.comparison.config import Comparison
from experiments.runs.digest import machine
from experiments.runs.files import read_json, read_lines, write_lines

FIXED = (("learning_rate", 0.1), ("weight_decay", 1e-4), ("ramp", 0.5))
SMALL = Comparison(
    methods=("magnitude", "gradual"), sparsity=(0.5, 0.9), tune_at=(0.9,), epochs=2, mask_interval=0.1, images=256,
    seeds=2, fixed=FIXED,
)  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Made in one go."""
    return compare("whole", dataclasses.replace(SMALL, run_dir=tmp_path_factory.mktemp("runs") / "whole"))


def stops_after(looks: int):
    """A clock that stands still for so many looks and then says that it is late."""
    times = itertools.chain(itertools.repeat(0.0, 1 + looks), itertools.repeat(1e9))
    return lambda: next(times)


def accuracies(directory):
    return [
        (row["row"], [cell["values"] for cell in row["cells"]]) for row in read_json(directory / "record.json")["rows"]
    ]


def test_what_does_not_fit_is_made_by_later_starts_and_nothing_twice(whole, tmp_path, capsys):
    config = dataclasses.replace(SMALL, run_dir=tmp_path / "parts", minutes=5.0)
    compare("parts", config, stops_after(0))
    assert read_lines(tmp_path / "parts" / "results.jsonl") == []
    assert read_json(tmp_path / "parts" / "record.json")["missing"] == 6
    assert "6 runs did not fit into 5 minutes" in capsys.readouterr().out
    assert cli.main(["report", "compare", str(tmp_path / "parts")]) == 1
    assert "holds no finished row" in capsys.readouterr().err
    for looks, done in ((2, 2), (2, 4)):
        compare("parts", config, stops_after(looks))
        assert len(read_lines(tmp_path / "parts" / "results.jsonl")) == done
    assert cli.main(["report", "compare", str(tmp_path / "parts")]) == 0
    assert "2 runs are still missing" in capsys.readouterr().out
    compare("parts", dataclasses.replace(config, minutes=None))
    assert accuracies(tmp_path / "parts") == accuracies(whole)
    assert read_json(tmp_path / "parts" / "record.json")["missing"] == 0


def test_a_run_longer_than_the_time_that_is_left_is_not_begun(whole, tmp_path):
    """By what those of the method took on this machine; another machine's times say nothing."""
    lines = read_lines(whole / "results.jsonl")
    slow = [line | {"seconds": 600.0} for line in lines if (line["method"], line["seed"]) == ("gradual", 0)]
    for place, made_here in ((machine(), {"magnitude": 2}), ("9 × abacus", {"magnitude": 2, "gradual": 2})):
        folder = tmp_path / str(len(made_here))
        folder.mkdir()
        write_lines(folder / "results.jsonl", [line | {"machine": place} for line in slow])
        (folder / "config.json").write_text((whole / "config.json").read_text())
        compare("slow", dataclasses.replace(SMALL, run_dir=folder, minutes=1.0), lambda: 0.0)
        assert collections.Counter(line["method"] for line in read_lines(folder / "results.jsonl")[2:]) == made_here


def test_the_machine_of_every_cell_is_noted(whole, tmp_path, capsys):
    lines = read_lines(whole / "results.jsonl")
    assert {line["machine"] for line in lines} == {machine()}
    folder = tmp_path / "moved"
    folder.mkdir()
    (folder / "config.json").write_text((whole / "config.json").read_text())
    first, *rest = lines
    write_lines(folder / "results.jsonl", [first | {"machine": "9 × abacus"}, *rest[:-1]])
    compare("moved", dataclasses.replace(SMALL, run_dir=folder))
    magnitude, gradual = read_json(folder / "record.json")["rows"]
    assert magnitude["cells"][0]["machines"] == sorted({"9 × abacus", machine()})
    assert gradual["cells"][0]["machines"] == [machine()]
    capsys.readouterr()
    assert cli.main(["report", "compare", str(folder)]) == 0
    assert f"Seconds: the time of these on {' or '.join(sorted({'9 × abacus', machine()}))}" in capsys.readouterr().out


def test_of_a_row_that_is_not_complete_the_table_shows_what_there_is(whole, tmp_path, capsys):
    folder = tmp_path / "partly"
    folder.mkdir()
    (folder / "config.json").write_text((whole / "config.json").read_text())
    kept = [line for line in read_lines(whole / "results.jsonl") if (line["sparsity"], line["seed"]) != (0.9, 1)]
    write_lines(folder / "results.jsonl", kept)
    compare("partly", dataclasses.replace(SMALL, run_dir=folder, minutes=1e-9))
    full, row = (read_json(each / "record.json")["rows"][1] for each in (whole, folder))
    assert [len(cell["values"]) for cell in row["cells"]] == [2, 1]
    assert row["runs"] == full["runs"] == 2
    capsys.readouterr()
    assert cli.main(["report", "compare", str(folder)]) == 0
    assert f"{100 * row['cells'][1]['test']:.2f} (of 1)" in capsys.readouterr().out


def test_sparsities_that_are_added_later_take_runs_of_their_own_or_new_cuts(whole, monkeypatch):
    before = (whole / "results.jsonl").read_text()
    made, run = [], runs.run
    monkeypatch.setattr(runs, "run", lambda setup, jobs: made.extend(jobs) or run(setup, jobs))
    more = dataclasses.replace(SMALL, run_dir=whole, seeds=1, sparsity=(0.5, 0.8, 0.9))
    compare("whole", more)
    assert [(job.method, job.sparsity) for job in made] == [("magnitude", None), ("gradual", 0.8)]
    magnitude, gradual = read_json(whole / "record.json")["rows"]
    assert [cell["sparsity"] for cell in magnitude["cells"]] == [cell["sparsity"] for cell in gradual["cells"]]
    made.clear()
    compare("whole", more)
    assert made == []
    (whole / "results.jsonl").write_text(before)
    compare("whole", dataclasses.replace(SMALL, run_dir=whole))  # as the other tests find it


def test_a_method_of_which_all_numbers_are_fixed_has_no_trials(whole, capsys):
    assert {json.loads(line)["kind"] for line in (whole / "results.jsonl").read_text().splitlines()} == {"final"}
    capsys.readouterr()
    assert cli.main(["report", "compare", str(whole)]) == 0
    assert "All numbers were fixed beforehand, none was tuned." in capsys.readouterr().out
