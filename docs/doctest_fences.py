"""For mkdocstrings: doctests as code blocks. Bare in Markdown, `>>>` would quote three times."""

import re

import griffe

BLOCK = re.compile(r"^>>> .*\n?(?:^(?!\n).+\n?)*", re.M)  # up to the next empty line, as doctest has it


class DoctestFences(griffe.Extension):
    """Puts a fence around the doctests of every docstring."""

    def on_object(self, *, obj: griffe.Object, **kwargs) -> None:
        if obj.docstring:
            obj.docstring.value = BLOCK.sub(lambda found: f"```pycon\n{found[0].rstrip()}\n```\n", obj.docstring.value)
