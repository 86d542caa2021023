"""Images and labels in memory: uint8 arrays, decoded once."""

import contextlib
import dataclasses
import hashlib
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .errors import RunError


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
    ImageNet are on disk (`streamed.Streamed`): they have `len` and `parts`, but no arrays.
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


def load(
    name: str,
    validation: int,
    data_dir: Path | None = None,
    images: int | None = None,
    size: int = 224,
    workers: int | None = None,
) -> Dataset:
    """A data set by name, with `validation` images held out of the training set, the same ones every time.

    Of the others the first `images` are kept, or all. `size` and `workers` are about ImageNet: the height and width
    of its crops, and the processes that decode.
    """
    if name == "imagenet2012":
        from . import streamed

        if images is not None:
            raise RunError(f"{name} is read from disk as it is, so --images cannot choose {images} of its images.")
        return streamed.dataset(validation, data_dir, size, workers)
    train, test, maximum = _digits() if name == "digits" else _tfds(name, data_dir)
    held_out, kept = held_out_and_kept(name, len(train), validation)
    if images is not None and images > len(train) - validation:
        raise RunError(f"{name} has {len(train) - validation} training images after validation, not {images}.")
    kept = kept[:images]
    part = lambda index: Split(train.images[index], train.labels[index])
    mean, std = (0.0,), (float(maximum),)
    if train.images.shape[-1] == 3:
        mean, std = _moments(part(kept).images)
    return Dataset(part(kept), part(held_out), test, maximum, mean, std, told(len(train), held_out))


def told(total: int, held_out: np.ndarray) -> dict[str, Any]:
    """Which training images are held out, for the record of a run."""
    rule = f"sorted(numpy.random.default_rng(0).permutation({total})[:{len(held_out)}])"
    return {"indices": rule, "sha256": fingerprint(held_out)}


def fingerprint(indices: np.ndarray) -> str:
    """SHA-256 of ascending indices."""
    return hashlib.sha256(indices.astype("<i8").tobytes()).hexdigest()


def held_out_and_kept(name: str, total: int, validation: int) -> tuple[np.ndarray, np.ndarray]:
    """Ascending indices of the training images that are held out for validation, and of the others."""
    if validation >= total:
        raise RunError(f"{name} has {total} training images, so {validation} cannot be held out for validation.")
    order = np.random.default_rng(0).permutation(total)
    return np.sort(order[:validation]), np.sort(order[validation:])


def _moments(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel."""
    values, moments = np.arange(256), []
    for channel in range(images.shape[-1]):  # by counting: floating copies of all images would fill the memory
        share = np.bincount(images[..., channel].ravel(), minlength=256) / images[..., channel].size
        mean = float(share @ values)
        moments.append((mean, float(np.sqrt(share @ (values - mean) ** 2))))
    means, stds = zip(*moments, strict=True)
    return means, stds


def _digits() -> tuple[Split, Split, int]:
    """1,797 images of 8×8 pixels with values from 0 to 16, embedded in scikit-learn; every fifth is a test image."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1).astype(np.uint8)
    test = np.arange(len(labels)) % 5 == 0
    labels = labels.astype(np.int32)
    return Split(images[~test], labels[~test]), Split(images[test], labels[test]), 16


def _tfds(name: str, data_dir: Path | None) -> tuple[Split, Split, int]:
    builder = _builder(name, data_dir)
    if not (Path(builder.data_path) / "dataset_info.json").exists():
        where = f" --data-dir {data_dir}" if data_dir else ""
        raise RunError(
            f"{name} is not prepared in {builder.data_dir}: run `python -m experiments prepare {name}{where}` "
            "on a machine with network access, or point TFDS_DATA_DIR to where it is."
        )
    return _decoded(builder, "train"), _decoded(builder, "test"), 255


def prepare(name: str, data_dir: Path | None = None) -> str:
    """Downloads and prepares a TFDS data set as ArrayRecord; the folder it lies in."""
    builder = _builder(name, data_dir)
    try:
        builder.download_and_prepare(file_format="array_record")
    except ImportError as error:
        raise RunError(f"preparing {name} needs TensorFlow once: pip install -e '.[prepare]' ({error}).") from error
    except Exception as error:  # whatever the downloader raises, the user needs the same sentence
        raise RunError(f"{name} could not be prepared in {builder.data_dir}: {error}.") from error
    return os.fspath(builder.data_path)


def _builder(name: str, data_dir: Path | None):
    import tensorflow_datasets as tfds

    return tfds.builder(name, data_dir=tfds_dir(data_dir), file_format="array_record")


def tfds_dir(data_dir: str | os.PathLike | None) -> str | None:
    """Where TFDS keeps its data: as given, or as TFDS_DATA_DIR says; None is TFDS's own choice."""
    directory = data_dir or os.environ.get("TFDS_DATA_DIR")
    return None if directory is None else os.fspath(directory)


def _decoded(builder, split: str) -> Split:
    """A split as arrays; from the cache where the prepared files are still those it was made of."""
    files = sorted(Path(builder.data_path).glob(f"*-{split}.array_record-*"))
    stamp = [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in files]
    key = hashlib.sha256(json.dumps([os.fspath(builder.data_path), stamp]).encode()).hexdigest()[:16]
    cache = cache_dir() / f"{builder.name}-{split}-{key}.npz"
    if cache.exists():
        with contextlib.suppress(OSError, ValueError, KeyError, zipfile.BadZipFile), np.load(cache) as arrays:
            return Split(arrays["images"], arrays["labels"])  # if it is not damaged
    from .prepared import Prepared  # which needs TFDS

    prepared = Prepared(split, os.fspath(builder.data_dir_root), builder.name)
    examples = prepared.read(range(prepared.check()))
    shape = builder.info.features["image"].shape
    for index, example in enumerate(examples):
        if example["image"].shape != shape:
            own = example["image"].shape
            raise RunError(f"{prepared.place(index)} has an image of shape {own} instead of {shape}; prepare it anew.")
    images = np.stack([example["image"] for example in examples])
    labels = np.array([example["label"] for example in examples], np.int32)
    cache.parent.mkdir(parents=True, exist_ok=True)
    partial = cache.with_name(f"{cache.name}.{os.getpid()}.part")
    with partial.open("wb") as file:
        np.savez(file, images=images, labels=labels)
    partial.replace(cache)  # a reader finds a whole file or none
    return Split(images, labels)


def cache_dir() -> Path:
    """Where decoded images are kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "parsimony"
