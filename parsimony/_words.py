"""Words and names that a user may hand over, and how an error speaks of them."""

import difflib
import re
from collections.abc import Iterable
from typing import Any


def shown(value: Any) -> str:
    """A value in a message: as Python writes it where that is short, else its type."""
    return repr(value) if isinstance(value, str | int | float | type) or value is None else f"a {type(value).__name__}"


def nearest(word: Any, known: Iterable[str]) -> str:
    """'; did you mean ...?' with the known word nearest to this one; empty where none is known."""
    near = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0)
    return f"; did you mean {near[0]!r}?" if near else ""


def listed(names: Iterable[str]) -> str:
    """The first twelve names, and how many more there are."""
    names = list(names)
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def one_of(name: str, value, known: tuple[str, ...]) -> None:
    """Rejects a word that is not one of these."""
    if value not in known:
        raise ValueError(f"{name}={value!r}: expected one of {', '.join(known)}{nearest(value, known)}")


def check_patterns(where: str, patterns: Iterable[str], names: list[str]) -> None:
    """Rejects a pattern that matches no name."""
    if not names:  # Optax initialises on a placeholder without leaves (optax.tree.map_params)
        return
    for pattern in patterns:
        if not any(re.search(pattern, name) for name in names):
            raise ValueError(
                f"{where}: pattern {pattern!r} matches no name{nearest(pattern, names)} The names: {listed(names)}."
            )


def check_words(name: str, value, what: str) -> None:
    """Rejects anything but a list or tuple of strings."""
    if not isinstance(value, list | tuple) or not all(isinstance(word, str) for word in value):
        example = f", such as [{value!r}]" if isinstance(value, str) else ""
        raise TypeError(f"{name}={shown(value)}: expected a list of {what}{example}.")


def check_protect(protect, names: list[str]) -> None:
    """Rejects anything but a list of patterns, each found in one of these names."""
    check_words("protect", protect, "regular expressions")
    check_patterns("protect", protect, names)
