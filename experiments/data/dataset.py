"""Images and labels as arrays, and the three splits of a data set."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import RunError


def classes_of(name: str) -> int:
    """How many classes a data set has; their labels are 0, 1, 2, …"""
    return {"cifar100": 100, "imagenet2012": 1000}.get(name, 10)


@dataclasses.dataclass(frozen=True)
class Split:
    """Images, uint8 [n, height, width, channels], and labels, int32 [n].

    Raises:
      RunError: these are no images and labels of that kind, or not as many of both.
    """

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self):
        if getattr(self.images, "dtype", None) != np.uint8 or self.images.ndim != 4:
            raise RunError(f"images: expected uint8 [n, height, width, channels], got {_kind(self.images)}.")
        whole = np.issubdtype(getattr(self.labels, "dtype", object), np.integer)
        if not whole or self.labels.shape != self.images.shape[:1]:
            raise RunError(
                f"labels: expected whole numbers, [{len(self.images)}] like the images, got {_kind(self.labels)}."
            )

    def strange(self, classes: int) -> np.ndarray:
        """The indices of the labels that are none of 0 … classes − 1: a loss would take them without a word."""
        return np.flatnonzero((self.labels < 0) | (self.labels >= classes))

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


def _kind(array) -> str:
    shape = getattr(array, "shape", None)
    return type(array).__name__ if shape is None else f"{array.dtype} {list(shape)}"


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
