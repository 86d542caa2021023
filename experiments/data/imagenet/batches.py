"""Which examples of ImageNet make a batch.

In the order of a sampler; the crop of example i in epoch e is drawn from (seed, e, i). Neither knows of devices,
processes or workers: a process takes its slice of each batch.
"""

import dataclasses
import functools

import numpy as np

from ...errors import RunError
from ..dataset import classes_of
from ..load import fingerprint, held_out_and_kept
from ..sampler import Sampler
from ..tfds_source import NAME, Prepared
from .jpeg import evaluation_crop, training_crop

TFDS_SPLITS = {"train": "train", "validation": "train", "test": "validation"}  # ours is held out of the training set
CLASSES = classes_of(NAME)
PART = 32  # examples that a worker prepares at once, 4.8 MB at 224 pixels


@dataclasses.dataclass(frozen=True)
class Parts:
    """The batches of one process in parts of at most `PART` examples, by number: what Grain's workers read.

    `total` is the number of examples in the TFDS split; the other fields are arguments of `stream.imagenet`.
    """

    split: str
    validation: int
    total: int
    sampler: Sampler
    train: bool
    epochs: int
    size: int
    data_dir: str | None
    process: tuple[int, int]
    accept_damaged: tuple[str, ...]

    def __len__(self) -> int:
        return self.sampler.end(self.epochs) * self.per_batch

    @property
    def local_size(self) -> int:
        """Examples of a batch in this process."""
        return self.sampler.batch_size // self.process[1]

    @property
    def per_batch(self) -> int:
        return -(-self.local_size // PART)

    def indices(self) -> np.ndarray:
        """The examples of the split, as ascending indices in the TFDS split."""
        return split_indices(self.split, self.validation, self.total)

    def record(self) -> dict:
        """What the split is made of, for the record of a run: enough to find each index again, and to check it."""
        order = f"numpy.random.default_rng(0).permutation({self.total})"
        rules = {"train": f"{order}[{self.validation}:]", "validation": f"{order}[:{self.validation}]"}
        return {
            "data": self._prepared.version(),
            "tfds_split": self._prepared.split,
            "examples": len(self.indices()),
            "indices": rules.get(self.split, f"range({self.total})"),
            "sha256": fingerprint(self.indices()),
        }

    def examples(self, batch: int, begin: int = 0, end: int | None = None) -> list[tuple[int, int]]:
        """(epoch, index in the TFDS split) of the rows begin … end − 1 of a batch; the index is −1 for none."""
        indices = self.indices()
        epochs, places = self.sampler.positions(batch, batch + 1)
        if self.train:
            places = self.sampler.batches(batch, batch + 1)[0]
        rows = zip(epochs[begin:end].tolist(), places[begin:end].tolist(), strict=True)
        return [(epoch, int(indices[place]) if place < len(indices) else -1) for epoch, place in rows]

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        batch, part = divmod(index, self.per_batch)
        count = min(PART, self.local_size - part * PART)
        begin = self.process[0] * self.local_size + part * PART
        rows = self.examples(batch, begin, begin + count)
        images, labels = np.zeros((count, self.size, self.size, 3), np.uint8), np.full(count, -1, np.int32)
        there = [row for row, (_, example) in enumerate(rows) if example >= 0]
        for row, record in zip(there, self._prepared.read([rows[row][1] for row in there]), strict=True):
            images[row], labels[row] = self._crop(record, *rows[row]), record["label"]
        return {"images": images, "labels": labels}

    @property
    def _prepared(self) -> Prepared:
        return Prepared(TFDS_SPLITS[self.split], self.data_dir)

    def _crop(self, record: dict, epoch: int, example: int) -> np.ndarray:
        name = record["file_name"].decode()
        strict = name not in self.accept_damaged
        try:
            if not 0 <= record["label"] < CLASSES:
                raise ValueError(f"its label is {record['label']} instead of 0 to {CLASSES - 1}")
            if not self.train:
                return evaluation_crop(record["image"], self.size, strict)
            rng = np.random.default_rng([1, self.sampler.seed, epoch, example])
            return training_crop(record["image"], self.size, rng, strict)
        except ValueError as error:
            raise RunError(
                f"{name}, {self._prepared.place(example)}, cannot be used: {error}. Prepare {NAME} anew from whole "
                "archives, or name the image in accept_damaged to take as much of it as can be decoded."
            ) from error


@functools.lru_cache(maxsize=3)
def split_indices(split: str, validation: int, total: int) -> np.ndarray:
    """The examples of one of our splits, as ascending indices in its TFDS split."""
    if split == "test":
        return np.arange(total)
    held_out, kept = held_out_and_kept(NAME, total, validation)
    return held_out if split == "validation" else kept
