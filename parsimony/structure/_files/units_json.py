"""Units as JSON, and back with everything checked: no file changes what they mean without an error."""

import hashlib
import json
from typing import Any

import numpy as np

from .._unit_set import UnitSet

_FIELDS = ("sets", "fixed", "unknown", "shapes", "dtypes", "inputs")


def write(units) -> str:
    ints = lambda members: {p: {str(a): unit.tolist() for a, unit in axes.items()} for p, axes in members.items()}
    data = {
        "sets": [
            {"name": s.name, "size": s.size, "members": ints(s.members), "reason": s.reason, "makers": s.makers}
            for s in units.sets.values()
        ],
        "fixed": {p: {str(axis): reason for axis, reason in axes.items()} for p, axes in units.fixed.items()},
        "unknown": units.unknown,
        "shapes": {name: list(shape) for name, shape in units.shapes.items()},
        "dtypes": units.dtypes,
        "inputs": units.inputs,
    }
    return json.dumps(data | {"sha256": digest(data)})


def digest(data: dict[str, Any]) -> str:
    """The SHA-256 of what the data say, whatever the white space and the order of the keys of a file."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def loads(text: str) -> Any:
    """JSON in which no key stands twice and no number is NaN or infinite."""

    def unique(pairs):
        if len(found := dict(pairs)) != len(pairs):
            raise ValueError("a key stands twice")
        return found

    def no_number(name):
        raise ValueError(f"{name} is no number of JSON")

    return json.loads(text, object_pairs_hook=unique, parse_constant=no_number)


def read(text: str) -> dict[str, Any]:
    """The fields of `Units`, by name."""
    try:
        data = loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"this is not JSON written by Units.to_json: {error}.") from None
    return checked(data)


def checked(data: Any) -> dict[str, Any]:
    """The same of JSON that has been parsed."""
    try:
        return _fields(data)
    except _FieldError as error:
        raise ValueError(f"this is not JSON written by Units.to_json: {error}.") from None


class _FieldError(ValueError):
    """What is wrong where."""


def expect(condition: bool, where: str, expected: str) -> None:
    if not condition:
        raise _FieldError(f"{where}: expected {expected}")


def is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _object(value: Any, where: str) -> dict[str, Any]:
    expect(isinstance(value, dict), where, f"an object, got {type(value).__name__}")
    return value


def _fields(data: Any) -> dict[str, Any]:
    _object(data, "the whole")
    expect(set(data) == {*_FIELDS, "sha256"}, "the whole", f"the fields {', '.join(_FIELDS)} and sha256")
    shapes = {}
    for name, shape in _object(data["shapes"], "shapes").items():
        sizes = isinstance(shape, list) and all(is_int(n) and 0 <= n < 2**63 for n in shape)
        expect(sizes, f"shapes of {name!r}", "a list of sizes")
        shapes[name] = tuple(shape)
    dtypes = _object(data["dtypes"], "dtypes")
    expect(set(dtypes) == set(shapes), "dtypes", "one for each parameter of shapes")
    for name, dtype in dtypes.items():
        expect(isinstance(dtype, str) and dtype != "", f"dtypes of {name!r}", "the name of a dtype")
    for name, count in _object(data["unknown"], "unknown").items():
        expect(is_int(count) and count > 0, f"unknown {name!r}", "how often it occurs")
    expect(isinstance(data["inputs"], bool), "inputs", "true or false")
    fixed = _by_axis(data["fixed"], shapes, "fixed")
    for name, axes in fixed.items():
        for axis, reason in axes.items():
            expect(isinstance(reason, str) and reason != "", f"fixed {name!r}, axis {axis}", "a reason")
    expect(isinstance(data["sets"], list), "sets", "a list")
    sets = {}
    for place, entry in enumerate(data["sets"]):
        found = _set(entry, shapes, f"sets[{place}]")
        expect(found.name not in sets, f"sets[{place}]", "a name of its own")
        sets[found.name] = found
    # Last, so that what is wrong is named where that can be seen.
    right = digest({field: data[field] for field in _FIELDS})
    expect(data["sha256"] == right, "sha256", "the digest of the rest; the file was changed, or is damaged")
    return {
        "sets": sets, "fixed": fixed, "unknown": data["unknown"], "shapes": shapes, "dtypes": dtypes,
        "inputs": data["inputs"],
    }  # fmt: skip


def _by_axis(value: Any, shapes, where: str) -> dict[str, dict[int, Any]]:
    found: dict[str, dict[int, Any]] = {}
    for name, axes in _object(value, where).items():
        expect(name in shapes, f"{where} {name!r}", "a parameter of shapes")
        known = {str(axis) for axis in range(len(shapes[name]))}
        expect(set(_object(axes, f"{where} {name!r}")) <= known, f"{where} {name!r}", "axes of its shape")
        found[name] = {int(axis): value for axis, value in axes.items()}
    return found


def _set(entry: Any, shapes, where: str) -> UnitSet:
    fields = {"name", "size", "members", "reason", "makers"}
    expect(set(_object(entry, where)) == fields, where, f"the fields {', '.join(sorted(fields))}")
    name, size = entry["name"], entry["size"]
    expect(isinstance(name, str), where, "a name")
    where = f"the set {name!r}"
    expect(is_int(size) and size > 0, where, "how many units there are")
    expect(isinstance(entry["reason"], str), where, 'a reason, or ""')
    members: dict[str, dict[int, np.ndarray]] = {}
    for parameter, axes in _by_axis(entry["members"], shapes, f"{where}, members").items():
        expect(len(axes) > 0, f"{where}, {parameter!r}", "an axis")
        for axis, unit in axes.items():
            place = f"{where}, {parameter!r}, axis {axis}"
            length = shapes[parameter][axis]
            listed = isinstance(unit, list) and len(unit) == length and all(map(is_int, unit))
            expect(listed, place, f"a list of {length} ints")
            # Every unit has a member on every axis of its set: the size is no larger than the lists are long.
            expect(set(unit) - {-1} == set(range(min(size, length + 1))), place, f"the {size} units of the set, or -1")
            members.setdefault(parameter, {})[axis] = np.array(unit, int)
    expect(len(members) > 0, where, "members")
    expect(isinstance(entry["makers"], list), f"{where}, makers", "a list")
    makers = []
    for pair in entry["makers"]:
        expect(isinstance(pair, list) and len(pair) == 2, f"{where}, makers", "pairs of a parameter and an axis")
        parameter, axis = pair
        known = isinstance(parameter, str) and is_int(axis) and axis in members.get(parameter, {})
        expect(known, f"{where}, makers", "members of the set")
        makers.append((parameter, axis))
    expect(len(set(makers)) == len(makers), f"{where}, makers", "each member once")
    return UnitSet(name, size, members, entry["reason"], tuple(makers))
