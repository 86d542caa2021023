"""Comparisons: many runs as one, the protocol, the record that only grows, and the table that is made of it."""

import dataclasses
import itertools
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import parsimony as pm
from experiments import __main__ as cli
from experiments import baselines, configs
from experiments.commands import compare
from experiments.comparison import methods
from experiments.comparison.config import Comparison
from experiments.comparison.plots import picture
from experiments.comparison.table import markdown, replaced, summary
from experiments.data.load import load
from experiments.errors import RunError
from experiments.runs.files import read_lines
from experiments.runs.folder import locked
from experiments.training import build, sweep
from helpers.cases import mostly

RECORDS = Path(__file__).parents[2] / "experiments" / "results"
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
SHAPES = {"conv": {"kernel": (2, 2, 3, 6)}, "head": {"kernel": (6, 20), "bias": (20,)}}
_rng = np.random.default_rng(0)
_drawn = lambda shape: jnp.asarray(_rng.normal(size=shape), jnp.float32)
PARAMS, GOALS = (jax.tree.map(_drawn, SHAPES, is_leaf=lambda s: isinstance(s, tuple)) for _ in range(2))


def plan(steps=80, level="weight") -> methods.Plan:
    return methods.Plan(steps, (0.625, 0.875), 10.0, level, methods.unit_strengths(PARAMS, level), 4)


def loss(params):
    return sum(jnp.sum((w - g) ** 2) for w, g in zip(jax.tree.leaves(params), jax.tree.leaves(GOALS), strict=True))


def descended(tx, steps=80):
    def step(at, _):
        updates, state = tx.update(jax.grad(loss)(at[0]), at[1], at[0])
        return (optax.apply_updates(at[0], updates), state), None

    return jax.jit(lambda: jax.lax.scan(step, (PARAMS, tx.init(PARAMS)), length=steps)[0])()


def middle(method: methods.Method) -> dict:
    """The geometric middle of a search space."""
    return {name: float(np.sqrt(low * high)) for name, (low, high) in method.search.items()} | dict(method.fixed)


@pytest.mark.parametrize("name", mostly(methods.METHODS, ["split_lbi", "gradual"]))
def test_every_method_descends_and_meets_its_sparsity(name):
    method = methods.METHODS[name]
    setting = middle(method) | {"seed": 0} | ({} if method.cuts else {"sparsity": 0.75})
    params, state = descended(method.make(plan(), setting))
    kernels = [np.asarray(params[name]["kernel"]) for name in ("conv", "head")]
    assert np.isfinite(float(loss(params)))
    if method.cuts:
        assert loss(params) < loss(PARAMS)
    else:
        assert sum(int((w == 0).sum()) for w in kernels) == 144
        assert loss(params) < loss(pm.apply_masks(PARAMS, baselines.magnitude_masks(PARAMS, 0.75)))
    assert method.split_lbi == (optax.tree.get(state, "SplitLBIState") is not None and method.cuts)


@pytest.mark.parametrize("kappa", [1.0, 4.0])
def test_a_traced_strength_is_that_of_the_penalty(kappa):
    """V/λ in the place of V, with α/λ, κλ and strength 1."""
    setting = {"learning_rate": 0.05, "kappa": kappa, "nu": 2.0, "strength": 0.3, "finish": 0.3}
    ours, state = descended(methods.METHODS["split_lbi"].make(plan(), setting))
    rules = [(pattern, dataclasses.replace(own, strength=0.3 * own.strength)) for pattern, own in plan().penalty.rules]
    rate = lambda count: 0.05 / kappa * jnp.where(count < 50, 1, jnp.where(count < 70, 0.1, 0.01))
    dual = lambda count: jnp.where(count < 50, rate(count), 0.3 * 2.0 / kappa)
    tx = optax.chain(
        optax.clip_by_global_norm(10.0),
        pm.split_lbi(rate, kappa, 2.0, pm.Rules(rules), momentum=0.9, dual_learning_rate=dual),
    )
    theirs, reference = descended(tx)
    for one, other in ((ours, theirs), (pm.gamma(state), pm.gamma(reference))):
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(a, b, atol=2e-5)
    assert 0 < np.mean(np.asarray(pm.support(reference)["head"]["kernel"])) < 1


def test_the_time_of_a_share_is_the_sum_of_the_rates():
    own = plan()
    for share in (0.3, 0.625, 0.8, 1.0):
        expected = sum(float(own.rate(1.0)(k)) for k in range(round(80 * share)))
        assert float(own.time(share)) == pytest.approx(expected, rel=1e-4)


