"""`model.json`: what an exported model is made of, with everything checked where it is read."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from .._units import Units
from . import units_json
from .units_json import expect, is_int

FORMAT = 2
FILES = ("params.safetensors", "model.stablehlo", "opt_state.safetensors")
_FIELDS = (
    "format", "parsimony", "jax", "route", "batch", "derivative", "arguments", "parameters", "random_keys", "keep",
    "units", "sha256",
)  # fmt: skip


def write(data: dict[str, Any]) -> bytes:
    """The JSON, with a digest of what it says."""
    data = json.loads(json.dumps(data))  # tuples are lists from here on
    return json.dumps(data | {"digest": units_json.digest(data)}, indent=1).encode()


def read(path: Path) -> tuple[dict[str, Any], Units, dict[str, np.ndarray]]:
    """The fields of PATH/model.json, its units, and {set: bool for each unit} of what was kept.

    Raises:
      FileNotFoundError: there is none.
      ValueError: one that `write` did not write, or of another format.
    """
    file = path / "model.json"
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: expected a folder that pm.structure.export wrote.")
    try:
        data = units_json.loads(file.read_text(encoding="utf-8"))
        expect(isinstance(data, dict) and is_int(data.get("format")), "the whole", "an object with a format")
        if data["format"] != FORMAT:
            version = f"{file} has format {data['format']}; this version of parsimony reads {FORMAT}."
            raise NotImplementedError(version)
        return _checked(data)
    except NotImplementedError as error:
        raise ValueError(str(error)) from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is damaged: {error}") from None


def content(path: Path, data: dict[str, Any], name: str) -> bytes:
    """A file of the model, checked by its digest."""
    if not (path / name).is_file():
        raise FileNotFoundError(f"{path / name} is missing: the folder is incomplete. Export the model again.")
    found = (path / name).read_bytes()
    if hashlib.sha256(found).hexdigest() != data["sha256"][name]:
        raise ValueError(f"{path / name} is damaged: its SHA-256 is not the one in model.json. Export the model again.")
    return found


def _checked(data: dict[str, Any]) -> tuple[dict[str, Any], Units, dict[str, np.ndarray]]:
    expect(set(data) == {*_FIELDS, "digest"}, "the whole", f"the fields {', '.join(_FIELDS)} and digest")
    for field in ("parsimony", "jax", "derivative"):
        expect(isinstance(data[field], str), field, "a string")
    for field, known in (("route", ("module", "jaxpr")), ("batch", ("any", "fixed"))):
        expect(data[field] in known, field, f"one of {', '.join(known)}")
    expect(isinstance(data["arguments"], list), "arguments", "a list")
    for entry in data["arguments"]:
        shaped = (
            isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], list) and all(map(is_int, entry[0]))
        )
        expect(shaped and isinstance(entry[1], str), "arguments", "pairs of a shape and a dtype")
    files = data["sha256"]
    expect(isinstance(files, dict) and set(FILES[:2]) <= set(files) <= set(FILES), "sha256", f"{', '.join(FILES)}")
    for name, digest in files.items():
        hexadecimal = isinstance(digest, str) and len(digest) == 64 and set(digest) <= set("0123456789abcdef")
        expect(hexadecimal, f"sha256 of {name}", "64 hexadecimal digits")
    units = Units(**units_json.checked(data["units"]))
    names = _parameters(data["parameters"])
    expect(set(names) == set(units.shapes), "parameters", "those that the units were found in")
    random = data["random_keys"]
    expect(isinstance(random, dict) and set(random) == {"params", "opt_state"}, "random_keys", "params and opt_state")
    for tree, keys in random.items():
        known = isinstance(keys, dict) and all(isinstance(kind, str) for kind in keys.values())
        expect(known, f"random_keys of {tree}", "the implementation of each")
    expect(set(random["params"]) <= set(names), "random_keys of params", "names of parameters")
    keep = _keep(data["keep"], units)
    right = units_json.digest({field: data[field] for field in _FIELDS})
    expect(data["digest"] == right, "digest", "that of the rest; the file was changed, or is damaged")
    return data, units, keep


def _parameters(value: Any) -> list[str]:
    expect(isinstance(value, list) and len(value) > 0, "parameters", "a list")
    names = []
    for entry in value:
        pair = isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str) and isinstance(entry[1], list)
        expect(pair, "parameters", "pairs of a name and the steps to it")
        for step in entry[1]:
            known = isinstance(step, list) and len(step) == 2 and step[0] in ("key", "index")
            number = known and is_int(step[1])
            word = known and step[0] == "key" and isinstance(step[1], str)
            expect(number or word, f"parameters, {entry[0]!r}", "steps such as ['key', 'kernel'] or ['index', 0]")
        names.append(entry[0])
    expect(len(set(names)) == len(names), "parameters", "names that differ")
    return names


def _keep(value: Any, units: Units) -> dict[str, np.ndarray]:
    expect(isinstance(value, dict), "keep", "an object")
    masks = {}
    for name, kept in value.items():
        expect(name in units.sets, f"keep of {name!r}", "a set of the units")
        size = units.sets[name].size
        rising = isinstance(kept, list) and all(map(is_int, kept)) and kept == sorted(set(kept))
        expect(rising and all(0 <= unit < size for unit in kept), f"keep of {name!r}", "units of the set")
        masks[name] = np.isin(np.arange(size), kept)
    return masks


def shapes_left(units: Units, keep: dict[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    """The shape of each parameter without the removed units."""
    removed = units.removed(keep)
    left = lambda name, axis, n: int((~removed[name][axis]).sum()) if axis in removed.get(name, {}) else n
    shapes = units.shapes.items()
    return {name: tuple(left(name, axis, n) for axis, n in enumerate(shape)) for name, shape in shapes}
