"""What is done with a run that was trained: snapshots, stopping, cutting, tickets, the report."""

import base64
import dataclasses
import itertools
import json
import re
from html.parser import HTMLParser

import jax
import numpy as np
import pytest

import parsimony as pm
from experiments import __main__ as cli
from experiments.commands import train
from experiments.commands.together import seeds, together
from experiments.config import Config
from experiments.errors import RunError
from experiments.runs import snapshots, stopping
from experiments.runs.digest import digest
from experiments.runs.load import load_run, read_config

SHORT = Config(sparsity=None, share=0.4, epochs=8, checkpoint_every=4, keep=(3 / 8,), snapshots=3, snapshot_groups=1000)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """One short run on the digits."""
    return train.train("digits", dataclasses.replace(SHORT, run_dir=tmp_path_factory.mktemp("runs") / "a"))


@pytest.fixture
def copy(directory, tmp_path):
    """A folder of its own with the same run, to write into."""
    import shutil

    return shutil.copytree(directory, tmp_path / "copy")


def test_snapshots_come_at_the_set_cadence_and_hold_the_norms_of_the_groups(directory):
    curve = snapshots.curve(directory)
    ends = [0, 10, 20, 30, 40, 50, 59, 69, 79]  # ⌈1257·epoch / 128⌉
    assert [line["step"] for line in curve if line["epoch_end"]] == ends[1:]
    assert [line["step"] for line in curve][:6] == [4, 7, 10, 14, 17, 20]
    assert [line["epoch_end"] for line in curve] == [False, False, True] * 8
    gamma, weight = (snapshots.norms(directory, kind) for kind in ("gamma", "weight"))
    assert {name: rows.shape for name, rows in gamma.items()} == {
        "conv1/kernel": (24, 16),
        "conv2/kernel": (24, 32),
        "dense2/kernel": (24, 640),
    }  # fmt: skip  (dense1 has more groups than snapshot_groups)
    run = load_run(directory)
    params, _, state = run.at()
    np.testing.assert_allclose(gamma["conv2/kernel"][-1], pm.group_norms(state)["conv2"]["kernel"], rtol=1e-6)
    np.testing.assert_allclose(weight["conv2/kernel"][-1], pm.group_norms(state, params)["conv2"]["kernel"], rtol=1e-6)
    counts = [line["groups"]["conv2/kernel"] for line in curve]
    assert (gamma["conv2/kernel"] > 0).sum(1).tolist() == counts
    assert counts[0] < counts[-1]
    assert all(a["time"] < b["time"] for a, b in itertools.pairwise(curve))


def test_a_line_that_a_kill_cut_off_is_no_line(copy):
    lines = snapshots.curve(copy)
    with (copy / "curve.jsonl").open("a") as file:
        file.write('{"epoch": 9, "st')
    assert snapshots.curve(copy) == lines


def test_a_run_comes_back_as_it_was(directory):
    run = load_run(directory)
    assert dataclasses.replace(run.config, run_dir=None) == SHORT
    assert run.epochs == [3, 4, 8]
    params, _, state = run.at()
    record = json.loads((directory / "record.json").read_text())
    assert digest((params, state)) == record["digest"]
    early = run.at(3)[2]
    assert snapshots.density(early)["groups"] == snapshots.curve(directory)[8]["groups"]
    steps = np.asarray(pm.entry_steps(state)["conv2"]["kernel"])
    entered = (steps > 0) & (steps <= 30)
    assert entered[np.asarray(pm.group_norms(early)["conv2"]["kernel"]) > 0].all()


