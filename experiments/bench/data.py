"""`python -m experiments.bench data`: images a second and core, of JPEG decoders and of ImageNet's whole pipeline."""

import contextlib
import io
import itertools
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image

from ..data.imagenet import jpeg
from ..data.imagenet.stream import cores, imagenet
from ..data.in_memory import tfds_dir
from ..data.tfds_source import NAME, Prepared

Decode = Callable[[bytes, int], np.ndarray]  # of a JPEG and 1, or 2 for half of its scale
OPENCV = {1: cv2.IMREAD_COLOR_RGB, 2: cv2.IMREAD_REDUCED_COLOR_2}


def data(
    rate: float | None = None,
    images: int = 256,
    rounds: int = 3,
    workers: int | None = None,
    batch_size: int = 256,
    data_dir: Path | None = None,
) -> None:
    """Decoders, crops and the whole pipeline, in images per second of one core's time.

    Args:
      rate: images a second that the accelerator takes, as measured there; for the number of cores that feed it.
      images: how many of the training images are decoded.
      rounds: in each, every row takes its turn; medians are shown.
      workers: of the pipeline with workers; None: as many as there are cores.
      batch_size: of the pipeline.
      data_dir: where TFDS keeps its data; None for TFDS_DATA_DIR.
    """
    prepared = Prepared("train", tfds_dir(data_dir))
    stored = prepared.read(range(min(images, prepared.check())))
    print(f"{cores()} cores; images a second of one core's time, medians of {rounds} rounds")
    _half([example["image"] for example in stored])
    sets = {
        "as they are stored": stored,
        "500 pixels long, quality 96, 4:4:4, as most of ImageNet": [_scaled(x, 500, 96, "444") for x in stored],
        "1500 pixels long, quality 90, 4:2:0, as its largest": [_scaled(x, 1500, 90, "420") for x in stored[::8]],
    }
    for name, examples in sets.items():
        jpegs = [example["image"] for example in examples]
        pixels = np.mean([np.prod(_pillow(one, 1).shape[:2]) for one in jpegs])
        print(
            f"\n{len(jpegs)} images {name}: on average {pixels:,.0f} pixels, {np.mean([*map(len, jpegs)]):,.0f} bytes"
        )
        _decoders(jpegs, rounds)
        _crops(jpegs, rounds)
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), {"train": [examples]})
            _pipeline(folder, batch_size, cores() if workers is None else workers, rate)


