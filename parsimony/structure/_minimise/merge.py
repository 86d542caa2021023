"""Units that compute the same: one of them is read in the place of all.

Where x_i = x_j for all inputs and places, y = Σ_i x_i·w_i is the only use of w, and i is to stay,

    w_i ← w_i + w_j,   w_j ← 0     leaves y as it is, at a padded border too.

A unit that is read in one place only by way of its twin, and in another by itself, is put back by the proof in
`unheard`, which knows nothing of twins.
"""

import numpy as np

from .._units import Units
from .fold import Array, Owner, owners_of
from .reading import Reading


def merge(
    reading: Reading, units: Units, params: dict[str, Array], closed: frozenset[str], barred: set[Owner]
) -> set[Owner]:
    """Changes `params` so that of the units that are equal the first is read alone; those that are not any more.

    Args:
      closed, barred: as in `fold`.
    """
    moved: set[Owner] = set()
    for reader in reading.readers:
        weights = params[reader.kernel]
        if reading.uses[reader.kernel] != 1 or reader.kernel in closed or weights is None:
            continue
        owners, new = owners_of(units, reader), np.moveaxis(weights.copy(), reader.axis, 0)
        first: dict[int, int] = {}  # of each kind the index that stays: the same unit for all that read them
        for i in sorted(range(len(new)), key=lambda i: owners.get(i, [])):
            one, its = first.setdefault(int(reader.kinds[i]), i), set(owners.get(i, []))
            if one == i or not its or its & (barred | {*owners.get(one, [])}) or not new[i].any():
                continue
            new[one] += new[i]
            new[i] = 0
            moved |= its
        params[reader.kernel] = np.ascontiguousarray(np.moveaxis(new, 0, reader.axis))
    return moved
