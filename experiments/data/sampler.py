"""The order in which training takes its examples: epochs laid end to end.

Batch k holds the places kB … kB + B − 1, so that every example comes exactly once an epoch and no batch is incomplete:
one may hold the end of an epoch and the beginning of the next. The order of epoch e is drawn from (seed, e). Nothing
here knows of devices, processes or workers.
"""

import dataclasses
import functools

import numpy as np


@dataclasses.dataclass(frozen=True)
class Sampler:
    """The batches of a training: `size` examples an epoch, `batch_size` of them in each batch."""

    seed: int
    size: int
    batch_size: int

    def end(self, epoch: int) -> int:
        """How many batches it takes to complete so many epochs.

        Examples:
          >>> [Sampler(seed=0, size=10, batch_size=4).end(epoch) for epoch in range(4)]
          [0, 3, 5, 8]
        """
        return -(-epoch * self.size // self.batch_size)

    def at(self, share: float, epochs: int) -> int:
        """How many batches it takes to complete a share of so many epochs, to the nearest example.

        Examples:
          >>> Sampler(seed=0, size=10, batch_size=4).at(2 / 3, epochs=3)
          5
        """
        return -(-round(share * epochs * self.size) // self.batch_size)

    def snapshot_points(self, epochs: int, snapshots: int) -> list["SnapshotPoint"]:
        """Where snapshots are due: so many in each epoch, the last at its end."""
        points = []
        for epoch in range(epochs):
            parts = np.array_split(np.arange(self.end(epoch), self.end(epoch + 1)), snapshots)
            points += [SnapshotPoint(int(part[-1]) + 1, epoch + 1, part is parts[-1]) for part in parts]
        return points

    def positions(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """(epoch, place in it) of each example of the batches first … last − 1, [(last − first)·batch_size]."""
        return np.divmod(np.arange(first * self.batch_size, last * self.batch_size), self.size)

    def batches(self, first: int, last: int) -> np.ndarray:
        """Examples of the batches first … last − 1, int32 [last − first, batch_size]."""
        epochs, places = self.positions(first, last)
        examples = np.empty(len(places), np.int32)
        for epoch in np.unique(epochs):
            of_epoch = epochs == epoch
            examples[of_epoch] = permutation(self.seed, int(epoch), self.size)[places[of_epoch]]
        return examples.reshape(-1, self.batch_size)


@dataclasses.dataclass(frozen=True)
class SnapshotPoint:
    """A snapshot that is due after so many steps, in an epoch (from 1), perhaps at its end."""

    step: int
    epoch: int
    epoch_end: bool


@functools.lru_cache(maxsize=2)  # a batch may hold two epochs
def permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    """The order of an epoch."""
    # A first number of its own for each kind of draw: NumPy takes the seeds [a, b] and [a, b, 0] for one.
    return np.random.default_rng([0, seed, epoch]).permutation(size)
