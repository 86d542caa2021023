"""Drawn at random: hyper-parameters that cannot be, and damage to every file that is read. Nothing passes in silence.

`pytest tests/integration/test_fuzz.py --fuzz 5000` tries more; the draws are those of a seed.

What may follow is an error of ours that names the place, or what would have been without the damage; a number that was
accepted gives finite steps.
"""

import inspect
import json
import shutil
import traceback
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import experiments
import parsimony as pm
from experiments.config import Config
from experiments.errors import RunError
from experiments.runs import results, snapshots
from experiments.runs.digest import check_files, files_digest
from experiments.runs.files import read_json, write_json
from experiments.runs.load import read_config
from experiments.training.checkpoints import latest, open_checkpoints, restore, save
from helpers.mutations import damaged, mutant

OURS = tuple(str(Path(module.__file__).parent) for module in (pm, experiments))
PARAMS = {"w1": jnp.arange(24.0).reshape(4, 6) / 24 + 0.1, "b1": jnp.full(6, 0.5), "w2": jnp.ones((6, 3))}
MASKS = jax.tree.map(lambda w: w > 0.5, PARAMS)
X = jnp.ones((2, 4))
UNITS = pm.structure.find_units(lambda p, x: jax.nn.relu(x @ p["w1"] + p["b1"][None]) @ p["w2"], PARAMS, X)
STATE = pm.record_path(pm.split_lbi(0.1, penalty=pm.GroupLasso(-1))).init(PARAMS)
ODD = [
    None, True, False, 0, 1, -1, 2, 7, 2**40, 0.0, -0.0, 0.1, 0.5, 1.0, 1.5, -0.5, 1e-300, 1e300, 1e-40, 3.4e38, np.nan,
    np.inf, -np.inf, "", "x", "0.1", "layer", "entry", "float16", "int8", b"x", (), (0,), (1, 1), (-1, -1), (9,), [],
    [0.1], {}, {"w1": 1}, {"w1": True}, {"": 2}, {"x": 0.5}, np.float32(0.1), np.float64(np.nan), np.zeros(2),
    np.ones(()), np.ones((1, 1)), np.array(-1.0), np.array("x"), jnp.float32(0.5), jnp.array([0.1, 0.2]), 1j, object,
    object(), pm.Lasso, pm.Lasso(0.1), pm.GroupLasso(3), pm.Rules([("w", pm.Lasso())]), optax.sgd(0.1), optax.sgd,
    lambda count: 0.1, lambda count: -0.1, lambda count: np.nan, lambda count: None, lambda: 0.1, PARAMS, MASKS,
    STATE, UNITS, jnp.zeros(()),
]  # fmt: skip
TRANSFORMATIONS = {
    "inverse_scale_space": (pm.inverse_scale_space, {"learning_rate": 0.1}),
    "split_lbi": (pm.split_lbi, {"learning_rate": 0.1}),
    "linbreg": (pm.linbreg, {"learning_rate": 0.1}),
    "adabreg": (pm.adabreg, {"learning_rate": 0.1}),
    "rda": (pm.rda, {"learning_rate": 0.1}),
    "prox_sgd": (pm.prox_sgd, {"learning_rate": 0.1}),
    "keep_support": (pm.keep_support, {"tx": optax.sgd(0.1), "masks": MASKS}),
    "record_path": (pm.record_path, {"tx": pm.split_lbi(0.1)}),
}
PENALTIES = {
    "Lasso": (pm.Lasso, {}),
    "GroupLasso": (pm.GroupLasso, {}),
    "SparseGroupLasso": (pm.SparseGroupLasso, {}),
    "BlockLasso": (pm.BlockLasso, {}),
    "NuclearNorm": (pm.NuclearNorm, {}),
    "Rules": (pm.Rules, {"rules": [("w", pm.Lasso())]}),
    "unit_penalty": (pm.structure.unit_penalty, {"units": UNITS}),
}
FUNCTIONS = {
    "pace": (pm.pace, {"learning_rate": 0.1, "steps": 100, "sparsity": 0.5}),
    "path_speed": (pm.path_speed, {"params": PARAMS, "steps": 100, "learning_rate": 0.1}),
    "select": (pm.select, {"params": PARAMS, "opt_state": STATE, "sparsity": 0.5}),
    "rank": (pm.rank, {"params": PARAMS, "opt_state": STATE}),
    "apply_masks": (pm.apply_masks, {"params": PARAMS, "masks": MASKS}),
    "choose": (pm.structure.choose, {"units": UNITS, "params": PARAMS, "opt_state": STATE, "sparsity": 0.5}),
    "keep_from_masks": (pm.structure.keep_from_masks, {"units": UNITS, "masks": {"w1": MASKS["w1"]}}),
    "compact": (pm.structure.compact, {"units": UNITS, "keep": {"w1": np.arange(6) < 3}, "params": PARAMS}),
    "next_widths": (pm.structure.next_widths, {"units": UNITS, "shares": {"w1": 1.0}}),
    "count_at": (pm.structure.count_at, {"units": UNITS, "widths": {"w1": 3}, "params": PARAMS}),
    "max_learning_rate": (pm.theory.max_learning_rate, {"lipschitz": 1.0}),
}


