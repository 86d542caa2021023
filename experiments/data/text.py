"""Text as pieces of equal length: the topics of Python's own `help()`, which every Python has in `pydoc_data.topics`.

They are the chapters of the language reference as plain text. Some hold what others do, so each paragraph is taken
once, where it comes first: what is held out does not occur in what is trained on. Every Python has its own: of 3.11.7
there are 373,375 characters. Results belong to a text, so that runs record its digest.
"""

import functools
import hashlib
from typing import Any

import numpy as np

from ..config import TEXTS
from ..errors import RunError
from .dataset import Split

ALPHABET = "\n" + "".join(map(chr, range(32, 127)))
"""The characters by their numbers."""
_CODES = np.frombuffer(ALPHABET.encode("ascii"), np.uint8)
_PLAIN = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "…": "..."})


@functools.cache
def python_docs() -> str:
    """The topics in alphabetical order, each paragraph once, in the characters of `ALPHABET`."""
    from pydoc_data.topics import topics

    paragraphs = dict.fromkeys(part for name in sorted(topics) for part in topics[name].strip().split("\n\n"))
    known = frozenset(ALPHABET)
    return "".join(c for c in "\n\n".join(paragraphs).translate(_PLAIN) if c in known)


def source(name: str) -> dict[str, Any]:
    """What identifies a text; nothing for data that are none."""
    if name not in TEXTS:
        return {}
    text = python_docs()
    return {"characters": len(text), "text_sha256": hashlib.sha256(text.encode()).hexdigest()}


def pieces(text: str, length: int) -> tuple[Split, Split, int]:
    """(training, test, largest number): pieces one after the other, of which every tenth is a test piece.

    A piece is `length` + 1 characters: inputs are all but the last, labels all but the first.

    Examples:
      >>> train, test, largest = pieces("no one knows " * 20, length=12)
      >>> train.inputs.shape, test.inputs.shape, largest
      ((18, 12), (2, 12), 95)
      >>> "".join(ALPHABET[n] for n in test.labels[0])
      'o one knows '
    """
    numbers = np.searchsorted(_CODES, np.frombuffer(text.encode("ascii"), np.uint8)).astype(np.uint8)
    if len(numbers) < 10 * (length + 1):
        raise RunError(f"the text has {len(numbers)} characters, too few for ten pieces of {length + 1}.")
    cut = numbers[: len(numbers) // (length + 1) * (length + 1)].reshape(-1, length + 1)
    test = np.arange(len(cut)) % 10 == 0
    split = lambda rows: Split(rows[:, :-1], rows[:, 1:].astype(np.int32))
    return split(cut[~test]), split(cut[test]), len(ALPHABET) - 1
