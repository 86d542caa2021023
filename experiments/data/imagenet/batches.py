"""Which examples of ImageNet make a batch.

In the order of `order.py`; the crop of example i in epoch e is drawn from (seed, e, i). Neither knows of devices,
processes or workers: a process takes its slice of each batch.
"""

import dataclasses
import functools

import numpy as np

from ...errors import RunError
from ..load import fingerprint, held_out_and_kept
from ..sampler import permutation
from ..tfds_source import NAME, Prepared
from .jpeg import evaluation_crop, training_crop

TFDS_SPLITS = {"train": "train", "validation": "train", "test": "validation"}  # ours is held out of the training set
CLASSES = 1000
PART = 32  # examples that a worker prepares at once, 4.8 MB at 224 pixels


@dataclasses.dataclass(frozen=True)
class Parts:
    """The batches of one process in parts of at most `PART` examples, by number: what Grain's workers read.

    `total` is the number of examples in the TFDS split; the other fields are arguments of `imagenet.imagenet`.
    """

    split: str
    validation: int
    total: int
    batch_size: int
    train: bool
    seed: int
    epochs: int
    size: int
    data_dir: str | None
    process: tuple[int, int]
    accept_damaged: tuple[str, ...]

    def __len__(self) -> int:
        return self.end(self.epochs) * self.per_batch

    @property
    def local_size(self) -> int:
        """Examples of a batch in this process."""
        return self.batch_size // self.process[1]

    @property
    def per_batch(self) -> int:
        return -(-self.local_size // PART)

    def end(self, epoch: int) -> int:
        """How many batches it takes to complete so many epochs."""
        return -(-epoch * self._places // self.batch_size)

    def indices(self) -> np.ndarray:
        """The examples of the split, as ascending indices in the TFDS split."""
        return _indices(self.split, self.validation, self.total)

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
        own, found = self.indices(), []
        for row in range(begin, self.batch_size if end is None else end):
            epoch, place = divmod(batch * self.batch_size + row, self._places)
            if self.train:
                place = permutation(self.seed, epoch, len(own))[place]
            found.append((epoch, int(own[place]) if place < len(own) else -1))
        return found

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
    def _places(self) -> int:
        """Places of an epoch: its examples and, in evaluation, what fills the last batch."""
        examples = len(self.indices())
        return examples if self.train else -(-examples // self.batch_size) * self.batch_size

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
            rng = np.random.default_rng([1, self.seed, epoch, example])
            return training_crop(record["image"], self.size, rng, strict)
        except ValueError as error:
            raise RunError(
                f"{name}, {self._prepared.place(example)}, cannot be used: {error}. Prepare {NAME} anew from whole "
                "archives, or name the image in accept_damaged to take as much of it as can be decoded."
            ) from error


@functools.lru_cache(maxsize=3)
def _indices(split: str, validation: int, total: int) -> np.ndarray:
    if split == "test":
        return np.arange(total)
    held_out, kept = held_out_and_kept(NAME, total, validation)
    return held_out if split == "validation" else kept