def told(error: Exception) -> bool:
    """Whether an error is one of ours: raised in our code, of a kind for callers, with words."""
    frames = traceback.extract_tb(error.__traceback__)
    return isinstance(error, TypeError | ValueError) and frames[-1].filename.startswith(OURS) and len(str(error)) > 20


def outcome(read, kind: type[Exception]):
    """(what was read, "") or (None, the message of the error)."""
    try:
        return read(), ""
    except kind as error:
        return None, str(error)


def stepped(tx) -> None:
    """Three steps, which must be finite."""
    params, state = PARAMS, tx.init(PARAMS)
    for _ in range(3):
        updates, state = tx.update(jax.tree.map(jnp.ones_like, params), state, params)
        params = optax.apply_updates(params, updates)
    for leaf in jax.tree.leaves((params, state)):
        assert not jnp.issubdtype(leaf.dtype, jnp.inexact) or jnp.isfinite(leaf).all(), "steps that are not finite"


def use_of(kind: str):
    """What is done with what a function gave."""
    penalised = lambda penalty: stepped(pm.split_lbi(0.1, nu=0.5, penalty=penalty))
    return {"transformation": stepped, "penalty": penalised, "function": lambda result: None}[kind]


TABLES = {"transformation": TRANSFORMATIONS, "penalty": PENALTIES, "function": FUNCTIONS}
CALLS = [(kind, name) for kind, table in TABLES.items() for name in table]


