"""Comparisons: many runs as one, the protocol, the record that only grows, and the table that is made of it."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

from experiments import __main__ as cli
from experiments import configs
from experiments.commands import compare
from experiments.comparison import methods, runs, search
from experiments.comparison.config import Comparison
from experiments.comparison.results import Job, JobResults, Result, from_line, to_line
from experiments.comparison.search import Choice
from experiments.comparison.summary import from_json, summary, to_json
from experiments.errors import RunError
from experiments.runs.files import read_lines
from experiments.runs.folder import locked

SMALL = Comparison(
    methods=("split_lbi", "gradual"),
    sparsity=(0.5, 0.9),
    tune_at=(0.9,),
    epochs=4,
    mask_interval=0.075,
    trials=2,
    seeds=2,
    fine_tune=1,
)


def test_every_method_has_as_many_trials_from_its_own_space_and_the_same_ones_again():
    config = Comparison(methods=tuple(methods.METHODS), trials=7)
    for name, method in methods.METHODS.items():
        settings = search.searched(config, name)
        assert len(set(settings)) == 7
        assert settings == search.searched(config, name)
        for setting, (number, (low, high)) in itertools.product(settings, method.search.items()):
            assert low * 0.999 <= dict(setting)[number] <= high * 1.001


def test_a_range_of_ones_own_takes_the_place_of_a_method_s_range_or_fixed_number():
    ranges = (("split_lbi.kappa", (2.0, 4.0)), ("split_lbi.pull", (7.0, 8.0)))
    config = Comparison(methods=("split_lbi", "linbreg"), ranges=ranges)
    for setting in map(dict, search.searched(config, "split_lbi")):
        assert 2 <= setting["kappa"] <= 4
        assert 7 <= setting["pull"] <= 8
        assert setting.keys() == dict(search.searched(SMALL, "split_lbi")[0]).keys()
    assert search.searched(config, "linbreg") == search.searched(dataclasses.replace(config, ranges=()), "linbreg")


def finished(rate, *measured):
    """A run of the method m, and of each thing measured (of, sparsity, order, validation, test)."""
    job = Job("trial", "m", (("rate", rate),), 0, None)
    keys = ("of", "sparsity", "order", "validation", "test")
    sizes = {"zeros": 0.0, "zeros_of_all": 0.0, "macs": 7}
    return JobResults(job, 60, 2.0, tuple(Result(**dict(zip(keys, one, strict=True)), **sizes) for one in measured))


def test_the_setting_and_the_order_are_chosen_by_validation_alone():
    trials = [
        finished(0.1, ("W", 0.9, "magnitude", 0.7, 0.99), ("fine-tuned", 0.9, "magnitude", 0.9, 0.0)),
        finished(0.2, ("W", 0.9, "magnitude", 0.5, 0.99), ("W", 0.9, "dual", 0.8, 0.10), ("W", 0.5, "dual", 1.0, 0.99)),
    ]
    dense = Comparison(methods=("m",), sparsity=(), tune_at=())
    of_all = [
        finished(0.1, ("W", None, "magnitude", 0.7, 0.0)),
        finished(0.2, ("W", None, "magnitude", 0.8, 0.0), ("W̃", None, "magnitude", 0.9, 0.0)),
    ]
    assert search.choose(dense, of_all) == [Choice("m", "m", (("rate", 0.2),), "magnitude")]
    assert search.choose(dataclasses.replace(SMALL, methods=("m",)), trials) == [
        Choice("m", "m", (("rate", 0.2),), "dual"),
        Choice("m, fine-tuned", "m", (("rate", 0.1),), "magnitude", True),
    ]


def test_a_line_of_results_comes_back_as_it_was():
    done = finished(0.1, ("W", 0.9, "magnitude", 0.7, None), ("W̃", None, "magnitude", 0.9, 0.0))
    line = json.loads(json.dumps(to_line(done)))
    assert [result["row"] for result in line["results"]] == ["", ", W̃"]
    assert ["test" in result for result in line["results"]] == [False, True]
    assert from_line(line) == done


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A comparison of two methods on the digits, far too short to learn much."""
    return compare.compare("compare_digits", dataclasses.replace(SMALL, run_dir=tmp_path_factory.mktemp("runs") / "a"))


