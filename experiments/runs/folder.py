"""The folder of a run or a comparison: whose it is, and with which settings it was begun.

runs/NAME/config.json     what was asked for; written first
runs/NAME/curve.jsonl     a line a snapshot, and snapshots/ (`snapshots.py`)
runs/NAME/checkpoints/    Orbax: weights and optimizer state
runs/NAME/record.json     configuration, versions, curve, final numbers; written last, so a run with it is finished
"""

import contextlib
import fcntl
import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..config import Config
from ..data.text import source
from ..errors import RunError
from .files import free, read_json, write_json

LOCK = ".lock"


@contextlib.contextmanager
def open_run(name: str, config: Config) -> Iterator[Path]:
    """The folder of this run: a new one, or an unfinished run's with the same settings."""
    directory = config.run_dir or _first_free(Path("runs"), name)
    settings = config.settings() | source(config.dataset)
    with open_folder(directory, settings, "run", finished="record.json"):
        yield directory


@contextlib.contextmanager
def open_folder(
    directory: Path, settings: dict[str, Any], kind: str, *, growing: Sequence[str] = (), finished: str | None = None
) -> Iterator[None]:
    """Keeps a folder for this process and writes its config.json, if it is new or was begun with the same settings.

    Args:
      settings: as JSON.
      kind: what lies in the folder, "run" or "comparison", for the messages.
      growing: settings that may have changed.
      finished: a file with which nothing is left to do in the folder.

    Raises:
      RunError: if the folder holds something else, is finished, or is in use.
    """
    check = functools.partial(_check, directory, settings, kind, growing, finished)
    if directory.exists():
        check()  # before anything is put there
    with locked(directory):
        check()
        write_json(directory / "config.json", settings)
        yield


def _check(directory: Path, settings: dict[str, Any], kind: str, growing: Sequence[str], finished: str | None) -> None:
    if finished and (directory / finished).exists():
        raise RunError(f"{directory} holds a finished {kind}; choose another folder by --run-dir.")
    file = directory / "config.json"
    if file.exists():
        before = read_json(file, dict)
        names = sorted((before.keys() | settings.keys()) - set(growing))
        if detail := differences(before, settings, names):
            raise RunError(
                f"{directory} holds a {kind} with other settings ({detail}); choose another folder by --run-dir."
            )
    elif any(path.name != LOCK for path in directory.iterdir()):
        raise RunError(
            f"{directory} holds files that are not a {kind} written here; choose another folder by --run-dir."
        )


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keeps the folder for this process; the system ends the lock with the process, however that dies."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / LOCK
    try:  # not through a link, and without emptying what is there
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise RunError(f"{path} cannot be used as a lock ({error.strerror}); remove it.") from None
    with open(lock) as file:
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


def differences(before: dict, after: dict, names: Iterable[str]) -> str:
    """Of the fields of these names those that changed: "nu 10.0 → 7.0, seed 0 → 1"; empty where none has."""
    changed = [name for name in names if before.get(name) != after.get(name)]
    return ", ".join(f"{name} {before.get(name)!r} → {after.get(name)!r}" for name in changed)
