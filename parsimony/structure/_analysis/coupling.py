"""Which indices of which axes are bound to each other: unions, products, and what may not be removed at all.

Every index of every axis of every array in a program gets a *node*. Three statements are made about nodes:

    unite(a, b)          a and b stay or go together
    product(m, r, c)     m[i, j] stays exactly if r[i] and c[j] both stay: m is an axis folded from r and c
    fix(a, reason)       a stays

`solve` finds the *atoms*: the classes of nodes that can be removed one by one. A node that is folded from others, such
as a column of a fused (heads × features) matrix, goes with each of its atoms.

An axis that is rigid as a whole (a batch, an image's rows) has no nodes: its label is the reason, a string.
"""

import dataclasses

import numpy as np

Label = np.ndarray | str
"""The nodes of an axis, or why the whole of it is rigid."""


class Coupling:
    """A growing set of nodes and statements about them."""

    def __init__(self):
        self.count = 0
        self._unions: list[tuple[np.ndarray, np.ndarray]] = []
        self._products: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._fixed: list[tuple[np.ndarray, str]] = []
        self._inexact: list[tuple[np.ndarray, str]] = []
        self._rigid: dict[str, int] = {}

    def new(self, n: int) -> np.ndarray:
        """Nodes that nothing is known of."""
        self.count += n
        return np.arange(self.count - n, self.count)

    def nodes(self, label: Label, n: int) -> np.ndarray:
        """The label as nodes, for an axis of size n; a rigid axis shares one fixed node a reason."""
        if not isinstance(label, str):
            return label
        if label not in self._rigid:
            self._rigid[label] = int(self.new(1)[0])
            self.fix(np.array([self._rigid[label]]), label)
        return np.full(n, self._rigid[label])

    def unite(self, one: Label, other: Label) -> Label:
        """One label for two axes that run in step."""
        if isinstance(one, str) or isinstance(other, str):
            reason = one if isinstance(one, str) else other
            self.fix(one, reason)
            self.fix(other, reason)
            return reason
        if one is not other:
            self._unions.append((one, other))
        return one

    def fix(self, label: Label, reason: Label) -> None:
        assert isinstance(reason, str)
        if not isinstance(label, str) and label.size:
            self._fixed.append((label, reason))

    def inexact(self, label: Label, exact, reason: str) -> None:
        """Where `exact` is False, a removal changes what the program computes."""
        if not isinstance(label, str) and not np.all(exact):
            self._inexact.append((label[~np.broadcast_to(exact, label.shape)], reason))

    def fold(self, rows: Label, columns: Label, shape: tuple[int, int]) -> Label:
        """The label of the axis that (rows, columns) become when they are flattened."""
        if isinstance(rows, str) and isinstance(columns, str):
            return rows
        if isinstance(rows, str):
            return np.tile(columns, shape[0])
        if isinstance(columns, str):
            return np.repeat(rows, shape[1])
        folded = self.new(shape[0] * shape[1])
        self._product(folded.reshape(shape), rows, columns)
        return folded

    def unfold(self, label: Label, shape: tuple[int, int]) -> tuple[Label, Label]:
        """The labels of (rows, columns) into which an axis is split."""
        if isinstance(label, str):
            return label, label
        matrix = label.reshape(shape)
        if (matrix == matrix[:1]).all():
            return _REPEATED, matrix[0]
        if (matrix == matrix[:, :1]).all():
            return matrix[:, 0], _REPEATED
        rows, columns = self.new(shape[0]), self.new(shape[1])
        self._product(matrix, rows, columns)
        return rows, columns

    @property
    def statements(self) -> tuple[int, int]:
        """How many unions and products there are."""
        return len(self._unions), len(self._products)

    def pairs_since(self, statements: tuple[int, int]) -> list[tuple[np.ndarray, np.ndarray]]:
        """The nodes that were bound to each other since then."""
        unions, products = statements
        factors = [pair for m, r, c in self._products[products:] for pair in ((m, r), (m, c))]
        return self._unions[unions:] + factors

    def _product(self, matrix, rows, columns) -> None:
        rows, columns = np.broadcast_arrays(rows[:, None], columns[None, :])
        self._products.append((matrix.ravel(), rows.ravel(), columns.ravel()))

    def solve(self) -> "Solution":
        """The atoms, and those of each node."""
        count = max(self.count, 1)
        m, r, c = (
            (np.concatenate(x) for x in zip(*self._products, strict=True)) if self._products else np.zeros((3, 0), int)
        )
        edges = np.concatenate([np.zeros((2, 0), int), *(np.stack(pair) for pair in self._unions)], axis=1)
        reasons = [*dict.fromkeys(reason for _, reason in self._fixed), _CIRCLE]
        circle, free = len(reasons) - 1, len(reasons)
        why = np.full(count, free)  # the first reason that fixes each node
        for nodes, reason in self._fixed:
            np.minimum.at(why, nodes, reasons.index(reason))

        while True:
            classes, size = classes_of(edges, count)
            first = np.empty(size, int)  # a node of each class
            first[classes[::-1]] = np.arange(count)[::-1]
            reason = np.full(size, free)
            np.minimum.at(reason, classes, why)
            mm, rr, cc = classes[m], classes[r], classes[c]
            fm, fr, fc = (reason[x] < free for x in (mm, rr, cc))
            folded = ~fr & ~fc
            order = np.flatnonzero(folded)[np.argsort(mm[folded], kind="stable")]
            again = order[:-1][mm[order[1:]] == mm[order[:-1]]] if len(order) else order
            following = order[1:][mm[order[1:]] == mm[order[:-1]]] if len(order) else order
            everywhere = np.full(len(m), circle)
            fixing = [  # (whom, for which reason, where)
                (rr, reason[mm], fm & ~fr),
                (cc, reason[mm], fm & ~fc),
                (mm, np.maximum(reason[rr], reason[cc]), fr & fc & ~fm),
                (cc, everywhere, folded & (rr == mm)),  # m = m and c: c has to stay
                (rr, everywhere, folded & (cc == mm)),
            ]
            uniting = [
                (mm, rr, fc & ~fr),
                (mm, cc, fr & ~fc),
                # What is folded twice is folded alike: its rows are one, and its columns.
                (rr[again], rr[following], rr[again] != rr[following]),
                (cc[again], cc[following], cc[again] != cc[following]),
            ]
            for one, other, where in uniting:
                where = where & (one != other)
                edges = np.concatenate([edges, first[np.stack([one[where], other[where]])]], axis=1)
            for whom, number, where in fixing:
                np.minimum.at(why, first[whom[where]], number[where])
            if any((where & (one != other)).any() for one, other, where in uniting) or any(
                where.any() for _, _, where in fixing
            ):
                continue
            pairs, unsettled = _expand(reason < free, mm[folded], rr[folded], cc[folded])
            if not len(unsettled):
                break
            why[first[unsettled]] = circle

        cause = np.full(size, len(self._inexact))
        for i, (nodes, _) in enumerate(self._inexact):
            np.minimum.at(cause, classes[nodes], i)
        return Solution(classes, pairs, [*reasons, ""], reason, [*(text for _, text in self._inexact), ""], cause)