def test_a_comparison_leaves_a_line_a_run_and_the_record_of_its_means(directory):
    lines = read_lines(directory / "results.jsonl")
    counted = [(line["kind"], line["method"], line["sparsity"]) for line in lines]
    assert counted.count(("trial", "split_lbi", None)) == 2
    assert counted.count(("trial", "gradual", 0.9)) == 2
    assert counted.count(("final", "gradual", 0.5)) == counted.count(("final", "gradual", 0.9)) == 2
    assert not any("test" in result for line in lines if line["kind"] == "trial" for result in line["results"])
    record = json.loads((directory / "record.json").read_text())
    rows = {row["row"]: row for row in record["rows"]}
    assert list(rows) == ["split_lbi", "split_lbi, fine-tuned", "gradual"]
    assert [rows[name]["runs"] for name in rows] == [1, 1 + 2 * 1 / 4, 2]
    gradual = [
        result["test"]
        for line in lines
        if (line["kind"], line["method"], line["sparsity"]) == ("final", "gradual", 0.9)
        for result in line["results"]
    ]
    assert rows["gradual"]["cells"][1]["test"] == pytest.approx(np.mean(gradual))
    assert rows["gradual"]["cells"][1]["std"] == pytest.approx(np.std(gradual, ddof=1))
    for row in record["rows"]:
        for cell, share in zip(row["cells"], (0.5, 0.9), strict=True):
            assert cell["zeros"] == pytest.approx(share, abs=1e-4)
            assert cell["zeros_of_all"] < cell["zeros"]
            assert cell["macs"] is None or cell["macs"] <= record["macs"]
    assert set(rows["split_lbi"]["dense"]) == {"W", "W̃"}


def test_a_recorded_run_is_not_made_again_and_more_seeds_add_only_theirs(directory, monkeypatch):
    before = (directory / "results.jsonl").read_text()
    made, run = [], runs.run
    monkeypatch.setattr(runs, "run", lambda setup, jobs: made.extend(jobs) or run(setup, jobs))
    again = dataclasses.replace(SMALL, run_dir=directory)
    compare.compare("compare_digits", again)
    assert made == []
    compare.compare("compare_digits", dataclasses.replace(again, seeds=3, methods=("gradual",)))
    assert {(job.kind, job.seed) for job in made} == {("final", 2)}
    assert (directory / "results.jsonl").read_text().startswith(before)
    with pytest.raises(
        RunError, match=r"a comparison with other settings \(epochs 4 → 5\); choose another folder by --run-dir"
    ):
        compare.compare("compare_digits", dataclasses.replace(again, epochs=5))
    compare.compare("compare_digits", again)  # as the other tests find it


def test_a_folder_takes_one_comparison_at_a_time(directory):
    with locked(directory), pytest.raises(RunError, match=f"another process works in {directory}"):
        compare.compare("compare_digits", dataclasses.replace(SMALL, run_dir=directory))


def test_the_report_draws_and_writes_its_table_between_the_markers_only(directory, tmp_path, capsys):
    page = tmp_path / "results.md"
    page.write_text("before\n<!-- comparison compare_digits -->\nold\n<!-- end -->\nafter\n<!-- end -->\n")
    assert cli.main(["report", "compare", str(directory), "--markdown", str(page)]) == 0
    written = page.read_text()
    assert written.startswith(
        "before\n<!-- comparison compare_digits -->\n`python -m experiments compare compare_digits`"
    )
    assert written.endswith("<!-- end -->\nafter\n<!-- end -->\n")
    assert "old" not in written
    record = json.loads((directory / "record.json").read_text())
    cell = record["rows"][2]["cells"][1]
    assert f"{100 * cell['test']:.2f} ± {100 * cell['std']:.2f}" in written
    assert (directory / "comparison.png").stat().st_size > 10_000
    assert cli.main(["report", "compare", str(directory), "--markdown", str(page)]) == 0
    assert page.read_text() == written
    (tmp_path / "other.md").write_text("nothing here")
    assert cli.main(["report", "compare", str(directory), "--markdown", str(tmp_path / "other.md")]) == 1
    assert "has no place for compare_digits" in capsys.readouterr().err
    assert cli.main(["report", "compare", str(tmp_path)]) == 1