def _pillow(one: bytes, scale: int) -> np.ndarray:
    image = Image.open(io.BytesIO(one))
    if scale > 1:
        image.draft("RGB", (-(-image.width // scale), -(-image.height // scale)))
    return np.asarray(image.convert("RGB"))


def _opencv(one: bytes, scale: int) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(one, np.uint8), OPENCV[scale] | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise ValueError("no image")
    return image if scale == 1 else image[:, :, ::-1]


def _simplejpeg(one: bytes, scale: int) -> np.ndarray:
    height, width = (-(-int(side) // scale) for side in simplejpeg.decode_jpeg_header(one)[:2])
    return simplejpeg.decode_jpeg(one, min_height=height, min_width=width, min_factor=scale)


DECODERS: dict[str, Decode] = {"Pillow": _pillow, "OpenCV": _opencv, "simplejpeg": _simplejpeg}


def _half(jpegs: list[bytes]) -> None:
    """What a decoder makes of a JPEG of which the second half is missing."""
    for name, decode in DECODERS.items():
        rejected = 0
        for one in jpegs:
            try:
                decode(one[: len(one) // 2], 1)
            except (ValueError, OSError):
                rejected += 1
        print(f"  {name:12s} rejects {rejected} of {len(jpegs)} images cut in half")


def _decoders(jpegs: list[bytes], rounds: int) -> None:
    calls = {(name, scale): lambda one, _, d=d, s=scale: d(one, s) for name, d in DECODERS.items() for scale in (1, 2)}
    speeds = _per_core(calls, jpegs, rounds)
    for name in DECODERS:
        print(f"  decode  {name:32s} {speeds[name, 1]:6.0f} /s  at half scale {speeds[name, 2]:6.0f} /s")


def _crops(jpegs: list[bytes], rounds: int) -> None:
    """Decoding, random crop and resizing; how far the pixels are from Pillow's."""
    area = lambda crop: cv2.resize(crop, (224, 224), interpolation=cv2.INTER_AREA)
    linear = lambda crop: cv2.resize(crop, (224, 224), interpolation=cv2.INTER_LINEAR)
    filtered = lambda crop: np.asarray(Image.fromarray(crop).resize((224, 224), Image.Resampling.BILINEAR))
    ours = lambda crop: jpeg.resize(crop, 224)
    calls: dict[str, Callable[[bytes, int], np.ndarray]] = {
        "Pillow, its BILINEAR": lambda one, seed: _crop(_pillow, filtered, one, seed),
        "OpenCV, its INTER_AREA": lambda one, seed: _crop(_opencv, area, one, seed),
        "simplejpeg, Pillow's BILINEAR": lambda one, seed: _crop(_simplejpeg, filtered, one, seed),
        "simplejpeg, OpenCV's INTER_AREA": lambda one, seed: _crop(_simplejpeg, area, one, seed),
        "simplejpeg, OpenCV's INTER_LINEAR": lambda one, seed: _crop(_simplejpeg, linear, one, seed),
        "simplejpeg, samples": lambda one, seed: _crop(_simplejpeg, ours, one, seed),
        "simplejpeg, reduced, samples: ours": lambda one, seed: jpeg.training_crop(
            one, 224, np.random.default_rng(seed)
        ),
    }
    speeds = _per_core(calls, jpegs, rounds)
    reference = [next(iter(calls.values()))(one, seed).astype(int) for seed, one in enumerate(jpegs)]
    for name, call in calls.items():
        off = np.abs([call(one, seed) - reference[seed] for seed, one in enumerate(jpegs)])
        print(
            f"  crop    {name:34s} {speeds[name]:6.0f} /s  {np.mean(off):4.2f} grey levels from the first, "
            f"99 % within {np.percentile(off, 99):.0f}"
        )
    speed = _per_core({"evaluation": lambda one, seed: jpeg.evaluation_crop(one, 224)}, jpegs, rounds)["evaluation"]
    print(f"  evaluation crop: simplejpeg, Pillow's BILINEAR    {speed:6.0f} /s")


def _crop(decode: Decode, resize: Callable[[np.ndarray], np.ndarray], one: bytes, seed: int) -> np.ndarray:
    """The crop that `training_crop` takes, by other means."""
    rng = np.random.default_rng(seed)
    image = decode(one, 1)
    (top, left, rows, columns), _ = jpeg.training_box(image.shape[0], image.shape[1], 224, rng)
    crop = resize(image[top : top + rows, left : left + columns])
    return cv2.flip(crop, 1) if rng.random() < 0.5 else crop


def _per_core(calls: dict, jpegs: list[bytes], rounds: int) -> dict:
    """Images per second of processor time, which others on the machine do not change much."""
    speeds: dict = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            begin = time.process_time()
            for seed, one in enumerate(jpegs):
                call(one, seed)
            speeds[name].append(len(jpegs) / (time.process_time() - begin))
    return {name: float(np.median(measured)) for name, measured in speeds.items()}


def _pipeline(folder: str, batch_size: int, workers: int, rate: float | None) -> None:
    """Reading, decoding, cropping and batching: in this process alone, and with workers."""
    examples = Prepared("train", folder).check()
    for count in {0: None, workers: None}:
        epochs = -(-(20 if count else 6) * batch_size // examples)
        settings = {"epochs": epochs, "data_dir": folder, "process": (0, 1)}
        with contextlib.closing(imagenet("train", batch_size, train=True, workers=count, **settings)) as stream:
            next(stream)
            begin, here, there = time.perf_counter(), time.process_time(), _children()
            images = sum(len(batch["labels"]) for batch in itertools.islice(stream, len(stream) - 1))
            wall, here, there = time.perf_counter() - begin, time.process_time() - here, _children() - there
        speed = images / (here + there)
        print(
            f"  pipeline, {count} workers: {images / wall:.0f} images a second; {speed:.0f} per second of one core, "
            f"{here / (here + there):.0%} of that in the process that trains"
        )
    needed = "" if rate is None else f"; for R = {rate:.0f}: {rate / speed:.1f} cores"
    print(f"  cores needed = R / ({speed:.0f} images/s per core) for R images a second{needed}")


def _children() -> float:
    """Seconds of processor time of the processes that this one has started and not ended."""
    ticks = 0
    for child in multiprocessing.active_children():
        fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # user and system time
    return ticks / os.sysconf("SC_CLK_TCK")


def _scaled(example: dict, longer: int, quality: int, subsampling: str) -> dict:
    image = Image.fromarray(simplejpeg.decode_jpeg(example["image"]))
    factor = longer / max(image.size)
    image = image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.LANCZOS)
    encoded = simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=quality, colorsubsampling=subsampling)
    return {**example, "image": encoded}


def write(data_dir: Path, splits: dict[str, list[list[dict]]], data_set: str = NAME) -> Path:
    """Prepares a data set from {TFDS split: files of examples}, images as files' bytes; the folder of the files."""
    builder: Any = tfds.builder(data_set, data_dir=data_dir)
    folder = Path(builder.data_path)
    folder.mkdir(parents=True)
    for split, files in splits.items():
        for number, examples in enumerate(files):
            name = f"{data_set}-{split}.array_record-{number:05d}-of-{len(files):05d}"
            writer = ArrayRecordWriter(os.fspath(folder / name), "group_size:1")
            for example in examples:
                writer.write(builder.info.features.serialize_example(example))
            writer.close()
    described = [
        {
            "name": split,
            "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            "shardLengths": [str(len(examples)) for examples in files],
            "numBytes": str(sum(len(example["image"]) for examples in files for example in examples)),
        }
        for split, files in splits.items()
    ]
    info = {"name": data_set, "version": str(builder.version), "fileFormat": "array_record", "splits": described}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder
