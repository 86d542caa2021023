"""The folder of a run, and its record.

runs/NAME/config.json     what was asked for; written first
runs/NAME/curve.jsonl     a line a snapshot, and snapshots/ (`snapshots.py`)
runs/NAME/checkpoints/    Orbax: weights and optimizer state
runs/NAME/record.json     configuration, versions, curve, final numbers; written last, so a run with it is finished
"""

import contextlib
import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import jax
import numpy as np

from .config import Config
from .errors import RunError

LOCK = ".lock"


@contextlib.contextmanager
def open_run(name: str, config: Config) -> Iterator[Path]:
    """The folder of this run, and of no other process: a new one, or an unfinished run's with the same settings."""
    directory = config.run_dir or _first_free(Path("runs"), name)
    if directory.exists():
        _check(directory, config)  # before anything is put there
    with locked(directory):
        _check(directory, config)
        write_json(directory / "config.json", config.settings())
        yield directory


def _check(directory: Path, config: Config) -> None:
    if (directory / "record.json").exists():
        raise RunError(f"{directory} holds a finished run; choose another folder by --run-dir.")
    settings_file = directory / "config.json"
    if settings_file.exists():
        before = json.loads(settings_file.read_text())
        now = config.settings()
        if detail := differences(before, now, sorted(before.keys() | now.keys())):
            raise RunError(
                f"{directory} holds an unfinished run with other settings ({detail}); choose another folder."
            )
    elif any(path.name != LOCK for path in directory.iterdir()):
        raise RunError(f"{directory} holds files that are no run of ours; choose another folder by --run-dir.")


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keeps the folder for this process; the system ends the lock with the process, however that dies."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunError(f"another process works in {directory}; wait for it, or choose another folder.") from None
        yield


def _first_free(parent: Path, name: str) -> Path:
    while True:
        directory = free(parent, name)
        with contextlib.suppress(FileExistsError):  # another process may have taken it since
            directory.mkdir(parents=True)
            return directory


def write_json(path: Path, value) -> None:
    write_whole(path, json.dumps(value, indent=1) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Writes a whole file or none."""
    partial = path.with_name(path.name + ".part")
    partial.write_text(text)
    partial.replace(path)


def append_line(path: Path, line: dict) -> None:
    """Adds a line of JSON, after what a kill may have left of the one before is gone."""
    with path.open("a+b") as file:
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        file.write(json.dumps(line).encode() + b"\n")


def write_lines(path: Path, lines: list[dict]) -> None:
    """Lines of JSON in the place of those that are there, all of them or none."""
    write_whole(path, "".join(json.dumps(line) + "\n" for line in lines))


def read_lines(path: Path) -> list[dict]:
    """All lines of JSON; none where there is no file. A line that a kill left unfinished is no line."""
    if not path.exists():
        return []
    text = path.read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def free_file(directory: Path, stem: str) -> Path:
    """STEM.json, or STEM-2.json and so on where that is taken: results are never overwritten."""
    return free(directory, stem, ".json")


def free(folder: Path, stem: str, suffix: str = "") -> Path:
    """The first of STEM, STEM-2, STEM-3 and so on that is not there."""
    number = 1
    while (path := folder / (f"{stem}{suffix}" if number == 1 else f"{stem}-{number}{suffix}")).exists():
        number += 1
    return path


def differences(before: dict, now: dict, names: Iterable[str]) -> str:
    """Of the fields of these names those that changed: "nu 10.0 → 7.0, seed 0 → 1"; empty where none has."""
    changed = [name for name in names if before.get(name) != now.get(name)]
    return ", ".join(f"{name} {before.get(name)!r} → {now.get(name)!r}" for name in changed)


def digest(tree) -> str:
    """SHA-256 over all arrays, with their names, dtypes and shapes."""
    sha = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        array = np.asarray(leaf)
        sha.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()


def environment() -> dict:
    """Where the run took place: commit, versions, devices, processor."""
    packages = ("parsimony", "jax", "jaxlib", "optax", "flax", "numpy")
    return {
        "commit": _commit(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "python": platform.python_version(),
        "devices": [f"{device.platform}:{device.device_kind}" for device in jax.devices()],
        "cpu_count": os.cpu_count(),
    }


def _commit() -> str | None:
    """Commit of the checkout, with a + where it has changes; None outside a checkout."""
    git = lambda *words: subprocess.run(
        ["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
    )
    try:
        return git("rev-parse", "HEAD").stdout.strip() + (
            "+" if git("status", "--porcelain", "--untracked-files=no").stdout else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return None