def test_prune_reports_every_order_and_overwrites_nothing(copy, capsys):
    words = ["prune", str(copy), "--sparsity", "0", "0.5", "0.9", "--layers", "conv", "--fine-tune", "1"]
    words += ["--orders", "entry", "magnitude", "area", "random"]
    assert cli.main(words) == 0
    result = json.loads((copy / "prune.json").read_text())
    rows = {(row["order"], row["sparsity"], row["fine_tune"]): row for row in result["rows"]}
    assert len(rows) == 4 * 3 * 2
    for order in ("entry", "magnitude", "area", "random"):
        assert rows[order, 0.5, 0]["kept"] == {
            "conv1/kernel": 8 * 9, "conv2/kernel": 16 * 144, "dense1/kernel": 32768, "dense2/kernel": 640,
        }  # fmt: skip
        assert rows[order, 0, 0]["test"] == pytest.approx(result["dense"]["test"])
    assert rows["entry", 0.9, 0]["kept"]["conv1/kernel"] == 2 * 9  # ⌊0.9·16⌋ = 14 filters go
    assert len({row["test"] for row in result["rows"]}) > 3
    assert "test accuracy (%), groups, by layer" in capsys.readouterr().out
    before = (copy / "prune.json").read_bytes()
    assert cli.main(["prune", str(copy), "--sparsity", "0.5", "--orders", "entry", "--level", "weight"]) == 0
    assert (copy / "prune.json").read_bytes() == before
    assert json.loads((copy / "prune-2.json").read_text())["level"] == "weight"


def test_a_ticket_starts_from_the_right_weights_and_keeps_to_its_mask(copy, monkeypatch):
    """The start, the masks and the end of each of the three retrainings, seen from where they are trained."""
    from experiments.training import fit as training_fit

    seen = []
    fit = training_fit.fit

    def watched(step, params, *more):
        params = jax.tree.map(np.asarray, params)
        trained = fit(step, params, *more)
        seen.append((params, trained[0]))
        return trained

    monkeypatch.setattr(training_fit, "fit", watched)
    run = load_run(copy)
    for rewind, start in [("init", run.start[0]), ("E", run.at(3)[0]), ("none", run.at()[0])]:
        seen.clear()
        words = ["ticket", str(copy), "--at-epoch", "3", "--rewind", rewind, "--sparsity", "0.5", "--epochs", "1"]
        assert cli.main(words) == 0
        masks = pm.select(run.at(3)[0], run.at(3)[2], 0.5, order="dual", protect=["dense"])
        (dense, _), (ours, trained), (random, drawn) = seen
        assert all(jax.tree.leaves(jax.tree.map(np.array_equal, dense, start)))
        assert all(jax.tree.leaves(jax.tree.map(np.array_equal, ours, pm.apply_masks(start, masks))))
        alive = lambda params: np.asarray(params["conv2"]["kernel"]).any((0, 1, 2))
        assert alive(trained).tolist() == np.asarray(masks["conv2"]["kernel"])[0, 0, 0].tolist()
        assert alive(drawn).sum() == alive(trained).sum() == 16
        assert alive(drawn).tolist() != alive(trained).tolist()
        assert alive(random).tolist() == alive(drawn).tolist()
    results = [json.loads((copy / f"ticket{n}.json").read_text()) for n in ("", "-2", "-3")]
    assert [result["rewind"] for result in results] == ["init", "E", "none"]
    assert all(result["masked_sparsity"] == 0.5 for result in results)


def line(epoch, accuracy, sparse_accuracy, density, groups=0):
    return {"epoch": epoch, "step": epoch, "accuracy": accuracy, "sparse_accuracy": sparse_accuracy,
            "total_density": density, "groups": {"conv": groups}}  # fmt: skip


CURVE = [
    line(1, 0.95, 0.10, 0.00, 0),
    line(2, 0.96, 0.50, 0.02, 3),
    line(3, 0.97, 0.968, 0.05, 5),
    line(4, 0.97, 0.972, 0.20, 8),
    line(5, 0.97, 0.973, 0.30, 9),
    line(6, 0.97, 0.971, 0.31, 9),
    line(7, 0.97, 0.971, 0.31, 9),
]


def test_one_standard_error_takes_the_sparsest_that_cannot_be_told_from_the_best():
    """The best is 97.3 %; with 1,000 images SE is 0.51 %, with 100,000 it is 0.051 %."""
    assert stopping.standard_error(0.973, 1000) == pytest.approx(0.00513, rel=1e-2)
    assert stopping.sparsest_within_one_error(CURVE, 1000)["epoch"] == 3
    assert stopping.sparsest_within_one_error(CURVE, 100_000)["epoch"] == 5
    assert stopping.sparsest_within_one_error(CURVE[:2], 1000) is None, "while W̃ is far from W there is no such point"


