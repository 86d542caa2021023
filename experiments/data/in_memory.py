"""Images and labels in memory: uint8 arrays, decoded once."""

import contextlib
import hashlib
import json
import os
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import numpy as np

from ..errors import RunError
from ..runs.files import whole_file
from .dataset import Split, classes_of


def digits() -> tuple[Split, Split, int]:
    """1,797 images of 8×8 pixels with values from 0 to 16, embedded in scikit-learn; every fifth is a test image."""
    # Where `sklearn.datasets.load_digits` reads them; its import takes a tenth of a short run.
    file = distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
    table = np.loadtxt(str(file), dtype=np.uint8, delimiter=",")
    images, labels = table[:, :-1].reshape(-1, 8, 8, 1), table[:, -1].astype(np.int32)
    test = np.arange(len(labels)) % 5 == 0
    return Split(images[~test], labels[~test]), Split(images[test], labels[test]), 16


def from_tfds(name: str, data_dir: Path | None) -> tuple[Split, Split, int]:
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

    from .tfds_source import readable

    with readable(name, directory := tfds_dir(data_dir)):
        return tfds.builder(name, data_dir=directory, file_format="array_record")


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
    classes = classes_of(builder.name)
    if cache.exists():
        with contextlib.suppress(OSError, ValueError, KeyError, zipfile.BadZipFile, RunError), np.load(cache) as arrays:
            cached = Split(arrays["images"], arrays["labels"])
            if not len(cached.strange(classes)):  # it is not damaged
                return cached
    from .tfds_source import Prepared, readable  # which needs TFDS

    prepared = Prepared(split, os.fspath(builder.data_dir_root), builder.name)
    examples = prepared.read(range(prepared.check()))
    with readable(builder.name, os.fspath(builder.data_dir_root)):
        shape = builder.info.features["image"].shape
    for index, example in enumerate(examples):
        if (found := example["image"].shape) != shape:
            raise RunError(
                f"{prepared.place(index)} has an image of shape {found} instead of {shape}; prepare it anew."
            )
        if not 0 <= (label := int(example["label"])) < classes:
            raise RunError(
                f"{prepared.place(index)} has the label {label} instead of 0 to {classes - 1}; prepare it anew."
            )
    images = np.stack([example["image"] for example in examples])
    labels = np.array([example["label"] for example in examples], np.int32)
    cache.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(cache, shared=True) as file:
        np.savez(file, images=images, labels=labels)
    return Split(images, labels)


def cache_dir() -> Path:
    """Where decoded images are kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "parsimony"
