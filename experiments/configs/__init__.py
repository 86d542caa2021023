"""Configurations by name: one module for each claim, whose docstring gives command, cost and the number to expect."""

import importlib
import pkgutil


def names() -> list[str]:
    """Names of all configurations."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str):
    """The module of a configuration: `.config`, and what to expect in its docstring."""
    return importlib.import_module(f"{__name__}.{name}")
