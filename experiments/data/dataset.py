"""Examples and their labels as arrays, and the three splits of a data set."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from ..errors import RunError
from ..metrics import ACCURACY, Metric


def classes_of(name: str) -> int:
    """How many classes a data set has; their labels are 0, 1, 2, … Of a text it is the size of its alphabet."""
    return {"cifar100": 100, "imagenet2012": 1000, "python_docs": 96}.get(name, 10)


@dataclasses.dataclass(frozen=True)
class Split:
    """Examples and their labels: images, or pieces of a text.

    Images are uint8 [n, height, width, channels], with labels int32 [n]. Pieces are the numbers of their characters,
    uint8 [n, length], with labels int32 [n, length], the character that follows each.

    Raises:
      RunError: these are no inputs and labels of that kind, or not as many of both.
    """

    inputs: np.ndarray
    labels: np.ndarray

    def __post_init__(self):
        if getattr(self.inputs, "dtype", None) != np.uint8 or self.inputs.ndim not in (2, 4):
            raise RunError(
                "inputs: expected images, uint8 [n, height, width, channels], or pieces of a text, uint8 [n, length]; "
                f"got {_kind(self.inputs)}."
            )
        whole = np.issubdtype(getattr(self.labels, "dtype", object), np.integer)
        expected = self.inputs.shape if self.inputs.ndim == 2 else self.inputs.shape[:1]
        if not whole or self.labels.shape != expected:
            raise RunError(
                f"labels: expected whole numbers, {list(expected)} like the inputs, got {_kind(self.labels)}."
            )

    def strange(self, classes: int) -> np.ndarray:
        """The indices of the labels that are none of 0 … classes − 1: a loss would take them without a word."""
        return np.flatnonzero((self.labels < 0) | (self.labels >= classes))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.inputs.shape[1:]

    def parts(self, size: int, process: tuple[int, int] = (0, 1)) -> "Iterator[Split]":
        """Of `size` examples each, the last with the rest; of each part the share of process (index, count)."""
        index, count = process
        share = size // count
        for start in range(index * share, len(self) + index * share, size):
            yield Split(self.inputs[start : start + share], self.labels[start : start + share])


def _kind(array) -> str:
    shape = getattr(array, "shape", None)
    return type(array).__name__ if shape is None else f"{array.dtype} {list(shape)}"


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Training, validation and test examples; `maximum` is the largest value of a pixel, or number of a character.

    `mean` and `std`, one for each channel, are what the network's input is centred and scaled by; a text has none. The
    splits of ImageNet are on disk (`imagenet.split.StreamedSplit`): they have `len` and `parts`, but no arrays.
    """

    train: Any
    validation: Any
    test: Any
    maximum: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    held_out: dict[str, Any] = dataclasses.field(default_factory=dict)
    metric: Metric = ACCURACY

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width and channels of an image, or the length of a piece of text."""
        return self.train.shape

    @property
    def example(self) -> jax.ShapeDtypeStruct:
        """One input of the network, [1, ...]."""
        return jax.eval_shape(self.normalised, jax.ShapeDtypeStruct((1, *self.shape), np.uint8))

    def normalised(self, inputs):
        """The network's input: float32 of images of any dtype; of a text the numbers of its characters, int32."""
        if inputs.ndim == 2:
            return inputs.astype(np.int32)
        mean, std = (np.asarray(x, np.float32).reshape(*(inputs.ndim - 1) * [1], -1) for x in (self.mean, self.std))
        return (inputs.astype(np.float32) - mean) / std
