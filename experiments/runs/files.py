"""Whole files or none: JSON, lines of JSON, and names that are still free."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from ..errors import RunError


@contextlib.contextmanager
def whole_file(path: Path, shared: bool = False) -> Iterator[IO[bytes]]:
    """A file to write into, which takes the place of `path` when all is written: a reader finds a whole file or none.

    `shared`: other processes may be writing the same file.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.part" if shared else f"{path.name}.part")
    try:
        with partial.open("wb") as file:
            yield file
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_whole(path: Path, text: str) -> None:
    with whole_file(path) as file:
        file.write(text.encode())


def write_json(path: Path, value) -> None:
    write_whole(path, json.dumps(value, indent=1) + "\n")


def read_json(path: Path, shape: Any = object) -> Any:
    """What a file of JSON holds.

    Args:
      shape: what is needed of it: a type or several; {name: shape} for an object that has these names, and perhaps
        others; [shape] for a list of them.

    Raises:
      RunError: if it is missing, is not JSON, or has another shape.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError) as error:
        reason = "does not exist" if isinstance(error, FileNotFoundError) else f"is not valid JSON ({error})"
        raise RunError(f"{path} {reason}.") from None
    if difference := _difference(value, shape, "its content"):
        raise RunError(f"{path} is damaged, or of another version of the experiments: {difference}.")
    return value


def _difference(value: Any, shape: Any, name: str) -> str | None:
    """The first part of a value that does not have the shape."""
    kind = {dict: dict, list: list}.get(type(shape), shape)
    if not isinstance(value, kind):
        return f"{name} is {str(value)[:40]!r}"
    if isinstance(shape, dict):
        if missing := [inner for inner in shape if inner not in value]:
            return f"{name} has no {missing[0]!r}"
        parts = [(value[inner], shape[inner], f"{inner!r} of {name}") for inner in shape]
    else:
        parts = [(inner, shape[0], f"a part of {name}") for inner in value] if isinstance(shape, list) else []
    return next(filter(None, (_difference(*part) for part in parts)), None)


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
    """All lines of JSON; none where there is no file. A line that a kill left unfinished is dropped."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = []
    for number, line in enumerate(text[: text.rfind("\n") + 1].splitlines(), start=1):
        try:
            lines.append(json.loads(line))
        except ValueError as error:
            raise RunError(f"line {number} of {path} is not valid JSON ({error}).") from None
        if not isinstance(lines[-1], dict):
            raise RunError(f"line {number} of {path} is damaged: expected an object, got {line[:40]}.")
    return lines


def free_file(directory: Path, stem: str) -> Path:
    """STEM.json, or STEM-2.json and so on where that is taken: results are never overwritten."""
    return free(directory, stem, ".json")


def free(folder: Path, stem: str, suffix: str = "") -> Path:
    """The first of STEM, STEM-2, STEM-3 and so on that is not there."""
    number = 1
    while (path := folder / (f"{stem}{suffix}" if number == 1 else f"{stem}-{number}{suffix}")).exists():
        number += 1
    return path
