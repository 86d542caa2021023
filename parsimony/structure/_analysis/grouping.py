"""The units of a function: what belongs together, in sets of those with members of the same kind."""

import numpy as np

from .._unit_set import UnitSet
from .coupling import Label, Solution


def unit_sets(labels: dict[str, tuple[Label, ...]], solution: Solution, produced: np.ndarray, inputs: bool = False):
    """The units, in sets of those with members of the same kind; and the atoms of each set."""
    places = [
        (name, axis, label)
        for name, axes in labels.items()
        for axis, label in enumerate(axes)
        if not isinstance(label, str)
    ]
    parts = [(np.zeros(0, int),) * 3]
    for number, (_, _, label) in enumerate(places):
        index, atom = solution.atoms(label)
        parts.append((np.full(len(index), number), index, atom))
    place, index, atom = (np.concatenate(column) for column in zip(*parts, strict=True))
    unique, unit = np.unique(atom, return_inverse=True)  # a unit for each atom
    first = np.full(len(unique), len(atom))  # where each unit first occurs: by place, then by index
    np.minimum.at(first, unit, np.arange(len(atom)))
    signature = _signatures(place, unit, len(unique), len(places))
    signature = _apart(place, index, unit, signature, first)
    inexact = solution.inexact_atoms()
    sets, atoms = {}, {}
    order = np.lexsort((first, _first_of(signature, first)[signature])) if len(unique) else np.zeros(0, int)
    bounds = np.flatnonzero(np.diff(signature[order])) + 1
    for units in np.split(order, bounds) if len(order) else []:
        number = np.full(len(unique), -1)
        number[units] = np.arange(len(units))
        mine = np.flatnonzero(number[unit] >= 0)
        members: dict[str, dict[int, np.ndarray]] = {}
        makers = []
        for p in np.unique(place[mine]):
            name, axis, label = places[p]
            here = mine[place[mine] == p]
            which = np.full(len(label), -1)
            which[index[here]] = number[unit[here]]
            members.setdefault(name, {})[axis] = which
            if produced[label].any():
                makers.append((name, axis))
        name = _free_name(next(iter(members)), sets, ".inputs" if inputs and not makers else "")
        reason = next((inexact[a] for a in unique[units].tolist() if a in inexact), "")
        sets[name] = UnitSet(name, len(units), members, reason, tuple(makers))
        atoms[name] = unique[units]
    return sets, atoms


def _signatures(place, unit, units: int, places: int) -> np.ndarray:
    """A number for each unit, the same for units that have as many members in every (parameter, axis)."""
    pairs, count = np.unique(unit * max(places, 1) + place, return_counts=True)
    owner = pairs // max(places, 1)
    columns = np.stack([pairs % max(places, 1), count], axis=1)
    start, size = np.searchsorted(owner, np.arange(units)), np.bincount(owner, minlength=units)
    signature, first = np.zeros(units, int), 0
    for n in np.unique(size):  # units with as many places: a row of (place, members) each
        mine = np.flatnonzero(size == n)
        rows = columns[start[mine][:, None] + np.arange(n)].reshape(len(mine), -1)
        kinds, which = np.unique(rows, axis=0, return_inverse=True)
        signature[mine], first = first + which.ravel(), first + len(kinds)
    return signature


def _apart(place, index, unit, signature, first) -> np.ndarray:
    """Units that share an index of an axis, such as the rows and columns of a square fold, go to sets of their own."""
    key = np.lexsort((unit, signature[unit], index, place))
    p, i, u = place[key], index[key], unit[key]
    neighbours: dict[int, set[int]] = {}
    for distance in range(1, len(u)):
        one, other = u[:-distance], u[distance:]
        same = (p[:-distance] == p[distance:]) & (i[:-distance] == i[distance:]) & (signature[one] == signature[other])
        if not same.any():
            break
        for a, b in np.unique(np.stack([one[same], other[same]], axis=1), axis=0).tolist():
            neighbours.setdefault(a, set()).add(b)
            neighbours.setdefault(b, set()).add(a)
    colour = np.zeros(len(signature), int)
    seen: set[int] = set()
    for atom in sorted(neighbours, key=first.__getitem__):
        taken = {colour[other] for other in neighbours[atom] & seen}
        colour[atom] = next(c for c in range(len(taken) + 1) if c not in taken)
        seen.add(atom)
    return np.unique(np.stack([signature, colour]), axis=1, return_inverse=True)[1].ravel()


def _first_of(signature, first) -> np.ndarray:
    earliest = np.full(signature.max() + 1 if len(signature) else 0, np.iinfo(int).max)
    np.minimum.at(earliest, signature, first)
    return earliest


def _free_name(parameter: str, taken, what: str) -> str:
    """A set is called after the layer whose parameter it is found in first."""
    name = (parameter.rpartition("/")[0] or parameter) + what
    number = 2
    free = name
    while free in taken:
        free, number = f"{name}.{number}", number + 1
    return free
