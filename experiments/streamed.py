"""ImageNet as a data set of the experiments: its splits are read from disk as they are needed."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

from .data import Dataset, Split, told
from .imagenet import Stream, imagenet
from .order import Order

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # of ImageNet's pixels, 0.485·255 and so on


@dataclasses.dataclass(frozen=True)
class Streamed:
    """A split of ImageNet; `total` is the number of its examples."""

    split: str
    total: int
    size: int
    validation: int
    data_dir: Path | None
    workers: int | None

    def __len__(self) -> int:
        return self.total

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.size, self.size, 3

    def training(self, order: Order, epochs: int) -> Stream:
        """Random crops in the given order, this process's share of each batch."""
        return self._stream(order.batch_size, train=True, seed=order.seed, epochs=epochs)

    def parts(self, size: int, process: tuple[int, int] = (0, 1)) -> Iterator[Split]:
        """Centre crops as they lie on disk, `size` images each; of each the share of process (index, count)."""
        with contextlib.closing(self._stream(size, train=False, process=process)) as stream:
            for batch in stream:
                there = batch["labels"] >= 0
                yield Split(batch["images"][there], batch["labels"][there])

    def _stream(self, batch_size: int, **options) -> Stream:
        own = {"size": self.size, "validation": self.validation, "data_dir": self.data_dir, "workers": self.workers}
        return imagenet(self.split, batch_size, **own, **options)


def dataset(validation: int, data_dir: Path | None, size: int, workers: int | None) -> Dataset:
    """Crops of `size` by `size` pixels; `validation` of the training images are held out."""

    def split(name: str) -> Streamed:
        own = {"size": size, "validation": validation, "data_dir": data_dir, "workers": 0}
        with contextlib.closing(imagenet(name, 1, train=False, process=(0, 1), **own)) as stream:
            return Streamed(name, len(stream.parts.indices()), **{**own, "workers": workers})

    train, held_out, test = (split(name) for name in ("train", "validation", "test"))
    total = len(train) + len(held_out)
    return Dataset(train, held_out, test, 255, MEAN, STD, told(total, validation))