def test_rules_during_the_training_and_afterwards_are_the_same():
    """A rule that fires at a line has not fired before it, whatever follows."""
    for rule, keys, epoch, at in [
        ("one_se", {"patience": 2}, 3, 5),
        ("sparsity", {"sparsity": 0.9}, 3, 4),
        ("sparsity", {"sparsity": 0.7}, 5, 5),
        ("stable", {"patience": 2}, 7, 7),
    ]:
        ends = [stopping.point(rule, CURVE[:n], 1000, **keys) for n in range(1, 8)]
        assert ends[: at - 1] == [None] * (at - 1)
        assert all(end["epoch"] == epoch for end in ends[at - 1 :])
    assert stopping.point("never", CURVE, 1000) is None
    assert stopping.point("stable", CURVE[:6], 1000, patience=2) is None


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["sparsity", "one_se"])
def test_a_rule_ends_the_training_and_its_model_is_kept(tmp_path, rule):
    config = dataclasses.replace(
        SHORT, epochs=30, drops=(2 / 3,), snapshots=1, keep=(), stop=rule, stop_sparsity=0.9, patience=1,
        share=0.1, run_dir=tmp_path / "a",
    )  # fmt: skip
    record = json.loads((train.train("digits", config) / "record.json").read_text())
    stopped = record["final"]["stopped"]
    assert record["final"]["epochs"] < 30
    curve = record["curve"]
    assert stopping.point(rule, curve, config.validation, 0.9, 1)["epoch"] == stopped["epoch"]
    assert stopping.point(rule, curve[:-1], config.validation, 0.9, 1) is None
    run = load_run(tmp_path / "a")
    assert snapshots.density(run.at(stopped["epoch"])[2])["total_density"] == stopped["total_density"]
    if rule == "sparsity":
        assert stopped["total_density"] <= 0.1 < curve[-1]["total_density"]


def test_stop_reads_a_recorded_path(directory, capsys):
    assert cli.main(["stop", str(directory), "--rule", "sparsity", "--sparsity", "0.9"]) == 0
    ends = [line for line in snapshots.curve(directory) if line["epoch_end"] and line["total_density"] <= 0.1]
    assert f"sparsity: epoch {ends[-1]['epoch']}," in capsys.readouterr().out
    assert cli.main(["stop", str(directory), "--rule", "stable", "--patience", "7"]) == 1
    assert "does not end this path" in capsys.readouterr().err


class Page(HTMLParser):
    """Pictures, links, and the text of a page."""

    def __init__(self):
        super().__init__()
        self.pictures, self.links, self.anchors, self.text = [], [], set(), ""

    def handle_starttag(self, tag, attrs):
        for key, value in attrs:
            if key == "id":
                self.anchors.add(value)
            if key in ("src", "href"):
                (self.pictures if value.startswith("data:image/png") else self.links).append(value)

    def handle_data(self, data):
        self.text += data


def test_a_report_is_one_page_with_everything_inside(copy):
    assert cli.main(["prune", str(copy), "--sparsity", "0.5", "0.8", "--orders", "entry", "random"]) == 0
    assert cli.main(["ticket", str(copy), "--at-epoch", "3", "--sparsity", "0.5", "--epochs", "1"]) == 0
    assert cli.main(["stop", str(copy), "--rule", "sparsity", "--sparsity", "0.9"]) == 0
    assert cli.main(["compact", str(copy), "--sparsity", "0.25", "--order", "magnitude", "--rounds", "1"]) == 0
    assert cli.main(["report", str(copy)]) == 0
    text = (copy / "report.html").read_text()
    page = Page()
    page.feed(text)
    assert {link.removeprefix("#") for link in page.links} == page.anchors, "the contents lead to every part"
    assert not re.search(r"https?://", text)
    assert "prefers-color-scheme: dark" in text
    assert (len(page.pictures), text.count("<svg class='chart'")) == (3, 4)
    for picture in page.pictures:
        assert base64.b64decode(picture.split(",")[1]).startswith(b"\x89PNG")
    record = json.loads((copy / "record.json").read_text())
    for expected in (f"W {record['final']['test_accuracy']:.2%}", "groups in supp Γ", "entry", "Mask of epoch 3",
                     "The rule sparsity of 90.0% ends the path at epoch", "units kept: conv1 ",
                     '"learning_rate": 0.05', record["digest"]):  # fmt: skip
        assert expected in page.text
    assert cli.main(["report", str(copy)]) == 0, "a report of ours is drawn anew"


