"""The folder of a run, and its record.

runs/NAME/config.json     what was asked for; written first
runs/NAME/curve.jsonl     a line a snapshot, and snapshots/ (`snapshots.py`)
runs/NAME/checkpoints/    Orbax: weights and optimizer state
runs/NAME/record.json     configuration, versions, curve, final numbers; written last, so a run with it is finished
"""

import contextlib
import fcntl
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..config import Config
from ..errors import RunError
from .files import free, write_json

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


def differences(before: dict, now: dict, names: Iterable[str]) -> str:
    """Of the fields of these names those that changed: "nu 10.0 → 7.0, seed 0 → 1"; empty where none has."""
    changed = [name for name in names if before.get(name) != now.get(name)]
    return ", ".join(f"{name} {before.get(name)!r} → {now.get(name)!r}" for name in changed)
