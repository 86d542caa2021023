"""Whole files or none: JSON, lines of JSON, and names that are still free.

Every object that is written carries a SHA-256 of the rest of it, and every line a CRC-32, so that damage is named where
it is read.
"""

import contextlib
import hashlib
import json
import os
import zlib
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


SEAL, LINE_SEAL = "sha256", "crc32"


def write_json(path: Path, value: dict[str, Any]) -> None:
    """The object, with its seal."""
    value = json.loads(json.dumps(value))  # tuples are lists from here on
    write_whole(path, json.dumps(value | {SEAL: hashlib.sha256(_one_form(value)).hexdigest()}, indent=1) + "\n")


def _one_form(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def read_json(path: Path, shape: Any = object, sealed: bool = True) -> Any:
    """What a file of JSON holds, without its seal.

    Args:
      shape: what is needed of it: a type or several; {name: shape} for an object that has these names, and perhaps
        others; {str: shape} for an object of such values, whatever their names; [shape] for a list of them, [shape,
        shape] for a list of just two.
      sealed: whether the seal is compared; if not, there need not be one.

    Raises:
      RunError: if it is missing, is not JSON, has another shape, or is not what was written.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError) as error:
        reason = "does not exist" if isinstance(error, FileNotFoundError) else f"is not valid JSON ({error})"
        raise RunError(f"{path} {reason}.") from None
    if difference := _difference(value, shape, "its content"):
        raise RunError(f"{path} is damaged, or of another version of the experiments: {difference}.")
    seal = value.pop(SEAL, None) if isinstance(value, dict) else None
    if sealed and seal is None:
        raise RunError(f"{path} is damaged, or of another version of the experiments: it has no {SEAL!r} of its own.")
    if sealed and seal != hashlib.sha256(_one_form(value)).hexdigest():
        raise RunError(
            f"{path} changed after it was written: its SHA-256 is that of other content. Restore it from a copy."
        )
    return value


def _difference(value: Any, shape: Any, name: str) -> str | None:
    """The first part of a value that does not have the shape."""
    kind = {dict: dict, list: list}.get(type(shape), shape)
    if not isinstance(value, kind):
        return f"{name} is {str(value)[:40]!r}"
    if isinstance(shape, dict) and str in shape:
        parts = [(own, shape[str], f"{inner!r} of {name}") for inner, own in value.items()]
    elif isinstance(shape, dict):
        if missing := [inner for inner in shape if inner not in value]:
            return f"{name} has no {missing[0]!r}"
        parts = [(value[inner], shape[inner], f"{inner!r} of {name}") for inner in shape]
    else:
        if isinstance(shape, list) and len(shape) > 1 and len(shape) != len(value):
            return f"{name} has {len(value)} parts instead of {len(shape)}"
        parts = [(inner, shape[0], f"a part of {name}") for inner in value] if isinstance(shape, list) else []
    return next(filter(None, (_difference(*part) for part in parts)), None)


def append_line(path: Path, line: dict) -> None:
    """Adds a line of JSON, after what a kill may have left of the one before is gone."""
    with path.open("a+b") as file:
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        file.write(_sealed_line(line).encode())


def write_lines(path: Path, lines: list[dict]) -> None:
    """Lines of JSON in the place of those that are there, all of them or none."""
    write_whole(path, "".join(map(_sealed_line, lines)))


def _sealed_line(line: dict) -> str:
    line = json.loads(json.dumps(line))
    return json.dumps(line | {LINE_SEAL: _crc(line)}) + "\n"


def _crc(line: dict) -> str:
    return f"{zlib.crc32(_one_form(line)):08x}"


def read_lines(path: Path) -> list[dict]:
    """All lines of JSON; none where there is no file. A line that a kill left unfinished is dropped."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    lines, seals = [], []
    for number, line in enumerate(text[: text.rfind("\n") + 1].splitlines(), start=1):
        try:
            lines.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise RunError(f"line {number} of {path} is not valid JSON ({error}).") from None
        if not isinstance(lines[-1], dict):
            raise RunError(f"line {number} of {path} is damaged: expected an object, got {line[:40]}.")
        seals.append(lines[-1].pop(LINE_SEAL, None))
    for number, (line, seal) in enumerate(zip(lines, seals, strict=True), start=1):
        if seal != _crc(line):
            raise RunError(f"line {number} of {path} is damaged: its CRC-32 is missing, or that of other content.")
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
