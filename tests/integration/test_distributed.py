"""Several processes train as one: the same numbers, one folder, one end."""

import json
import signal
import socket

import jax
import numpy as np
import pytest

from experiments.config import Config
from experiments.errors import RunError
from experiments.runs import snapshots
from experiments.runs.load import load_run
from experiments.training import distributed
from helpers.processes import finished, start, wait_for

pytestmark = pytest.mark.slow

WORDS = ("train", "--epochs", "2", "--drops")
LONG = ("train", "--epochs", "200", "--drops", "--checkpoint-every", "1")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Programs compiled once for all."""
    return tmp_path_factory.mktemp("compiled")


def pair(directory, words, compiled):
    """Two processes of two devices each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    together = ("--coordinator", address, "--processes", "2", "--process")
    return [start(directory, *together, number, devices=2, words=words, compiled=compiled) for number in ("0", "1")]


def test_two_processes_of_two_devices_train_as_one_of_four(tmp_path, compiled):
    """20 steps: weights, V, the path record, Γ and the curve."""
    first, second = pair(tmp_path / "two", WORDS, compiled)
    together = finished(first)
    output, errors = second.communicate()
    assert second.returncode == 0, errors
    assert "epoch" not in output  # one of them speaks
    alone = finished(start(tmp_path / "one", devices=4, words=WORDS, compiled=compiled))
    assert together["curve"][-1]["step"] == 20
    assert len(together["devices"]) == len(alone["devices"]) == 4
    one, two = (load_run(tmp_path / name).at() for name in ("one", "two"))
    assert jax.tree.structure(one) == jax.tree.structure(two)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), one, two)
    for line, other in zip(together["curve"], alone["curve"], strict=True):
        assert line["groups"] == other["groups"]
        assert line["loss"] == pytest.approx(other["loss"], rel=1e-6)


def test_when_a_process_dies_the_other_ends_and_a_restart_resumes(tmp_path, compiled):
    """By however many processes: here by one."""
    first, second = pair(tmp_path / "run", LONG, compiled)
    wait_for(first, lambda: len(snapshots.curve(tmp_path / "run")) >= 3)
    second.kill()
    second.communicate()
    first.communicate(timeout=60 + distributed.HEARTBEAT)
    assert first.returncode != 0
    alone = start(tmp_path / "run", devices=4, words=LONG, compiled=compiled)
    wait_for(alone, lambda: len(snapshots.curve(tmp_path / "run")) >= 6)
    alone.send_signal(signal.SIGTERM)
    output, _ = alone.communicate()
    assert alone.returncode == 128 + signal.SIGTERM
    assert "resuming" in output
    steps = [line["step"] for line in snapshots.curve(tmp_path / "run")]
    assert steps == sorted(set(steps))
    assert json.loads((tmp_path / "run" / "config.json").read_text())["epochs"] == 200


def test_one_of_two_that_is_asked_to_end_ends_both_with_a_checkpoint(tmp_path, compiled):
    processes = pair(tmp_path / "run", LONG, compiled)
    wait_for(processes[0], lambda: len(snapshots.curve(tmp_path / "run")) >= 2)
    processes[1].send_signal(signal.SIGTERM)
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [128 + signal.SIGTERM] * 2, errors
    step = int(errors[0].split("saved after step ")[1].split()[0])
    assert load_run(tmp_path / "run").saved[-1] == step


def test_an_error_of_the_first_process_is_everybodys(tmp_path, compiled):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("mine")
    for process in pair(tmp_path / "run", WORDS, compiled):
        _, errors = process.communicate()
        assert process.returncode == 1
        assert "holds files that are not a run written here" in errors
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.tex"]


def test_half_a_description_of_the_processes_is_rejected():
    with pytest.raises(RunError, match=r"--processes alone does not say .* --coordinator ADDRESS:PORT"):
        distributed.join(Config(processes=2))
