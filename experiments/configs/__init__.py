"""Configurations by name: one module for each claim, whose docstring gives command, cost and the number to expect.

The folder is the kind: `train/`, `grow/`, `compare/`.
"""

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType


def names(kind: str) -> list[str]:
    """Names of the configurations of a command."""
    modules = pkgutil.iter_modules([str(Path(__file__).parent / kind)])
    return sorted(module.name for module in modules if not module.name.startswith("_"))


def load(kind: str, name: str) -> ModuleType:
    """The module of a configuration: `.config`, and what to expect in its docstring."""
    return importlib.import_module(f"{__name__}.{kind}.{name}")