@pytest.mark.parametrize(("kind", "name"), CALLS, ids=[name for _, name in CALLS])
def test_odd_arguments_are_told_or_work(fuzz, kind, name):
    function, arguments = TABLES[kind][name]
    rng, names = np.random.default_rng(sum(map(ord, name))), list(inspect.signature(function).parameters)
    for _ in range(max(2, fuzz // (5 if kind == "function" else 12))):
        own, value = names[rng.integers(len(names))], ODD[rng.integers(len(ODD))]
        try:
            use_of(kind)(function(**(arguments | {own: value})))
        except Exception as error:
            if not told(error):
                raise AssertionError(f"{name}({own}={value!r}): {type(error).__name__}: {error}") from error


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """What a training leaves, but for the training."""
    folder = tmp_path_factory.mktemp("runs") / "a"
    folder.mkdir()
    write_json(folder / "config.json", Config(epochs=2, drops=(0.5,)).settings())
    for step in (1, 2):
        line = {"step": step, "epoch": step, "epoch_end": True, "time": 0.1 * step, "accuracy": 0.5, "loss": 2.3}
        params = {"kernel": jnp.ones((2, 3))}
        state = pm.split_lbi(0.1).init(params)
        snapshots.append(folder, line | {"sparse_accuracy": 0.25} | snapshots.density(state), params, state, 100)
    with open_checkpoints(folder, writing=True) as checkpoints:
        for step in (1, 2):
            save(checkpoints, step, weights_of(step), {"step": step, "losses": [0.5, 0.25]})
    point = {"epoch": 1, "time": 0.1, "total_density": 0.1, "accuracy": 0.9, "sparse_accuracy": 0.8, "groups": {"w": 1}}
    write_json(folder / "stop.json", {"rule": "stable", "sparsity": 0.9, "point": point})
    where = dict.fromkeys(results.WHERE, "x")
    final = {"test_accuracy": 0.9, "test_sparse_accuracy": 0.8, "seconds": 1.5}
    curve = snapshots.curve(folder)
    write_json(folder / "record.json", {"final": final, "curve": curve, "files": files_digest(folder), **where})
    return folder


def weights_of(step: int):
    params = {"kernel": jnp.arange(6.0).reshape(2, 3) + step}
    return params, {"mean": jnp.ones(3) * step}, pm.split_lbi(0.1, momentum=0.9).init(params)


READERS = {
    "config.json": lambda folder: read_config(folder),
    "record.json": lambda folder: (check_files(folder), read_json(folder / "record.json", results.TRAINED))[1],
    "curve.jsonl": lambda folder: snapshots.curve(folder),
    "stop.json": lambda folder: results.of(folder, "stop"),
}


@pytest.mark.parametrize(
    ("name", "finished"), [(name, finished) for name in READERS for finished in {True, name == "record.json"}]
)
def test_a_damaged_file_of_a_run_is_told_or_says_the_same(fuzz, name, finished, run_folder, tmp_path):
    """JSON in which something was changed, removed or mistyped, flipped bits, ends that are missing."""
    folder = shutil.copytree(run_folder, tmp_path / "a")
    if not finished:
        (folder / "record.json").unlink()
    file = folder / name
    whole, content, rng = READERS[name](folder), file.read_bytes(), np.random.default_rng(3)
    lines = content.splitlines(keepends=True)
    for number in range(fuzz):
        if number % 2:
            changed = damaged(content, rng)
        elif name.endswith("l"):
            changed = json.dumps(mutant(json.loads(lines[0]), rng)).encode() + b"\n" + b"".join(lines[1:])
        else:
            changed = json.dumps(mutant(json.loads(content), rng)).encode()
        file.write_bytes(changed)
        found, message = outcome(lambda: READERS[name](folder), RunError)
        if message:
            assert "\n" not in message
            continue
        if name == "curve.jsonl":  # lines that are whole and come first are what a kill leaves
            assert found == whole[: len(found)], changed
        else:
            assert found == whole, changed


def test_a_damaged_checkpoint_is_told_or_is_the_same(fuzz, run_folder, tmp_path):
    """Each file of it: bits, bytes and lengths; where the last one is damaged the one before is used."""
    files = sorted(path.relative_to(run_folder) for path in (run_folder / "checkpoints/2").rglob("*") if path.is_file())
    whole, rng, fell_back = weights_of(2), np.random.default_rng(4), 0
    folder = shutil.copytree(run_folder, tmp_path / "a")
    for number in range(max(len(files), fuzz // 4)):
        file = files[number % len(files)]
        content = (run_folder / file).read_bytes()
        (folder / file).write_bytes(damaged(content, rng) if content else b"x")
        with open_checkpoints(folder) as checkpoints:
            read, message = outcome(lambda own=checkpoints: restore(own, 2, whole), RunError)
        if message:
            assert message.startswith("checkpoint 2 in ")
            fell_back += 1
        else:
            assert read[1] == {"step": 2, "losses": [0.5, 0.25]}
            jax.tree.map(np.testing.assert_array_equal, read[0], whole)
        (folder / file).write_bytes(content)
    assert fell_back
    (folder / files[-1]).write_bytes(b"")
    with open_checkpoints(folder, writing=True) as checkpoints:
        number, _, position = latest(checkpoints, folder, lambda number: whole)
    assert number == position["step"]


def test_a_damaged_export_is_told_or_computes_the_same(fuzz, tmp_path):
    """All four files of it, cut, doubled, overwritten; `test_damaged_files` has its JSON."""
    keep = {"w1": np.arange(6) % 2 == 0}
    small = pm.structure.compact(UNITS, keep, PARAMS, optax.trace(0.9).init(PARAMS))
    folder = pm.structure.export(small, tmp_path / "model", X, platforms=("cpu",))
    fn, params = pm.structure.load_compact(folder)
    whole, like, rng = fn(params, X), optax.trace(0.9).init(params), np.random.default_rng(5)
    files = sorted(folder.iterdir())
    for number in range(max(8, fuzz // 2)):
        file = files[number % len(files)]
        content = file.read_bytes()
        file.write_bytes(damaged(content, rng))
        read = lambda: (pm.structure.load_compact(folder), pm.structure.load_opt_state(folder, like))[0]
        found, message = outcome(read, ValueError)
        if message:
            assert file.name in message
        else:
            np.testing.assert_array_equal(found[0](found[1], X), whole)
        file.write_bytes(content)


def test_the_units_of_damaged_text_are_told_or_the_same(fuzz):
    text, rng = UNITS.to_json(), np.random.default_rng(6)
    for _ in range(fuzz):
        changed = damaged(text.encode(), rng).decode(errors="replace")
        found, message = outcome(lambda changed=changed: pm.structure.Units.from_json(changed), ValueError)
        assert message.startswith("this is not JSON written by Units.to_json: ") or found.to_json() == text