SETTINGS = [
    {"learning_rate": 0.05, "pull": 20.0, "share": 0.5, "kappa": 1.0, "finish": 0.0, "seed": 0},
    {"learning_rate": 0.1, "pull": 5.0, "share": 0.8, "kappa": 2.0, "finish": 0.25, "seed": 0},
    {"learning_rate": 0.02, "pull": 9.0, "share": 0.6, "kappa": 1.0, "finish": 0.0, "seed": 3},
]


@pytest.mark.slow
def test_runs_that_train_as_one_are_what_they_are_alone():
    """To the rounding of float32: 36 steps of SmallCNN, with weights of up to 0.6."""
    network, params, _ = build.build_model("small_cnn", 0)
    dataset = load("digits", 180)
    own = methods.Plan(36, (0.625, 0.875), 1.0, "weight", methods.unit_strengths(params, "weight"), 4)
    runs = sweep.Sweep(network, dataset, 4, 128, lambda setting: methods.METHODS["split_lbi"].make(own, setting))
    numbers = [{name: np.float32(x) for name, x in s.items() if name != "seed"} | {"seed": s["seed"]} for s in SETTINGS]
    starts = [build.build_model("small_cnn", s["seed"])[1:] for s in SETTINGS]
    together = sweep.train(runs, numbers, starts)
    for setting, start, (params, _, state) in zip(numbers, starts, together, strict=True):
        ((alone, _, alone_state),) = sweep.train(runs, [setting], [start])
        for a, b in zip(
            jax.tree.leaves((params, pm.gamma(state))), jax.tree.leaves((alone, pm.gamma(alone_state))), strict=True
        ):
            np.testing.assert_allclose(a, b, atol=2e-5)
    first, second = (jax.tree.leaves(run[0])[0] for run in together[:2])
    assert float(jnp.abs(first - second).max()) > 1e-3  # they are not one run


def test_every_method_has_as_many_trials_from_its_own_space_and_the_same_ones_again():
    config = Comparison(methods=tuple(methods.METHODS), trials=7)
    for name, method in methods.METHODS.items():
        settings = compare.searched(config, name)
        assert len(set(settings)) == 7
        assert settings == compare.searched(config, name)
        for setting, (number, (low, high)) in itertools.product(settings, method.search.items()):
            assert low * 0.999 <= dict(setting)[number] <= high * 1.001


def test_a_range_of_ones_own_takes_the_place_of_a_method_s_range_or_fixed_number():
    ranges = (("split_lbi.kappa", (2.0, 4.0)), ("split_lbi.pull", (7.0, 8.0)))
    config = Comparison(methods=("split_lbi", "linbreg"), ranges=ranges)
    for setting in map(dict, compare.searched(config, "split_lbi")):
        assert 2 <= setting["kappa"] <= 4
        assert 7 <= setting["pull"] <= 8
        assert setting.keys() == dict(compare.searched(SMALL, "split_lbi")[0]).keys()
    assert compare.searched(config, "linbreg") == compare.searched(dataclasses.replace(config, ranges=()), "linbreg")


def test_the_setting_and_the_order_are_chosen_by_validation_alone():
    def line(rate, *results):
        keys = ("row", "sparsity", "order", "validation", "test")
        return {"method": "m", "setting": {"rate": rate}, "results": [dict(zip(keys, r, strict=True)) for r in results]}

    lines = [
        line(0.1, ("", 0.9, "magnitude", 0.7, 0.99), (", fine-tuned", 0.9, "magnitude", 0.9, 0.0)),
        line(0.2, ("", 0.9, "magnitude", 0.5, 0.99), ("", 0.9, "dual", 0.8, 0.10), ("", 0.5, "magnitude", 1.0, 0.99)),
    ]
    dense = Comparison(methods=("m",), sparsity=(), tune_at=())
    of_all = [
        line(0.1, ("", None, "magnitude", 0.7, 0.0)),
        line(0.2, ("", None, "magnitude", 0.8, 0.0), (", W̃", None, "magnitude", 0.9, 0.0)),
    ]
    assert compare.choose(dense, of_all) == {"m": ((("rate", 0.2),), "magnitude")}
    config = dataclasses.replace(SMALL, methods=("m",))
    assert compare.choose(config, lines) == {
        "m": ((("rate", 0.2),), "dual"),
        "m, fine-tuned": ((("rate", 0.1),), "magnitude"),
    }


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
    made, run = [], compare.Bench.run
    monkeypatch.setattr(compare.Bench, "run", lambda self, jobs: made.extend(jobs) or run(self, jobs))
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


