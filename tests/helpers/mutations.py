"""Damage to files and to JSON, drawn at random."""

import copy
import functools

import numpy as np


def places(data, path=()):
    """Every place in JSON data, by the steps to it."""
    yield path
    children = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for step, child in children:
        yield from places(child, (*path, step))


STRANGE = [None, True, -1, 0, 7, 2**31, 2**70, 1.5, float("inf"), "", "w1", "x" * 50, [], [[]], {}, {"0": [0]}]


def mutant(data, rng):
    """Something in the data replaced, removed, renamed, doubled, moved by one or put in another order."""
    data = copy.deepcopy(data)
    steps = list(places(data))
    path = steps[rng.integers(1, len(steps))]
    parent = functools.reduce(lambda node, step: node[step], path[:-1], data)
    step, old = path[-1], parent[path[-1]]
    kind = rng.integers(6)
    if kind == 0 and isinstance(old, int):
        parent[step] = old + int(rng.choice([-1, 1]))
    elif kind == 1 and isinstance(parent, dict):
        parent[str(step) + "x"] = parent.pop(step)
    elif kind == 2 and isinstance(old, list) and len(old) > 1:
        rng.shuffle(old)
    elif kind == 3 and isinstance(parent, list):
        parent.insert(step, copy.deepcopy(old))
    elif kind == 4:
        del parent[step]
    else:
        parent[step] = STRANGE[rng.integers(len(STRANGE))]
    return data


def flipped(content: bytes, rng: np.random.Generator) -> bytes:
    """The bytes with one bit flipped."""
    changed = bytearray(content)
    changed[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """A bit flipped, bytes overwritten, the end cut off, a part doubled or left out."""
    begin, end = sorted(rng.integers(len(content) + 1, size=2).tolist())
    kinds = [
        lambda: flipped(content, rng),
        lambda: content[:begin] + rng.bytes(min(8, len(content) - begin)) + content[begin + 8 :],
        lambda: content[:begin],
        lambda: content[:end] + content[begin:],
        lambda: content[:begin] + content[end:],
    ]
    return kinds[rng.integers(len(kinds))]()
