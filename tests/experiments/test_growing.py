"""`grow`: rounds, budgets, and what is kept of a network that grows."""

import dataclasses
import functools
import itertools
import json
import shutil

import jax
import numpy as np
import optax
import pytest

from experiments import __main__ as cli
from experiments.commands import grow
from experiments.data.dataset import Dataset, Split
from experiments.data.sampler import Sampler
from experiments.errors import RunError
from experiments.growth import policy, rounds, stage
from experiments.growth.config import Grow
from experiments.runs.load import load_run
from experiments.training.network import merge_variables
from helpers.processes import damage, largest

SAMPLER = Sampler(seed=0, size=40, batch_size=4)
SHORT = Grow(widths=(4,), epochs=12, pull=1.0, rounds=3, fine_tune=8, fine_tune_rate=0.05, patience=9)


def grown(tmp_path, name="a", **fields):
    directory = grow.grow("grow_digits", dataclasses.replace(SHORT, run_dir=tmp_path / name, **fields))
    return directory, json.loads((directory / "record.json").read_text())


def measured(rows):
    """What is the same whenever a round is done again."""
    return [{key: value for key, value in row.items() if "seconds" not in key} for row in rows]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return grown(tmp_path_factory.mktemp("grown"), compare="parameters")[0]


def test_a_network_grows_and_its_rounds_are_recorded(directory):
    record = json.loads((directory / "record.json").read_text())
    rows = rounds.rounds(directory)
    assert rows == record["rounds"]
    assert rows[0]["widths"] == {"conv1": 4, "conv2": 4, "dense1": 4}
    for before, after in itertools.pairwise(rows):
        assert after["widths"] == before["used"] | before["next"]
        assert all(before["saturation"][name] >= 0.8 for name in before["next"])
    assert rows[-1]["parameters"] > rows[0]["parameters"]
    assert rows[-1]["end"]
    final = record["final"]
    assert final["test"]["fine-tuned"] > 0.3
    assert final["compile_seconds"] > 0
    assert final["widths"] == rows[rows[-1]["take"] - 1]["used"]
    assert (directory / "widths.png").read_bytes().startswith(b"\x89PNG")


def test_fixed_networks_cost_as_much_training(directory):
    record = json.loads((directory / "record.json").read_text())
    rows, final = record["rounds"], record["final"]
    cost = sum(row["epochs"] * row["macs"] for row in rows) + SHORT.fine_tune * final["macs"]
    same, published = record["fixed"]
    assert same["widths"] == list(final["widths"].values())
    for row in (same, published):
        assert row["parameters"] <= final["parameters"]
        assert abs(row["epochs"] * row["macs"] - cost) <= row["macs"]
        assert 0 < row["test"] <= 1
    assert published["widths"] == sorted(published["widths"])  # 16, 32, 64 scaled down


@pytest.mark.slow
def test_the_next_stage_goes_on_where_the_last_one_was():
    """With batch statistics: what is unused goes, what is added changes nothing, what is left keeps its momentum."""
    config = dataclasses.replace(SHORT, dataset="mnist", model="tiny_cnn", widths=(4, 4), candidates=2)
    now = stage.make_stage(config)
    tx_of = functools.partial(stage.transformation, sampler=SAMPLER)
    tx = tx_of(now)
    params = jax.tree.map(lambda w: w, now.params)
    kernel = params["conv2"]["conv"]["kernel"]
    params["conv2"]["conv"]["kernel"] = kernel.at[:, :, 2].set(0)  # nothing reads the third unit of conv1
    state = tx.init(params)
    _, state = jax.jit(tx.update)(jax.tree.map(lambda w: 0.1 * w, params), state, params)
    stats = jax.tree.map(lambda x: x + 0.5, now.stats)
    assert policy.used(now, params, stats)["conv1/conv"].tolist() == [True, True, False, True]
    row = {"round": 1, "used": {"conv1/conv": 3, "conv2/conv": 4}, "next": {"conv2/conv": 6}}
    images = np.random.default_rng(0).integers(0, 255, (64, 28, 28, 1), np.uint8)
    split = Split(images, (np.arange(64) % 10).astype(np.int32))
    dataset = Dataset(split, split, split, 255, (0.0,), (255.0,), {})
    new, (wide, new_stats, new_state) = policy.resized(now, (params, stats, state), row, tx_of, dataset)
    assert new.widths == {"conv1/conv": 3, "conv2/conv": 6}
    assert jax.tree.structure(new_state) == jax.tree.structure(tx_of(new).init(wide))
    x = dataset.normalised(images[:5])
    before = now.network.fn(merge_variables(params, stats), x)
    np.testing.assert_allclose(new.network.fn(merge_variables(wide, new_stats), x), before, rtol=1e-4, atol=1e-5)
    old, wider = (optax.tree.get(own, "trace")["conv2"]["conv"]["kernel"] for own in (state, new_state))
    np.testing.assert_array_equal(wider[..., :4], old[:, :, np.array([0, 1, 3])])
    assert not any(map(np.any, jax.tree.leaves(optax.tree.get(new_state, "dual"))))
    _, trained = jax.jit(tx_of(new).update)(jax.tree.map(np.ones_like, wide), new_state, wide)
    assert jax.tree.structure(trained) == jax.tree.structure(new_state)


