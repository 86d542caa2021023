"""From a JPEG to what a network sees of it: uint8 [size, size, 3].

Three libraries, each for what it does best (`python -m experiments.bench data` measures them): simplejpeg decodes, the
fastest and strict about images that end early; OpenCV resizes the crops of training; Pillow, slower but the filter that
published accuracies were evaluated with, those of evaluation.
"""

import functools
import math

import cv2
import numpy as np
import simplejpeg
from PIL import Image

Box = tuple[int, int, int, int]  # top, left, height, width


def training_crop(jpeg: bytes, size: int, rng: np.random.Generator, strict: bool = True) -> np.ndarray:
    """A random resized crop, mirrored in half of the cases (the augmentation of Inception and of torchvision).

    Where the box is twice the size or more, the image is decoded at 1/2, 1/4 or 1/8 of its scale, which the JPEG's
    cosines allow without decoding the rest; the edges of such a box are multiples of 2, 4 or 8.

    Args:
      jpeg: the bytes of the file.
      size: height and width of the crop.
      rng: what decides on the box and the mirror.
      strict: reject an image that is damaged but can be decoded in part.

    Returns:
      uint8 [size, size, 3], red, green, blue.

    Raises:
      ValueError: the bytes are not a JPEG, end early, or are neither RGB nor grey.
    """
    height, width = _shape(jpeg, strict)
    box, reduction = training_box(height, width, size, rng)
    mirrored = rng.random() < 0.5
    image = simplejpeg.decode_jpeg(
        jpeg, min_height=-(-height // reduction), min_width=-(-width // reduction), min_factor=reduction, strict=strict
    )
    top, left, rows, columns = (edge // reduction for edge in box)
    crop = resize(image[top : top + rows, left : left + columns], size)
    return cv2.flip(crop, 1) if mirrored else crop  # a view [:, ::-1] would take its reader 0.3 ms to copy


def evaluation_crop(jpeg: bytes, size: int, strict: bool = True) -> np.ndarray:
    """The centre of the image resized so that its shorter side has 8/7 of `size`: 224 pixels of 256.

    Args, returns and raises as `training_crop`.
    """
    height, width = _shape(jpeg, strict)
    shorter = round(size * 8 / 7)
    columns, rows = (max(shorter, shorter * side // min(height, width)) for side in (width, height))
    left, top = round((columns - size) / 2), round((rows - size) / 2)
    image = Image.fromarray(simplejpeg.decode_jpeg(jpeg, strict=strict))
    resized = image.resize((columns, rows), Image.Resampling.BILINEAR)
    return np.asarray(resized.crop((left, top, left + size, top + size)))


def training_box(height: int, width: int, size: int, rng: np.random.Generator) -> tuple[Box, int]:
    """A random box, and the reduction at which it can be decoded and still has `size` pixels a side."""
    box = _random_box(height, width, rng)
    reduction = next((k for k in (8, 4, 2) if min(box[2:]) >= k * size), 1)
    top, left, rows, columns = (edge // reduction * reduction for edge in box)
    return (top, left, rows, columns), reduction


def _random_box(height: int, width: int, rng: np.random.Generator) -> Box:
    """A box of 8 to 100 % of the area, with an aspect ratio of 3/4 to 4/3, uniform in its logarithm.

    After ten boxes that do not fit, the largest box in the centre with a ratio in the range.
    """
    for _ in range(10):
        area = height * width * rng.uniform(0.08, 1)
        aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        rows, columns = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < rows <= height and 0 < columns <= width:
            return int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1)), rows, columns
    rows, columns = min(height, round(width * 4 / 3)), min(width, round(height * 4 / 3))
    return (height - rows) // 2, (width - columns) // 2, rows, columns


@functools.cache
def _one_thread() -> None:
    """Once in each process that resizes: a worker is one thread, and OpenCV's pool would fight with the others."""
    cv2.setNumThreads(0)


def _shape(jpeg: bytes, strict: bool) -> tuple[int, int]:
    height, width, colours, _ = simplejpeg.decode_jpeg_header(jpeg, strict=strict)
    if colours in ("CMYK", "YCCK"):  # decoded all the same, with wrong colours
        raise ValueError(f"its pixels are {colours} instead of RGB or grey")
    return int(height), int(width)


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Bilinear; the mean of n×n samples a pixel, where no two samples are more than a pixel of the image apart.

    Nearer to Pillow's filter than OpenCV's own INTER_AREA, and faster: integer factors have a path of their own.
    """
    _one_thread()
    samples = math.ceil(max(image.shape[:2]) / size)
    fine = cv2.resize(image, (samples * size, samples * size), interpolation=cv2.INTER_LINEAR)
    return fine if samples == 1 else cv2.resize(fine, (size, size), interpolation=cv2.INTER_AREA)
