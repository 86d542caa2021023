"""ImageNet as a data set of the experiments: its splits are read from disk as they are needed."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from ..dataset import Dataset, Split
from ..in_memory import tfds_dir
from ..load import held_out_and_kept, held_out_record
from ..sampler import Sampler
from ..tfds_source import NAME, Prepared
from .batches import TFDS_SPLITS
from .stream import Stream, imagenet

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # of ImageNet's pixels, 0.485·255 and so on


@dataclasses.dataclass(frozen=True)
class StreamedSplit:
    """A split of ImageNet, of whose TFDS split all `total` examples were found to be there."""

    split: str
    total: int
    size: int
    validation: int
    data_dir: str | None
    workers: int | None

    def __len__(self) -> int:
        return {"train": self.total - self.validation, "validation": self.validation, "test": self.total}[self.split]

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.size, self.size, 3

    def training(self, sampler: Sampler, epochs: int) -> Stream:
        """Random crops in the order of a sampler, this process's share of each batch."""
        process = jax.process_index(), jax.process_count()
        return self._stream(sampler.batch_size, process, train=True, seed=sampler.seed, epochs=epochs)

    def parts(self, size: int, process: tuple[int, int] = (0, 1)) -> Iterator[Split]:
        """Centre crops as they lie on disk, `size` images each; of each the share of process (index, count)."""
        with contextlib.closing(self._stream(size, process, train=False)) as stream:
            for batch in stream:
                there = batch["labels"] >= 0
                yield Split(batch["images"][there], batch["labels"][there])

    def _stream(self, batch_size: int, process: tuple[int, int], **order: Any) -> Stream:
        return imagenet(
            self.split,
            batch_size,
            size=self.size,
            validation=self.validation,
            data_dir=self.data_dir,
            workers=self.workers,
            process=process,
            total=self.total,  # the files were looked at when the data set was loaded
            **order,
        )


def dataset(validation: int, data_dir: Path | None, size: int, workers: int | None) -> Dataset:
    """Crops of `size` by `size` pixels; `validation` of the training images are held out."""
    directory = tfds_dir(data_dir)
    totals = {name: Prepared(name, directory).check() for name in set(TFDS_SPLITS.values())}
    held_out, _ = held_out_and_kept(NAME, totals[TFDS_SPLITS["train"]], validation)
    train, held_out_split, test = (
        StreamedSplit(name, totals[tfds_split], size, validation, directory, workers)
        for name, tfds_split in TFDS_SPLITS.items()
    )
    return Dataset(train, held_out_split, test, 255, MEAN, STD, held_out_record(train.total, held_out))