def test_cuts_that_were_made_alike_of_several_runs_are_averaged(copy, tmp_path):
    other = train.train("digits", dataclasses.replace(SHORT, seed=1, run_dir=tmp_path / "other"))
    rows = []
    for run in (copy, other):
        assert cli.main(["prune", str(run), "--sparsity", "0.5", "--orders", "magnitude", "--layers", "conv"]) == 0
        rows.append(json.loads((run / "prune.json").read_text())["rows"][0]["test"])
    assert cli.main(["report", str(copy), str(other)]) == 0
    page = Page()
    page.feed((copy / "report.html").read_text())
    assert "Cut of 2 runs: conv, groups, by layer" in page.text
    assert f"{50 * sum(rows):.2f} ± {100 * np.std(rows, ddof=1):.2f}" in page.text
    assert "mean ± std of 2 seeds" in page.text


def test_only_runs_that_differ_in_the_seed_alone_are_averaged(directory):
    """Not runs of other lengths or settings, and one seed not twice."""
    run = load_run(directory)
    of = lambda **changes: dataclasses.replace(run, config=dataclasses.replace(run.config, **changes))
    runs = [run, of(seed=1), of(seed=1), of(epochs=4), of(epochs=4, seed=2), of(kappa=2.0, seed=3)]
    places = {id(own): place for place, own in enumerate(runs)}
    assert [[places[id(own)] for own in group] for group in seeds(runs)] == [[0, 1], [3, 4], [5]]
    page = Page()
    page.feed(dict(together([runs[0], runs[3], runs[5]]))["Settings and results"])
    assert "mean" not in page.text
    assert "These differ in epochs, kappa too" in page.text
    page.feed(dict(together(runs))["Settings and results"])
    assert page.text.count("mean ± std of 2 seeds") == 2


def test_a_report_of_several_runs_and_of_one_that_was_killed(copy, directory):
    (copy / "record.json").unlink()
    assert cli.main(["report", str(copy), str(directory), "--output", str(copy / "both.html")]) == 0
    text = (copy / "both.html").read_text()
    assert text.count("<figure>") == 9  # four of each run, and the curves of both in one plot
    assert "not finished" in text
    assert "Not finished: 79 of 79 steps" in text


def test_a_report_replaces_no_file_of_anyone_else(copy, capsys):
    (copy / "thesis.html").write_text("mine")
    assert cli.main(["report", str(copy), "--output", str(copy / "thesis.html")]) == 1
    assert "not a report written by this command" in capsys.readouterr().err
    assert (copy / "thesis.html").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["prune", "{run}", "--sparsity", "1.0"], 2, r"in \[0, 1\), got \[1.0\]"),
        (["prune", "{run}", "--layers", "convv"], 1, "--layers convv: matches no penalised parameter"),
        (["prune", "{run}", "--orders", "area"], 1, "--snapshot-groups 32768"),
        (["prune", "{run}/nothing"], 1, "not a run folder .it does not exist"),
        (["prune", "{run}/snapshots"], 1, "not a run folder .it holds 0"),
        (["ticket", "{run}", "--at-epoch", "5"], 1, r"no checkpoint of epoch 5, only of \[3, 4, 8\].*--keep 0.625"),
        (["ticket", "{run}", "--at-epoch", "3", "--sparsity", "-1"], 2, r"in \[0, 1\), got -1"),
        (["ticket", "{run}", "--at-epoch", "3"], 1, "nothing of .*conv2/kernel.* path that opens earlier"),
        (["stop", "{run}", "--sparsity", "1"], 2, r"in \[0, 1\), got 1"),
        (["report", "{run}", "{run}/nothing"], 1, "not a run folder"),
    ],
)  # fmt: skip
def test_bad_input_is_told_and_nothing_is_written(directory, words, code, message, capsys):
    before = sorted(path.name for path in directory.rglob("*"))
    try:
        returned = cli.main([word.format(run=directory) for word in words])
    except SystemExit as stop:
        returned = stop.code
    assert returned == code
    assert re.search(message, re.sub(r"[│\s]+", " ", capsys.readouterr().err))
    assert sorted(path.name for path in directory.rglob("*")) == before


def test_a_configuration_of_another_version_is_told(copy):
    settings = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(settings | {"warmup": 3}))
    with pytest.raises(RunError, match=r"another version of the experiments.*warmup"):
        read_config(copy)