def test_a_grid_is_a_row_for_every_combination():
    config = Comparison(methods=("split_lbi",), sparsity=(), grid=(("kappa", (1.0, 2.0)), ("nu", (10.0,))))
    first, second = search.grid(config, "split_lbi")
    assert [row.name for row in (first, second)] == ["split_lbi kappa=1 nu=10", "split_lbi kappa=2 nu=10"]
    assert dict(second.setting)["kappa"] == 2.0
    result = Result("W", None, "magnitude", validation=0.5, zeros=0.0, zeros_of_all=0.0, macs=7, test=0.4)
    done = JobResults(Job("final", "split_lbi", first.setting, 0, None), 60, 2.0, (result,))
    (row,) = summary(config, [first], [done])
    assert (row.dense["W"].test, row.dense["W"].std, row.runs) == (0.4, None, 1)
    assert from_json(json.loads(json.dumps(to_json(row)))) == row


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"methods": ("split_lbl",)}, "did you mean 'split_lbi'"),
        ({"model": "lenet5"}, "unknown model 'lenet5'"),
        ({"model": "lenet"}, "inputs of another size"),
        ({"level": "group", "methods": ("rigl",)}, "rigl makes weights zero: leave it out of --methods, or choose"),
        ({"methods": ("slimming",)}, "slimming makes filters zero"),
        ({"model": "alexnet", "level": "group", "methods": ("narrow",)}, "narrow trains alexnet of other widths"),
        ({"level": "group", "methods": ("slimming",)}, "scales of normalisations, which small_cnn lacks"),
        ({"image_size": 5}, r"image_size 5: images of digits are 8×8; expected one of \[1, 2, 4, 8\]"),
        ({"ranges": (("gradual.kappa", (1.0, 2.0)),)}, "unknown number of gradual 'kappa'; .* Known: learning_rate"),
        ({"sparsity": ()}, "gradual trains for a sparsity: give --sparsity"),
        ({"ranges": (("hart.ramp", (0.1, 0.2)),)}, "unknown method 'hart'; did you mean 'hard'"),
        ({"batch_size": 2000}, "more than the 1257 training examples"),
    ],
)
def test_what_does_not_fit_is_rejected_before_a_folder_is_made(tmp_path, fields, message):
    with pytest.raises(RunError, match=message):
        compare.compare("a", dataclasses.replace(SMALL, run_dir=tmp_path / "a", **fields))
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("methods", ()),
        ("sparsity", (1.0,)),
        ("tune_at", (1.0,)),
        ("mask_interval", 0.2),
        ("drops", (0.9, 0.5)),
        ("tune_seed", 1),
        ("trials", 0),
        ("fine_tune", -1),
        ("together", 0),
        ("minutes", 0.0),
        ("ranges", (("gradual.ramp", (0.5, 0.2)),)),
        ("ranges", (("ramp", (0.1, 0.2)),)),
    ],
)
def test_a_configuration_rejects_invalid_values(field, value):
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(SMALL, **{field: value})


def test_the_configurations_name_methods_and_numbers_that_are_there():
    numbers = {name: {*method.search, *method.fixed, "nu", "strength"} for name, method in methods.METHODS.items()}
    for name in configs.names("compare"):
        config = configs.load("compare", name).config
        assert set(config.methods) <= set(methods.METHODS)
        assert {number for number, _ in config.fixed} <= set().union(*numbers.values())
        for method in config.methods:
            assert {number for number, _ in config.grid} <= numbers[method]
