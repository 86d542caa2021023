"""Every public name says what it does, what it takes and gives, when it refuses, by an example, and where it is from.

Public is what a type checker takes as exported: what a module defines without an underscore, or imports `as` itself.
The doctests themselves are run by pytest (`--doctest-modules`).
"""

import builtins
import dataclasses
import inspect
import re

import pytest

import parsimony as pm
from helpers.public import PUBLIC

# What only reads, counts, holds or stores has no method behind it, and needs no references.
PLAIN = {
    "pm.Rules", "pm.SparsityRow", "pm.SparsitySummary", "pm.apply_masks", "pm.group_norms", "pm.sparsity_summary",
    "pm.structure.Compact", "pm.structure.Counts", "pm.structure.Family", "pm.structure.Grown",
    "pm.structure.UnitSet", "pm.structure.Units", "pm.structure.choose", "pm.structure.count",
    "pm.structure.count_at", "pm.structure.export", "pm.structure.keep_from_masks", "pm.structure.load_compact",
    "pm.structure.load_opt_state", "pm.structure.rank_units", "pm.structure.stopwatch",
}  # fmt: skip


DOCUMENTED = {name: thing for name, thing in PUBLIC.items() if inspect.isroutine(thing) or inspect.isclass(thing)}
METHODS = {
    f"{name}.{method}": function
    for name, thing in DOCUMENTED.items()
    if inspect.isclass(thing) and not hasattr(thing, "prox")  # those of all penalties are told once, in `_penalties`
    for method, function in vars(thing).items()
    if not method.startswith("_")
    and method not in getattr(thing, "_fields", ())
    and (inspect.isroutine(function) or isinstance(function, property | classmethod))
}


def missing(thing, name: str) -> list[str]:
    """What the docstring of a public name lacks."""
    doc = inspect.getdoc(thing) if "__doc__" in vars(thing) or inspect.isroutine(thing) else None
    if not doc or doc.startswith(f"{thing.__name__}("):  # a dataclass without one is given its signature
        return ["a docstring"]
    found = []
    first, *rest = doc.split("\n")
    if not re.search(r"[.:]$", first) or (rest and rest[0]):
        found.append("a summary: one line with a full stop, and an empty line after it")
    if inspect.isclass(thing):
        named = [f.name for f in dataclasses.fields(thing)] if dataclasses.is_dataclass(thing) else []
        takes = [field for field in getattr(thing, "_fields", named) if field[0] != "_"]
    else:
        takes = list(inspect.signature(thing).parameters)
    told = items(doc, "Args") | items(doc, "Attributes")
    found += [f"{name!r} under Args or Attributes" for name in takes if name not in told]
    found += [f"{name!r} to take: it is told of, but not there" for name in told if name not in takes]
    if inspect.isroutine(thing) and not re.search(r"^Returns:\n  \S", doc, re.M):
        found.append("Returns")
    errors = items(doc, "Raises")
    if inspect.isroutine(thing) and not errors:
        found.append("Raises")
    found += [f"an error {e!r} that Python has" for e in errors if not isinstance(getattr(builtins, e, None), type)]
    if not re.search(r"^Examples:\n  >>> ", doc, re.M):
        found.append("Examples, with a doctest")
    if name not in PLAIN and not re.search(r"^References:\n  \S", doc, re.M):
        found.append("References")
    if re.search(r"^(>>>|Source:) ", doc, re.M):
        found.append("its doctest under Examples, and its source under References")
    return found


def items(doc: str, section: str) -> set[str]:
    """The names before the colons of a section: `a, b: text` has two."""
    body = re.search(rf"^{section}:\n((?:  .*\n?|\n(?=  ))*)", doc, re.M)
    heads = re.findall(r"^  (?! )([*\w, ]+):", body[1], re.M) if body else []
    return {name.strip().lstrip("*") for head in heads for name in head.split(",")}


@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_public_name_is_documented(name):
    assert missing(DOCUMENTED[name], name) == []


@pytest.mark.parametrize("name", METHODS)
def test_a_method_of_a_public_class_says_what_it_does(name):
    doc = inspect.getdoc(METHODS[name]) or ""
    assert re.match(r"\S.*[.:;]$", doc.split("\n")[0]), f"{name} has no docstring with a summary line"


def test_a_constant_is_explained_beneath_it():
    assert PUBLIC.keys() - DOCUMENTED.keys() == {"pm.NEVER"}
    lines = inspect.getsource(inspect.getmodule(pm.entry_steps)).splitlines()
    assert lines[lines.index("NEVER = -1") + 1].startswith('"""')


def test_what_needs_no_references_is_there():
    assert PUBLIC.keys() >= PLAIN


def test_the_rules_find_what_is_missing():
    def bare(params, masks):
        pass

    def half(params, masks):
        """Does it

        Args:
          params: W.
          mask: bools.
        """

    def whole(params, *, masks=None):
        """Does it.

        Args:
          params, masks: W, and bools.

        Returns:
          W.

        Raises:
          ValueError: for others.

        Examples:
          >>> 1 + 1
          2

        References:
          None.
        """

    @dataclasses.dataclass
    class Bare:
        field: int

    assert missing(bare, "bare") == ["a docstring"] == missing(Bare, "Bare")
    assert len(missing(half, "half")) == 7  # summary, masks, mask, Returns, Raises, Examples, References
    assert missing(whole, "whole") == []
