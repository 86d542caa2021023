"""The fields of a configuration as JSON, and whether JSON fits its fields."""

import dataclasses
import math
import types
import typing
from typing import Any, Literal


def plain(config, without: tuple[str, ...]) -> dict[str, Any]:
    """The fields of a configuration as JSON, which has no tuples and no inf."""
    as_list = lambda value: list(map(as_list, value)) if isinstance(value, tuple) else value
    fields = {name: value for name, value in dataclasses.asdict(config).items() if name not in without}
    return {name: None if value == math.inf else as_list(value) for name, value in fields.items()}


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of the type that a field has."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return value in parts
    if origin in (types.UnionType, typing.Union):  # the second where one part is a Literal
        return any(fits(value, part) for part in parts)
    if origin is tuple:
        kinds = parts[:1] * len(value) if parts[-1] is ... and isinstance(value, tuple) else parts
        return isinstance(value, tuple) and len(value) == len(kinds) and all(map(fits, value, kinds))
    return isinstance(value, int | float if hint is float else hint) and isinstance(value, bool) == (hint is bool)