_REPEATED = "an axis that others are repeated along"
_CIRCLE = "an axis that is folded into itself"


def classes_of(edges: np.ndarray, count: int) -> tuple[np.ndarray, int]:
    from scipy.sparse import coo_array  # here, so that `import parsimony` stays quick
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(edges.shape[1], bool), (edges[0], edges[1])), shape=(count, count))
    size, classes = connected_components(graph, directed=False)
    return classes, size


def _expand(fixed, m, r, c) -> tuple[np.ndarray, np.ndarray]:
    """Sorted rows (class, atom), and the classes whose folds are circular."""
    rows, columns = np.full(len(fixed), -1), np.full(len(fixed), -1)
    rows[m], columns[m] = r, c
    pairs = np.stack([np.flatnonzero(~fixed)] * 2)
    for _ in range(64):  # folds inside folds: as deep as an axis has factors
        inner = rows[pairs[1]] >= 0
        if not inner.any():
            return pairs, pairs[1][:0]
        whole, part = pairs[:, inner]
        pairs = np.concatenate(
            [pairs[:, ~inner], np.stack([whole, rows[part]]), np.stack([whole, columns[part]])], axis=1
        )
        pairs = np.unique(pairs, axis=1)
    return pairs, np.unique(pairs[1][rows[pairs[1]] >= 0])


@dataclasses.dataclass(frozen=True)
class Solution:
    """What `Coupling.solve` found.

    Attributes:
      classes: the class of each node.
      pairs: rows (class, atom), sorted by class: the atoms that each class goes with; a fixed class has none.
      reasons, reason: of each class the number of the reason why it is fixed; the last one says that it is not.
      causes, cause: of each class the number of the reason why its removal is not exact; likewise.
    """

    classes: np.ndarray
    pairs: np.ndarray
    reasons: list[str]
    reason: np.ndarray
    causes: list[str]
    cause: np.ndarray

    def atoms(self, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(position in `nodes`, atom) for each atom of each node."""
        classes = self.classes[nodes]
        start = np.searchsorted(self.pairs[0], classes, side="left")
        count = np.searchsorted(self.pairs[0], classes, side="right") - start
        position = np.repeat(np.arange(len(nodes)), count)
        offset = np.arange(len(position)) - np.repeat(np.cumsum(count) - count, count)
        return position, self.pairs[1][start[position] + offset]

    def copies(self, atoms: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """For each node how many there are of it, from the numbers of these atoms: 0 removed, 1 as ever, 2 doubled."""
        of_atom = np.ones(len(self.reason), int)
        of_atom[atoms] = numbers
        of_class = np.ones(len(self.reason), int)
        np.multiply.at(of_class, self.pairs[0], of_atom[self.pairs[1]])
        return of_class[self.classes]

    def atoms_of(self, nodes: np.ndarray) -> np.ndarray:
        """All atoms that these nodes go with."""
        return np.unique(self.atoms(nodes)[1])

    def why_fixed(self, nodes: np.ndarray) -> list[str]:
        """For each node the reason why it stays, or ""."""
        return [self.reasons[i] for i in self.reason[self.classes[nodes]]]

    def inexact_atoms(self) -> dict[int, str]:
        """The atoms whose removal is not exact, and why."""
        hit = self.cause[self.pairs[0]] < len(self.causes) - 1
        return {
            int(atom): self.causes[self.cause[node]] for node, atom in zip(*self.pairs[:, hit].tolist(), strict=True)
        }
