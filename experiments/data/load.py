"""A data set by name, and which of its training images are held out."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from ..config import TEXTS
from ..errors import RunError
from ..metrics import metric_of
from . import text
from .dataset import Dataset, Split, classes_of
from .in_memory import digits, from_tfds


def load(
    name: str,
    validation: int,
    data_dir: Path | None = None,
    images: int | None = None,
    size: int = 224,
    workers: int | None = None,
    image_size: int | None = None,
) -> Dataset:
    """A data set by name, with `validation` examples held out of the training set, the same ones every time.

    Of the others the first `images` are kept, or all. `size`: the height and width of ImageNet's crops, or the length
    of the pieces of a text; `workers`: the processes that decode ImageNet. `image_size`: the images of the other sets
    are averaged down to it.
    """
    if name == "imagenet2012":
        from .imagenet import split

        if images is not None:
            raise RunError(f"{name} is read from disk as it is, so --images cannot choose {images} of its images.")
        if image_size is not None:
            raise RunError(f"{name} is cropped to the size of the model; leave --image-size {image_size} out.")
        return split.dataset(validation, data_dir, size, workers)
    if name in TEXTS:
        train, test, maximum = text.pieces(text.python_docs(), size)
    else:
        train, test, maximum = digits() if name == "digits" else from_tfds(name, data_dir)
    for split, examples in [("train", train), ("test", test)]:
        _check_labels(examples, name, split)
    if image_size is not None:
        train, test = (averaged(split, image_size, name) for split in (train, test))
    held_out, kept = held_out_and_kept(name, len(train), validation)
    if images is not None and images > len(train) - validation:
        raise RunError(f"{name} has {len(train) - validation} training examples after validation, not {images}.")
    kept = kept[:images]
    part = lambda index: Split(train.inputs[index], train.labels[index])
    mean, std = (0.0,), (float(maximum),)
    if train.shape[2:] == (3,):
        mean, std = _moments(part(kept).inputs)
    record = text.source(name) | held_out_record(len(train), held_out)
    return Dataset(part(kept), part(held_out), test, maximum, mean, std, record, metric_of(name))


def _check_labels(split: Split, name: str, which: str) -> None:
    classes = classes_of(name)
    if len(wrong := split.strange(classes)):
        raise RunError(
            f"{name}, {which}: image {wrong[0]} has the label {split.labels[wrong[0]]}, expected 0 to {classes - 1} "
            f"({len(wrong)} of {len(split)} are outside). Correct the labels, or leave these images out."
        )


def averaged(split: Split, size: int, name: str) -> Split:
    """The images at another height and width: each pixel the mean of a block of pixels, rounded.

    Examples:
      >>> pixels = np.array([[0, 1, 8, 8], [1, 1, 8, 9]] * 2, np.uint8)[None, :, :, None]
      >>> averaged(Split(pixels, np.zeros(1, np.int32)), 2, "four").inputs[0, :, :, 0].tolist()
      [[1, 8], [1, 8]]
    """
    number, height, width, channels = split.inputs.shape
    if height != width or not 0 < size <= height or height % size:
        sizes = [part for part in range(1, height + 1) if height % part == 0]
        raise RunError(f"image_size {size}: images of {name} are {height}×{width}; expected one of {sizes}.")
    block = height // size
    total = np.zeros((number, size, size, channels), np.uint32)
    for row in range(block):
        for column in range(block):
            total += split.inputs[:, row::block, column::block]
    return Split(((total + block**2 // 2) // block**2).astype(np.uint8), split.labels)


def held_out_record(total: int, held_out: np.ndarray) -> dict[str, Any]:
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
