"""A configuration from the words of a command line: its fields by their short names, in groups of `--help`."""

import ast
import dataclasses
import inspect
import itertools
import shutil
import textwrap
import typing
from typing import Annotated, Any

import tyro


def configured(kind: type, default: Any, words: list[str], program: str, description: str) -> Any:
    """The default with the fields that the words give; ends the process where they make no sense.

    A group is what a base class of `kind` adds to the fields. Those of `kind.FIXED` are no options.
    """
    if {"-h", "--help"} & set(words):  # tyro would leave it to the terminal to break the lines
        print(_wrapped(description), end="\n\n")
    hints, helps = typing.get_type_hints(kind), _helps(kind)
    parts: dict[type, list[Any]] = {}
    for field in dataclasses.fields(kind):
        part = next(base for base in reversed(kind.__mro__) if field.name in inspect.get_annotations(base))
        if field.name not in getattr(kind, "FIXED", ()):
            option = Annotated[hints[field.name], tyro.conf.arg(help=helps[field.name])]
            parts.setdefault(part, []).append((field.name, option, getattr(default, field.name)))
    groups: list[Any] = []
    for part, options in parts.items():
        group = dataclasses.make_dataclass(part.__name__, options, frozen=True, namespace={"__doc__": part.__doc__})
        groups.append((part.__name__.removesuffix("Options").lower(), tyro.conf.OmitArgPrefixes[group], group()))

    def whole(grouped) -> Any:
        given = {name: value for group in vars(grouped).values() for name, value in vars(group).items()}
        return dataclasses.replace(default, **given)

    # Made within tyro too, so that what the configuration rejects is shown as any other word that makes no sense.
    grouped = dataclasses.make_dataclass(kind.__name__, groups, namespace={"__post_init__": whole})
    return whole(tyro.cli(grouped, args=words, prog=program, description=""))


def _wrapped(text: str) -> str:
    """Paragraphs as wide as the terminal; a command stays on its line."""
    columns = shutil.get_terminal_size().columns
    parts = text.strip().split("\n\n")
    return "\n\n".join(part if part.startswith("python ") else textwrap.fill(part, columns) for part in parts)


def _helps(kind: type) -> dict[str, str]:
    """{field: the string below it}, on one line: tyro would keep the line breaks of the source."""
    found = {}
    for part in (base for base in reversed(kind.__mro__) if dataclasses.is_dataclass(base)):
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(part))).body
        for field, text in itertools.pairwise(tree.body):  # type: ignore  (a class has a body)
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                found[ast.unparse(field.target)] = " ".join(ast.literal_eval(text.value).split())
    return found