def test_a_grid_of_two_numbers_is_drawn_as_maps_with_every_number_in_them():
    """κ and ν: W, W̃ and two sparsities."""
    record = json.loads((RECORDS / "ablation" / "record.json").read_text())
    panels = picture(record).axes
    assert [len(axes.texts) for axes in panels] == [32] * 4
    best = max(record["rows"], key=lambda row: row["cells"][1]["test"])
    told = max(panels[-1].texts, key=lambda text: float(text.get_text().split()[0]))
    assert told.get_text().startswith(f"{100 * best['cells'][1]['test']:.2f}")
    (down, rows), (along, columns) = record["configuration"]["grid"]
    assert told.get_position() == (columns.index(best["setting"][along]), rows.index(best["setting"][down]))


def test_the_page_of_results_is_what_the_records_say():
    page = RECORDS.parents[1] / "docs" / "results.md"
    found = sorted(RECORDS.glob("*/record.json"))
    assert found
    for file in found:
        record = json.loads(file.read_text())
        assert replaced(page.read_text(), record["name"], markdown(record), page) == page.read_text(), file


@pytest.mark.parametrize("name", sorted(folder.name for folder in RECORDS.iterdir()))
def test_every_record_of_measured_results_is_still_reported(tmp_path, name, capsys):
    """Whatever has changed in the configurations since."""
    shutil.copytree(RECORDS / name, tmp_path / name)
    record = json.loads((tmp_path / name / "record.json").read_text())
    assert cli.main(["report", "compare", str(tmp_path / name)]) == 0
    output = capsys.readouterr().out
    assert all(f"| {row['row']} |" in output for row in record["rows"])
    for cell in record["rows"][0]["cells"]:
        assert f"{100 * cell['test']:.2f}" in output
    assert (tmp_path / name / "comparison.png").exists() == bool(record["configuration"]["sparsity"])


def test_markers_must_be_there_once_and_closed():
    text = "<!-- comparison a -->\n<!-- end -->"
    assert replaced(text, "a", "new", None) == "<!-- comparison a -->\nnew\n<!-- end -->"
    for broken in ("<!-- comparison a -->", text + text, "<!-- end --><!-- comparison a -->"):
        with pytest.raises(RunError, match="no place for a"):
            replaced(broken, "a", "new", None)


def test_a_grid_is_a_row_for_every_combination():
    config = Comparison(methods=("split_lbi",), sparsity=(), grid=(("kappa", (1.0, 2.0)), ("nu", (10.0,))))
    found = compare.grid(config, "split_lbi")
    assert list(found) == ["split_lbi kappa=1 nu=10", "split_lbi kappa=2 nu=10"]
    assert dict(found["split_lbi kappa=2 nu=10"])["kappa"] == 2.0
    result = {"row": "", "sparsity": None, "order": "magnitude", "epochs": 0, "seconds": 0.0, "validation": 0.5}
    result |= {"test": 0.4, "zeros": 0.0, "zeros_of_all": 0.0, "macs": 7}
    line = {"method": "split_lbi", "setting": dict(found["split_lbi kappa=1 nu=10"]), "seed": 0, "epochs": 60}
    chosen = {"split_lbi kappa=1 nu=10": ("split_lbi", found["split_lbi kappa=1 nu=10"], "magnitude")}
    (row,) = summary(config, chosen, [line | {"seconds": 2.0, "results": [result]}])
    assert (row["dense"]["W"]["test"], row["dense"]["W"]["std"], row["runs"]) == (0.4, None, 1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"methods": ("split_lbl",)}, "did you mean 'split_lbi'"),
        ({"model": "lenet5"}, "unknown model 'lenet5'"),
        ({"model": "lenet"}, "images of another size"),
        ({"level": "filter", "methods": ("rigl",)}, "rigl rewires single weights"),
        ({"ranges": (("gradual.kappa", (1.0, 2.0)),)}, "unknown number of gradual 'kappa'; .* Known: learning_rate"),
        ({"sparsity": ()}, "gradual trains for a sparsity: give --sparsity"),
        ({"ranges": (("hart.ramp", (0.1, 0.2)),)}, "unknown method 'hart'; did you mean 'hard'"),
        ({"batch_size": 2000}, "more than the 1257 training images"),
    ],
)
def test_what_does_not_fit_is_refused_before_a_folder_is_made(tmp_path, fields, message):
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
        ("ranges", (("gradual.ramp", (0.5, 0.2)),)),
        ("ranges", (("ramp", (0.1, 0.2)),)),
    ],
)
def test_a_configuration_refuses_what_makes_no_sense(field, value):
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(SMALL, **{field: value})


def test_the_configurations_name_methods_and_numbers_that_are_there():
    for name in configs.names("compare"):
        config = configs.load("compare", name).config
        assert set(config.methods) <= set(methods.METHODS)
        for method in config.methods:
            known = {*methods.METHODS[method].search, *methods.METHODS[method].fixed, "nu", "strength"}
            assert {number for number, _ in (*config.grid, *config.fixed)} <= known
