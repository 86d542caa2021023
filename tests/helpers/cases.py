"""Cases that span a product: each value with some of the others in turn, where all with all would tell nothing more."""

import pytest


def in_turn(many: dict, few: dict, each: int = 1, start: int = 0) -> list:
    """Parameters (one of `many`, one of `few`): every one of the many meets `each` of the few, in rotation."""
    names = list(few)
    return [
        pytest.param(value, few[other], id=f"{name}-{other}")
        for place, (name, value) in enumerate(many.items())
        for other in (names[(place * each + step + start) % len(names)] for step in range(each))
    ]


def every_pair(one: dict, other: dict, third: dict) -> list:
    """Parameters (of one, of other, of third): all pairs of the first two, the third in rotation along both."""
    names = list(third)
    turn = lambda i, j: names[(i + j) % len(names)]
    return [
        pytest.param(a, b, third[turn(i, j)], id=f"{name}-{its}-{turn(i, j)}")
        for i, (name, a) in enumerate(one.items())
        for j, (its, b) in enumerate(other.items())
    ]


def mostly(names, quick) -> list:
    """All names; those that are not in `quick` are left to the whole run."""
    assert set(quick) <= set(names)
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]
