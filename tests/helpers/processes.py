"""The experiments in processes of their own, as a user starts them, to be killed."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from experiments.runs import snapshots

WORDS = ("train", "--epochs", "12", "--checkpoint-every", "1", "--snapshots", "2")


IMPATIENT = (
    "-c",
    (
        "import sys; from experiments.training import distributed; distributed.HEARTBEAT = 8\n"
        "from experiments.__main__ import main; sys.exit(main(sys.argv[1:]))"
    ),
)
"""The experiments, in which a process counts as dead after 8 seconds and not after 30; JAX waits busily."""


def start(
    directory: Path, *more: str, devices=1, words=WORDS, before=(), program=("-m", "experiments"), keeps: bool = True
) -> subprocess.Popen:
    """A run on simulated devices. It takes what the tests have compiled; what is to be killed must not add to it."""
    environment = {
        **os.environ,
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0" if keeps else "1e9",
    }
    command = [*before, sys.executable, *program, *words, "--run-dir", str(directory), *more]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen) -> dict:
    """Waits for a run that ends well; its record."""
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    directory = next(
        Path(word) for flag, word in zip(process.args, process.args[1:], strict=False) if flag == "--run-dir"
    )
    return json.loads((directory / "record.json").read_text()) | {"output": output, "errors": errors}


def wait_for(process: subprocess.Popen, seen, interval: float = 0.002) -> None:
    """Until `seen()` is true, in a run that is still going on."""
    while not seen():
        assert process.poll() is None, process.communicate()
        time.sleep(interval)


def largest(folder: Path) -> Path:
    """The largest file under a folder."""
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def damage(path: Path, how: str) -> None:
    """Cuts a file in half, or flips the bits of the byte in its middle."""
    data = bytearray(path.read_bytes())
    if how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    else:
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(data)


def assert_same(one: tuple[dict, Path], other: tuple[dict, Path]) -> None:
    """Two runs left the same: weights, V, path record (all in the digest), curve and norms; but for the clock."""
    (record, directory), (other_record, other_directory) = one, other
    assert record["digest"] == other_record["digest"]
    without_clock = lambda own: [{key: x for key, x in line.items() if key != "seconds"} for line in own["curve"]]
    assert without_clock(record) == without_clock(other_record)
    for key in ("sparsity", "penalties", "images", "held_out"):
        assert record[key] == other_record[key]
    for kind in ("gamma", "weight"):
        norms, others = (snapshots.norms(path, kind) for path in (directory, other_directory))
        assert norms.keys() == others.keys()
        for name in norms:
            np.testing.assert_array_equal(norms[name], others[name])
