"""How a training gets its batches: small sets lie on the devices whole and are taken by index; ImageNet streams."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from ..errors import RunError
from .dataset import Split
from .placement import PerDevice, Placement
from .sampler import Sampler


def make_loader(
    split, sampler: Sampler, epochs: int, placement: Placement | None = None
) -> "DeviceLoader | StreamLoader":
    """The loader of a training set, for so many epochs; by default its batches are placed for `jax.pmap`.

    Both kinds have `chunks(first, last)`, which yields (images, labels, index, number) as a step of `make_step`
    takes them, for the batches first … last − 1; `position(batch)`, as JSON can hold it; and `close()`.
    """
    placement = placement or PerDevice()
    if isinstance(split, Split):
        return DeviceLoader(split, sampler, placement)
    return StreamLoader(split, sampler, epochs, placement)


class DeviceLoader:
    """All images on every device; a chunk is some batches of them."""

    def __init__(self, split: Split, sampler: Sampler, placement: Placement | None = None):
        self._sampler, self._placement = sampler, placement or PerDevice()
        self._data: Any = self._placement.copies((split.inputs, split.labels))

    def chunks(self, first: int, last: int, per_call: int | None = None) -> Iterator[tuple[Any, ...]]:
        per_call = per_call or steps_per_call()
        for start in range(first, last, per_call):
            batches = self._sampler.batches(start, min(start + per_call, last))
            number = np.arange(start, start + len(batches), dtype=np.int32)
            if jax.default_backend() == "cpu":  # one program for any number of them: a resumed run has the same bits
                missing = per_call - len(batches)
                batches = np.pad(batches, ((0, missing), (0, 0)))
                number = np.pad(number, (0, missing), constant_values=-1)
            yield *self._data, self._placement.index(batches), number

    def position(self, batch: int) -> dict[str, Any]:
        return {"next_batch": batch, **dataclasses.asdict(self._sampler)}

    def check(self, position: dict[str, Any]) -> None:
        """Raises a RunError if the position belongs to other batches."""
        expected = self.position(position["next_batch"])
        if position != expected:
            raise RunError(f"the checkpoint belongs to other batches than these ({position} → {expected}).")

    def close(self) -> None:
        self._data = None


class StreamLoader:
    """Batches as they come from the disk; a chunk is one of them."""

    def __init__(self, split, sampler: Sampler, epochs: int, placement: Placement):
        from .imagenet.stream import prefetch

        self._stream = split.training(sampler, epochs)
        self._batches = prefetch(self._stream)
        self._next, self._placement = 0, placement

    def chunks(self, first: int, last: int) -> Iterator[tuple[Any, ...]]:
        if first != self._next:
            self._batches.set_state(self.position(first))
            self._next = first
        for number in range(first, last):
            batch = next(self._batches)
            self._next = number + 1
            (images, index), (labels, _) = map(self._placement.streamed, (batch["images"], batch["labels"]))
            yield images, labels, index, np.arange(number, number + 1, dtype=np.int32)

    def position(self, batch: int) -> dict[str, Any]:
        return self._stream.get_state() | {"next_batch": batch}

    def check(self, position: dict[str, Any]) -> None:
        """Raises a RunError if the position belongs to other batches."""
        try:
            self._batches.set_state(position)
        except ValueError as error:
            raise RunError(f"the checkpoint belongs to other batches: {error}") from None
        self._next = position["next_batch"]

    def close(self) -> None:
        self._batches.close()
        self._stream.close()


def steps_per_call() -> int:
    """On an accelerator many, or the host would be in the way; on a CPU few, so that it answers to signals."""
    return 4 if jax.default_backend() == "cpu" else 32
