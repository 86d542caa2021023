"""Several processes train as one: the same numbers, one folder, one end."""

import json
import shutil
import signal
import socket
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.config import Config
from experiments.errors import RunError
from experiments.runs import snapshots
from experiments.runs.load import load_run
from experiments.training import distributed, native_errors
from helpers.processes import IMPATIENT, finished, start, wait_for

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
WORDS = ("train", "--epochs", "2", "--drops")
LONG = ("train", "--epochs", "200", "--drops", "--checkpoint-every", "1")


def pair(directory, words, of_second=None, **of_both):
    """Two processes of two devices each; `of_both`: what `start` gets besides, `of_second`: what for the second."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    together = ("--coordinator", address, "--processes", "2", "--process")
    of_both |= {"devices": 2, "words": words}
    return [
        start(directory, *together, "0", **of_both),
        start(directory, *together, "1", **of_both | (of_second or {})),
    ]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """20 steps of one process of four devices: its folder and its record."""
    folder = tmp_path_factory.mktemp("alone") / "one"
    return folder, finished(start(folder, devices=4, words=WORDS))


@pytest.mark.parametrize("way", ["pmap", "fsdp"])
def test_two_processes_of_two_devices_train_as_one_of_four(tmp_path, alone, way):
    """By whatever way: weights, V, the path record, Γ and the curve."""
    first, second = pair(tmp_path, (*WORDS, "--parallel", way))
    together = finished(first)
    output, errors = second.communicate()
    assert second.returncode == 0, errors
    assert "epoch" not in output  # one of them speaks
    folder, record = alone
    assert together["curve"][-1]["step"] == 20
    assert len(together["devices"]) == len(record["devices"]) == 4
    one, two = (load_run(path).at() for path in (folder, tmp_path))
    assert jax.tree.structure(one) == jax.tree.structure(two)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), one, two)
    for line, other in zip(together["curve"], record["curve"], strict=True):
        assert line["groups"] == other["groups"]
        assert line["loss"] == pytest.approx(other["loss"], rel=1e-6)


def test_when_a_process_dies_the_other_ends_and_a_restart_resumes(tmp_path):
    """By however many processes: here by one."""
    first, second = pair(tmp_path / "run", LONG, program=IMPATIENT)
    wait_for(first, lambda: len(snapshots.curve(tmp_path / "run")) >= 3)
    second.kill()
    second.communicate()
    _, errors = first.communicate(timeout=60 + distributed.HEARTBEAT)
    assert first.returncode != 0
    assert errors.strip() == native_errors.SENTENCE
    alone = start(tmp_path / "run", devices=4, words=LONG)
    wait_for(alone, lambda: len(snapshots.curve(tmp_path / "run")) >= 6)
    alone.send_signal(signal.SIGTERM)
    output, _ = alone.communicate()
    assert alone.returncode == 128 + signal.SIGTERM
    assert "resuming" in output
    steps = [line["step"] for line in snapshots.curve(tmp_path / "run")]
    assert steps == sorted(set(steps))
    assert json.loads((tmp_path / "run" / "config.json").read_text())["epochs"] == 200


def test_one_of_two_that_is_asked_to_end_ends_both_with_a_checkpoint(tmp_path):
    processes = pair(tmp_path / "run", LONG)
    wait_for(processes[0], lambda: len(snapshots.curve(tmp_path / "run")) >= 2)
    processes[1].send_signal(signal.SIGTERM)
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [128 + signal.SIGTERM] * 2, errors
    step = int(errors[0].split("saved after step ")[1].split()[0])
    assert load_run(tmp_path / "run").saved[-1] == step


def test_an_error_of_the_first_process_is_everybodys(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("mine")
    for process in pair(tmp_path / "run", WORDS):
        _, errors = process.communicate()
        assert process.returncode == 1
        assert "holds files that are not a run written here" in errors
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("what", ["code", "configuration"])
def test_processes_of_other_code_or_another_configuration_end_all_of_them(tmp_path, what):
    of_second: dict = {"words": (*WORDS, "--nu", "20")}
    if what == "code":  # one comment more
        for package in ("parsimony", "experiments"):
            shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
        with (tmp_path / "experiments" / "errors.py").open("a") as file:
            file.write("# mine\n")
        of_second = {"before": ("env", "-C", str(tmp_path))}
    for process in pair(tmp_path / "run", WORDS, of_second):
        _, errors = process.communicate()
        assert process.returncode == 1, errors
        assert f"process 1 of 2 was started with another {what} than process 0" in errors
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere 127.0.0.2 is no address of the machine")
def test_the_first_process_listens_only_where_it_is_told_to(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    together = ("--coordinator", f"127.0.0.1:{port}", "--processes", "2", "--process", "0")
    process = start(tmp_path / "run", *together, words=WORDS)

    def listens(address: str) -> bool:
        with socket.socket() as other:
            return other.connect_ex((address, port)) == 0

    wait_for(process, lambda: listens("127.0.0.1"), interval=0.1)
    assert not listens("127.0.0.2")
    process.kill()
    process.communicate()


def test_half_a_description_of_the_processes_is_rejected():
    with pytest.raises(RunError, match=r"--processes alone does not say .* --coordinator ADDRESS:PORT"):
        distributed.join(Config(processes=2))