def test_an_interrupted_growth_resumes_to_the_same_bits(directory, tmp_path, monkeypatch):
    undisturbed = json.loads((directory / "record.json").read_text())
    append = rounds.append

    def interrupt(directory, row):
        if row["round"] == 2:  # its checkpoint is there, its line is not: the round is done again
            raise KeyboardInterrupt
        append(directory, row)

    monkeypatch.setattr(rounds, "append", interrupt)
    with pytest.raises(KeyboardInterrupt):
        grown(tmp_path, "broken")
    monkeypatch.setattr(rounds, "append", append)
    with pytest.raises(RunError, match="has not finished growing"):
        load_run(tmp_path / "broken")
    _, resumed = grown(tmp_path, "broken")
    assert resumed["digest"] == undisturbed["digest"]
    assert measured(resumed["rounds"]) == measured(undisturbed["rounds"])


def test_after_damage_a_growth_goes_on_from_the_round_before(directory, tmp_path, capsys):
    folder = shutil.copytree(directory, tmp_path / "damaged")
    undisturbed = json.loads((folder / "record.json").read_text())
    (folder / "record.json").unlink()
    last = len(undisturbed["rounds"])
    damage(largest(folder / "checkpoints" / str(last)), "flipped")
    _, resumed = grown(tmp_path, "damaged", compare="parameters")
    told = capsys.readouterr()
    assert f"WARNING: checkpoint {last}" in told.err
    assert f"after round {last - 1}" in told.out
    assert resumed["digest"] == undisturbed["digest"]
    assert measured(resumed["rounds"]) == measured(undisturbed["rounds"])


SETS = ("conv1", "conv2", "dense1")


def rows_of(*accuracies, size=2, used=None, share=1.0, seconds=1.0):
    row = {"widths": dict.fromkeys(SETS, size), "used": dict.fromkeys(SETS, size if used is None else used)}
    row |= {"saturation": dict.fromkeys(SETS, share), "seconds": seconds}
    return [row | {"round": i + 1, "accuracy": accuracy} for i, accuracy in enumerate(accuracies)]


def after(rows, **fields):
    return policy.after(stage.make_stage(dataclasses.replace(SHORT, **fields)), rows)


def test_what_ends_growing():
    assert after(rows_of(0.5))["next"] == {"conv1": 4, "conv2": 4, "dense1": 4}
    assert after(rows_of(0.5, share=0.7))["end"] == "no layer below its cap saturates"
    assert after(rows_of(0.5), caps=(("", 2),))["end"] == "no layer below its cap saturates"
    assert after(rows_of(0.5, share=0.7), tau_of=(("conv", 0.6),))["next"] == {"conv1": 4, "conv2": 4}
    assert after(rows_of(0.4, 0.5), rounds=2)["end"] == "the rounds are used up"
    assert after(rows_of(0.4, 0.5, seconds=31.0), minutes=1.0)["end"] == "the time is used up"
    assert after(rows_of(0.4, 0.5, seconds=29.0), minutes=1.0)["end"] is None
    ended = after(rows_of(0.4, 0.6, 0.5, 0.6), patience=2)
    assert "not improved for 2 rounds" in ended["end"]
    assert ended["take"] == 2


def test_what_is_not_used_goes_and_makes_room():
    cut = after(rows_of(0.5, size=6, used=4, share=4 / 6), widths=(6,))
    assert (cut["next"], cut["end"]) == ({}, None)  # what is left is asked again before it grows
    now = stage.make_stage(dataclasses.replace(SHORT, widths=(6,)))
    full = after(rows_of(0.5, size=6), widths=(6,), macs=now.cost({}).macs)
    assert full["end"] == "the budget is used up"
    row = rows_of(0.5, size=6)[0]
    row["used"], row["saturation"] = row["used"] | {"conv2": 3}, row["saturation"] | {"conv2": 0.5}
    moved = after([row], widths=(6,), macs=now.cost({}).macs)
    assert moved["next"].keys() <= {"conv1", "dense1"}
    assert moved["next"]
    assert now.cost(row["used"] | moved["next"]).macs <= now.cost({}).macs


def test_units_that_are_added_in_vain_end_growing():
    tried = rows_of(0.5, size=6, used=4, share=4 / 6)[0]
    settled = rows_of(0.5, size=4)[0]
    rows = [settled, tried, settled, tried]
    rows = [row | {"round": i + 1, "accuracy": 0.1 * i} for i, row in enumerate(rows)]
    assert after(rows[:3], widths=(4,), rounds=9)["end"] is None
    assert after(rows, widths=(6,), rounds=9)["end"] == "of the units that were added in two rounds none is used"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["parameters", "macs"])
