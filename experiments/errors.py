"""What ends a command in one sentence."""

import difflib
from collections.abc import Iterable


class RunError(Exception):
    """A run, its folder or its data cannot be used as asked; the message is for the user."""


class StoppedError(Exception):
    """A run that was asked to end and has saved; the message is for the user, `code` what the process exits with."""

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.code = 128 + number  # as shells report a death by that signal


def unknown(kind: str, word: str, known: Iterable[str]) -> str:
    """A sentence about a name that is not there, with the nearest of those that are.

    Examples:
      >>> unknown("command", "trian", ["train", "grow"])
      "unknown command 'trian'; did you mean 'train'? Known: train, grow."
    """
    (near,) = difflib.get_close_matches(word, names := list(known), n=1, cutoff=0)
    return f"unknown {kind} {word!r}; did you mean {near!r}? Known: {', '.join(names)}."
