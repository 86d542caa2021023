"""Images and labels as arrays, and the three splits of a data set."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Split:
    """Images, uint8 [n, height, width, channels], and labels, int32 [n]."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.images.shape[1:]

    def parts(self, size: int, process: tuple[int, int] = (0, 1)) -> "Iterator[Split]":
        """Of `size` images each, the last with the rest; of each part the share of process (index, count)."""
        index, count = process
        share = size // count
        for start in range(index * share, len(self) + index * share, size):
            yield Split(self.images[start : start + share], self.labels[start : start + share])


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Training, validation and test images; `maximum` is the largest value of a pixel.

    `mean` and `std`, one for each channel, are what the network's input is centred and scaled by. The splits of
    ImageNet are on disk (`imagenet.split.StreamedSplit`): they have `len` and `parts`, but no arrays.
    """

    train: Any
    validation: Any
    test: Any
    maximum: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    held_out: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        return self.train.shape

    def normalised(self, images):
        """The network's input, float32, of images of any dtype."""
        mean, std = (np.asarray(x, np.float32).reshape(*(images.ndim - 1) * [1], -1) for x in (self.mean, self.std))
        return (images.astype(np.float32) - mean) / std