def test_a_budget_is_filled_and_never_exceeded(kind):
    now = stage.make_stage(dataclasses.replace(SHORT, widths=(4,), ratio=1.0))
    least, most = getattr(now.cost({}), kind), getattr(now.cost(dict.fromkeys(now.widths, 8)), kind)
    for budget in np.linspace(least, most, 9).astype(int).tolist():
        decided = after(rows_of(0.5, size=4), widths=(4,), ratio=1.0, **{kind: budget})
        widths = now.widths | decided["next"]
        assert getattr(now.cost(widths), kind) <= budget
        if budget == most:
            assert set(widths.values()) == {8}
        else:  # no unit more fits
            assert all(getattr(now.cost(widths | {n: w + 1}), kind) > budget for n, w in widths.items() if w < 8)
        assert (decided["end"] == "the budget is used up") == (decided["next"] == {})
    rounded = after(rows_of(0.5, size=4), widths=(4,), ratio=1.0, round_to=4, **{kind: (least + most) // 2})["next"]
    assert set(rounded.values()) == {8}
    assert 0 < len(rounded) < 3


def test_a_grown_network_is_cut_and_pruned_like_any_other(directory, capsys):
    run = load_run(directory)
    params, stats, _ = run.at()
    record = json.loads((directory / "record.json").read_text())
    test = run.dataset.test
    answers = np.argmax(run.network.fn(merge_variables(params, stats), run.dataset.normalised(test.inputs)), -1)
    assert np.mean(answers == test.labels) == pytest.approx(record["final"]["test"]["fine-tuned"])
    assert cli.main(["compact", str(directory), "--order", "dual", "--macs", "0.8", "--rounds", "1"]) == 0
    assert cli.main(["prune", str(directory), "--sparsity", "0.5", "--orders", "dual", "magnitude"]) == 0
    assert cli.main(["ticket", str(directory), "--at-epoch", "1"]) == 1
    assert "which has no initial weights to rewind to" in capsys.readouterr().err
    assert cli.main(["report", str(directory), "--output", str(directory / "page.html")]) == 0
    assert "compiling" in (directory / "page.html").read_text()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"parameters": 10}, r"parameters: the budget of 10 is below the \d+ that the network starts with"),
        ({"macs": 10}, "macs: the budget of 10 is below"),
        ({"widths": (1,)}, "a layer of one unit cannot grow; start from 2"),
        ({"widths": (2, 3)}, "one for each of 3 layers, got 2"),
        ({"tau_of": (("convv", 0.5),)}, "tau.*'convv'"),
        ({"caps": (("convv", 5),)}, "caps.*'convv'"),
        ({"caps": (("conv1", 3),), "widths": (4,)}, "caps: 3 for 'conv1' is below the 4 units"),
    ],
)  # fmt: skip
def test_what_cannot_start_is_told_before_a_folder_is_made(tmp_path, fields, message):
    with pytest.raises(RunError, match=message):
        grown(tmp_path, **fields)
    assert not (tmp_path / "a").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": "wrn22_2", "widths": ()}, "model wrn22_2 cannot change widths"),
        ({"model": "resnet20", "widths": ()}, "model resnet20 does not run on wider arrays"),
    ],
)
def test_a_model_that_cannot_be_made_at_other_widths_is_rejected_at_the_start(fields, message):
    with pytest.raises(RunError, match=message):
        policy.check(stage.make_stage(dataclasses.replace(SHORT, dataset="cifar10", **fields)))


def test_a_line_that_a_kill_cut_off_is_not_in_the_way_of_the_next(tmp_path):
    rounds.append(tmp_path, {"round": 1})
    with (tmp_path / "rounds.jsonl").open("a") as file:
        file.write('{"round": 2, "wid')
    assert rounds.rounds(tmp_path) == [{"round": 1}]
    rounds.append(tmp_path, {"round": 2})
    assert rounds.rounds(tmp_path) == [{"round": 1}, {"round": 2}]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tau", 0.0),
        ("step", 0),
        ("rounds", 0),
        ("ratio", -1.0),
        ("minutes", 0.0),
        ("pull", None),
        ("least", 0.0),
        ("candidates", 0),
        ("share", 0.4),
        ("stop", "one_se"),
    ],
)
def test_a_growth_that_is_invalid_is_rejected(field, value):
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(SHORT, **{field: value})


def test_each_command_has_its_own_configurations(capsys):
    assert cli.main(["train", "grow_digits"]) == 2
    assert cli.main(["grow", "digits"]) == 2
    assert "did you mean 'grow_digits'?" in capsys.readouterr().err
    settings = json.loads(json.dumps(dataclasses.replace(SHORT, tau_of=(("conv", 0.5),)).settings()))
    assert Grow.from_settings(settings) == dataclasses.replace(SHORT, tau_of=(("conv", 0.5),))
