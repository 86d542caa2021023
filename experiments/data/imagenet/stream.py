"""ImageNet as an iterator: Grain's workers in front, devices behind, and a position that a checkpoint holds."""

import gc
import os
import shutil
from pathlib import Path

import grain
import jax
import numpy as np

from ...errors import RunError, unknown
from ...runs.folder import differences
from ..in_memory import tfds_dir
from ..placement import of_each_device
from ..sampler import Sampler
from ..tfds_source import Prepared
from .batches import PART, TFDS_SPLITS, Parts, split_indices


def imagenet(
    split: str,
    batch_size: int,
    *,
    train: bool,
    seed: int = 0,
    epochs: int = 1,
    size: int = 224,
    validation: int = 0,
    data_dir: str | os.PathLike | None = None,
    workers: int | None = None,
    process: tuple[int, int] | None = None,
    accept_damaged: tuple[str, ...] = (),
    total: int | None = None,
) -> "Stream":
    """Batches of one split, epoch after epoch; the same ones whatever the number of workers, devices and processes.

    Training batches are random resized crops, half of them mirrored, in a new order each epoch; every example comes
    exactly once an epoch. A batch may hold the end of one epoch and the beginning of the next, and the last is filled
    from the epoch after. Evaluation batches are centre crops in the order of the files; the last of each epoch is
    filled with images of zeros, labelled −1. Pixels stay uint8: normalisation belongs to the compiled step.

    Args:
      split: 'train', 'validation' (`validation` examples held out of the training set, the same ones every time) or
        'test' (the 50,000 images that TFDS calls validation).
      batch_size: examples of all processes together.
      train: random crops in random order, or centre crops in order.
      seed: of order and crops.
      epochs: how often the split is gone through; for evaluation too, so that one set of workers serves a whole run.
      size: height and width of the crops.
      validation: how many training examples are held out.
      data_dir: where TFDS keeps its data; None for TFDS_DATA_DIR or TFDS's own default.
      workers: processes that decode; 0 decodes in the calling thread, None takes every core that it may use.
      process: (index, count) among the processes that share each batch; None for those of JAX.
      accept_damaged: file names (n01440764_10026.JPEG) of images of which a part will do.
      total: examples in the TFDS split, whose files were looked at before; None looks at every one of them.

    Returns:
      An iterator of {'images': uint8 [batch_size/count, size, size, 3], 'labels': int32 [batch_size/count]}.

    Raises:
      RunError: for data that is not prepared, or missing, truncated or damaged: a sentence that names the file.
      ValueError: for arguments that make no sense.
    """
    if split not in TFDS_SPLITS:
        raise ValueError(unknown("split", split, TFDS_SPLITS))
    index, count = process or (jax.process_index(), jax.process_count())
    if not 0 <= index < count:
        raise ValueError(f"process is ({index}, {count}); its index must be 0 to count − 1.")
    if batch_size < 1 or batch_size % count:
        raise ValueError(f"batch_size {batch_size} does not divide among {count} processes; choose a multiple.")
    least = {"seed": (seed, 0), "epochs": (epochs, 1), "size": (size, 1), "workers": (workers or 0, 0)}
    least["validation"] = (validation, 1 if split == "validation" else 0)
    for name, (given, bound) in least.items():
        if given < bound:
            raise ValueError(f"{name} is {given}; it must be {bound} or more.")
    directory = tfds_dir(data_dir)
    if total is None:
        total = Prepared(TFDS_SPLITS[split], directory).check()
    examples = len(split_indices(split, validation, total))
    # An epoch of evaluation has places for what fills its last batch.
    places = examples if train else -(-examples // batch_size) * batch_size
    parts = Parts(
        split=split,
        validation=validation,
        total=total,
        sampler=Sampler(seed, places, batch_size),
        train=train,
        epochs=epochs,
        size=size,
        data_dir=directory,
        process=(index, count),
        accept_damaged=tuple(accept_damaged),
    )
    return Stream(parts, cores() if workers is None else workers)


class Stream(grain.DatasetIterator):
    """The batches of one process; its state is the number of the next batch, whatever the workers and processes."""

    def __init__(self, parts: Parts, workers: int):
        super().__init__()
        self.parts = parts
        self._workers = min(workers, len(parts))
        self._next = 0
        self._running = None
        _check_shared_memory(self._workers, PART * parts.size**2 * 3)

    def __len__(self) -> int:
        return self.end(self.parts.epochs)

    def end(self, epoch: int) -> int:
        """How many batches it takes to complete so many epochs: batches end(e) … end(e + 1) − 1 complete epoch e."""
        return self.parts.sampler.end(epoch)

    def record(self) -> dict:
        """Which examples of which data this is made of, for the record of a run."""
        return self.parts.record()

    def __next__(self) -> dict[str, np.ndarray]:
        if self._next >= len(self):
            self._stop()
            raise StopIteration
        if self._running is None:
            self._running = self._start()
        parts, count = self.parts, self.parts.local_size
        images = np.empty((count, parts.size, parts.size, 3), np.uint8)
        labels = np.empty(count, np.int32)
        try:
            for begin in range(0, count, PART):
                part = next(self._running)
                images[begin : begin + PART], labels[begin : begin + PART] = part["images"], part["labels"]
        except BaseException:  # in the middle of a batch; asked again, it begins anew with this batch
            self._stop()
            raise
        self._next += 1
        return {"images": images, "labels": labels}

    def get_state(self) -> dict:
        """The position, as JSON can hold it; the same in every process."""
        return {"next_batch": self._next, **self._identity()}

    def set_state(self, state: dict) -> None:
        """Goes on from a position of a stream of the same examples in the same order.

        Raises:
          ValueError: if the state is that of other batches.
        """
        identity = self._identity()
        if detail := differences(state, identity, identity):
            raise ValueError(f"this position belongs to other batches ({detail}).")
        if not 0 <= state["next_batch"] <= len(self):
            raise ValueError(f"this position is batch {state['next_batch']} of {len(self)}; more epochs would hold it.")
        self._stop()
        self._next = state["next_batch"]

    def close(self) -> None:
        """Ends the workers."""
        self._stop()
        super().close()

    def _identity(self) -> dict:
        parts, sampler = self.parts, self.parts.sampler
        same = {"split": parts.split, "validation": parts.validation, "total": parts.total}
        return same | {"batch_size": sampler.batch_size, "train": parts.train, "seed": sampler.seed}

    def _start(self):
        rest = grain.MapDataset.source(self.parts)[self._next * self.parts.per_batch :]
        parts = rest.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
        options = grain.MultiprocessingOptions(num_workers=self._workers, per_worker_buffer_size=2)
        return iter(parts.mp_prefetch(options))

    def _stop(self) -> None:
        if self._running is not None:
            self._running.close()
            self._running = None
            gc.collect()  # Grain leaves the last parts in reference cycles, and with them their shared memory


def prefetch(stream: Stream, devices=None, ahead: int = 2) -> grain.DatasetIterator:
    """The batches of a stream on the devices, `ahead` of them before they are asked for.

    Args:
      stream: of `imagenet`; from now on only to be used through the result, whose `get_state` and `set_state` are
        about the batches taken from it, not about those already under way.
      devices: local devices; None for all.
      ahead: batches on the devices beside the one in use.

    Returns:
      An iterator of {'images': uint8 [devices, batch, size, size, 3], 'labels': int32 [devices, batch]} as `jax.pmap`
      takes them without a copy.

    Raises:
      ValueError: if this process's share of a batch does not divide among the devices.
    """
    devices = jax.local_devices() if devices is None else list(devices)
    if stream.parts.local_size % len(devices):
        raise ValueError(
            f"{stream.parts.local_size} examples a process do not divide among {len(devices)} devices; "
            "choose another batch_size."
        )
    return grain.experimental.ThreadPrefetchDatasetIterator(_OnDevices(stream, devices), ahead)


class _OnDevices(grain.DatasetIterator):
    def __init__(self, stream: Stream, devices: list):
        super().__init__(stream)
        self._stream = stream
        self._shape = (len(devices), -1)
        self._sharding = of_each_device(devices)

    def __next__(self) -> dict[str, jax.Array]:
        shaped = {name: x.reshape(*self._shape, *x.shape[1:]) for name, x in next(self._stream).items()}
        return jax.device_put(shaped, self._sharding)

    def get_state(self) -> dict:
        return self._stream.get_state()

    def set_state(self, state: dict) -> None:
        self._stream.set_state(state)


def cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _check_shared_memory(workers: int, part: int) -> None:
    """Batches come from the workers through shared memory; where it is full, Linux kills the process without a word."""
    shared = Path("/dev/shm")
    needed = workers * 4 * part  # two waiting, one being handed over, one being copied
    if shared.exists() and shutil.disk_usage(shared).free < needed:
        raise RunError(
            f"{workers} workers need {needed / 1e6:.0f} MB of shared memory and {shared} has "
            f"{shutil.disk_usage(shared).free / 1e6:.0f} MB free: ask for fewer workers, or start the container with "
            "more (docker run --shm-size)."
        )
