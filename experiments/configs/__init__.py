"""Configurations by name: one module for each claim, whose docstring gives command, cost and the number to expect."""

import importlib
import pkgutil


def names(kind: type | None = None) -> list[str]:
    """Names of all configurations, or of those of one kind: Config for `train`, Grow for `grow`."""
    found = sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))
    return [name for name in found if kind is None or type(load(name).config) is kind]


def load(name: str):
    """The module of a configuration: `.config`, and what to expect in its docstring."""
    return importlib.import_module(f"{__name__}.{name}")
