"""A small ImageNet, prepared by the tests, and its batches."""

import contextlib
import io

import numpy as np
import simplejpeg
from PIL import Image

from experiments.data.imagenet.stream import imagenet

SIZE = 24
TRAIN, TEST = (27, 23, 20), (10, 9)  # examples of each file


def picture(rng, height: int, width: int) -> bytes:
    coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8))
    return simplejpeg.encode_jpeg(np.ascontiguousarray(coarse.resize((width, height), Image.Resampling.BICUBIC)))


def examples(counts, seed: int) -> list[list[dict]]:
    """Files of examples; the label is the example's index."""
    rng, numbers = np.random.default_rng(seed), iter(range(1000))
    shape = lambda: (int(rng.integers(SIZE, 4 * SIZE)), int(rng.integers(SIZE, 4 * SIZE)))
    one = lambda number: {"image": picture(rng, *shape()), "label": number, "file_name": f"n{seed}_{number}.JPEG"}
    return [[one(next(numbers)) for _ in range(count)] for count in counts]


def whole() -> dict[str, list[list[dict]]]:
    """{TFDS split: files of examples}."""
    return {"train": examples(TRAIN, 0), "validation": examples(TEST, 1)}


def batches(data_dir, split="train", batch_size=16, **options) -> list[dict[str, np.ndarray]]:
    options = {"train": True, "size": SIZE, "workers": 0, "seed": 5, "process": (0, 1), **options}
    with contextlib.closing(imagenet(split, batch_size, data_dir=data_dir, **options)) as stream:
        return list(stream)


def as_jpeg(mode: str) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (50, 40), 120 if mode == "L" else (10, 20, 30, 40)).save(file, "JPEG")
    return file.getvalue()
