"""Runs that are killed, asked to end, damaged or out of space keep what they had and end as undisturbed ones do."""

import gc
import json
import random
import shutil
import signal
import subprocess
import time

import pytest

from experiments import __main__ as cli
from experiments.runs import snapshots
from helpers.processes import WORDS, assert_same, damage, finished, largest, start, wait_for

pytestmark = pytest.mark.slow

KILLS = 2
HERE = ("train", "--epochs", "3", "--checkpoint-every", "1", "--snapshots", "2")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """(record, directory) of a run that nobody interrupts."""
    directory = tmp_path_factory.mktemp("undisturbed") / "run"
    return finished(start(directory)), directory


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """(record, directory) of a shorter run in this process, on its eight devices."""
    directory = tmp_path_factory.mktemp("here") / "run"
    return trained(directory), directory


def trained(directory):
    assert cli.main([*HERE, "--run-dir", str(directory)]) == 0
    return json.loads((directory / "record.json").read_text())


@pytest.fixture
def unfinished(here, tmp_path):
    """A copy of it that lacks its end."""
    folder = shutil.copytree(here[1], tmp_path / "run")
    (folder / "record.json").unlink()
    yield folder
    gc.collect()  # what Orbax leaves behind ends here, not in another test


def test_a_run_killed_twice_ends_as_an_undisturbed_one(undisturbed, tmp_path, capsys):
    """At a moment drawn at random after a snapshot, and while a checkpoint is being written.

    While it lives, no second run works in its folder.
    """
    lot, writing, folder = random.Random(0), 0, tmp_path / "run"
    lines = lambda: len(snapshots.curve(folder))
    half = lambda: list((folder / "checkpoints").glob("*tmp*"))
    for kill in range(KILLS):
        process, before = start(folder, keeps=False), lines()
        wait_for(process, lambda own=before: lines() > own)
        if kill == 0:
            process.send_signal(signal.SIGSTOP)
            assert cli.main([*WORDS, "--run-dir", str(folder)]) == 1
            assert f"another process works in {folder}" in capsys.readouterr().err
            process.send_signal(signal.SIGCONT)
        if kill % 2:
            wait_for(process, half)
        else:
            time.sleep(lot.uniform(0, 0.1))
        process.kill()
        process.communicate()
        assert not (folder / "record.json").exists()
        writing += bool(half())
    assert writing  # in the middle of a checkpoint
    assert_same(undisturbed, (finished(start(folder)), folder))


def test_a_run_that_is_asked_to_end_saves_says_so_and_goes_on_from_there(undisturbed, tmp_path):
    """Twice, by either signal."""
    step, folder = None, tmp_path / "run"
    for number, lines in ((signal.SIGTERM, 3), (signal.SIGINT, 9)):
        process = start(folder, keeps=False)
        wait_for(process, lambda least=lines: len(snapshots.curve(folder)) >= least)
        process.send_signal(number)
        output, errors = process.communicate()
        assert process.returncode == 128 + number
        assert "saved after step" in errors
        assert str(folder) in errors
        assert step is None or f"resuming {folder} after step {step}" in output
        step = int(errors.split("saved after step ")[1].split()[0])
    record = finished(start(folder))
    assert f"resuming {folder} after step {step}" in record["output"]
    assert_same(undisturbed, (record, folder))


# Orbax leaves readers of a file that ends too soon behind, and Python warns of their end.
unfinished_readers = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@unfinished_readers
@pytest.mark.parametrize("how", ["truncated", "flipped"])
def test_a_damaged_checkpoint_is_put_aside_with_a_warning_and_the_one_before_is_used(here, unfinished, how, capsys):
    before, last = sorted((unfinished / "checkpoints").iterdir(), key=lambda path: int(path.name))
    damage(largest(last), how)
    capsys.readouterr()
    record, told = trained(unfinished), capsys.readouterr()
    assert f"WARNING: checkpoint {last.name}" in told.err
    assert (unfinished / "damaged" / last.name).is_dir()
    assert f"after step {before.name}" in told.out
    assert_same(here, (record, unfinished))


@unfinished_readers
def test_without_a_whole_checkpoint_nothing_is_trained_over(unfinished, capsys):
    for checkpoint in (unfinished / "checkpoints").iterdir():
        damage(next((checkpoint / "position").iterdir()), "truncated")
    assert cli.main([*HERE, "--run-dir", str(unfinished)]) == 1
    assert "no checkpoint" in capsys.readouterr().err
    assert len(list((unfinished / "damaged").iterdir())) == 2
    assert len(snapshots.curve(unfinished)) == 6


def test_a_full_disk_is_an_error_that_leaves_the_earlier_checkpoints(undisturbed, tmp_path):
    """A file system of its own, with room for some checkpoints, in a mount namespace of its own."""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs unshare -rm, for a small file system of its own")
    small = tmp_path / "small"
    small.mkdir()
    script = 'mount -t tmpfs -o size=1600k none "$0" && { "$@"; code=$?; cp -r "$0"/run "$0".kept; exit $code; }'
    own = ("unshare", "-rm", "sh", "-c", script, str(small))
    process = start(small / "run", before=own)
    _, errors = process.communicate()
    assert process.returncode == 1, errors
    assert "No space left" in errors
    assert "error: checkpoint " in errors
    kept = tmp_path / "small.kept"
    record = finished(start(kept))
    assert "resuming" in record["output"]
    assert_same(undisturbed, (record, kept))


def test_resuming_with_another_configuration_is_rejected_by_name(unfinished, capsys):
    assert cli.main([*HERE, "--run-dir", str(unfinished), "--nu", "7", "--batch-size", "64"]) == 1
    assert "other settings (batch_size 128 → 64, nu None → 7.0)" in capsys.readouterr().err


@pytest.mark.parametrize("moment", ["loading JAX", "reading digits", "compiling"])
def test_before_the_first_step_ctrl_c_ends_a_run_at_once_with_130(tmp_path, moment):
    process = start(tmp_path / "run", keeps=False)
    assert process.stdout is not None
    while not (line := process.stdout.readline()).startswith(moment):
        assert line, process.communicate()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1] == "interrupted; what was written before is kept"
    assert "Traceback" not in errors
