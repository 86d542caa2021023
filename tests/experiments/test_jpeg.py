"""From a JPEG to a crop, held against Pillow."""

import io

import numpy as np
import pytest
from PIL import Image

from experiments.data.imagenet import jpeg
from helpers.small_imagenet import SIZE, as_jpeg, picture


def reference(one: bytes, size: int) -> np.ndarray:
    """What torchvision's Resize and CenterCrop make of an image that Pillow has read."""
    image = Image.open(io.BytesIO(one)).convert("RGB")
    shorter, longer = round(size * 8 / 7), round(size * 8 / 7) * max(image.size) // min(image.size)
    width, height = (shorter, longer) if image.width < image.height else (longer, shorter)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return np.asarray(image.crop((left, top, left + size, top + size)))


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 334), (256, 256), (64, 800), (20, 30)])
def test_the_evaluation_crop_is_the_one_of_published_accuracies(height, width):
    one = picture(np.random.default_rng(0), height, width)
    crop = jpeg.evaluation_crop(one, 224)
    assert crop.shape == (224, 224, 3)
    assert np.abs(crop.astype(int) - reference(one, 224)).max() <= 1


@pytest.mark.parametrize(("height", "width"), [(375, 500), (1500, 1100), (130, 120), (1, 700), (700, 1), (1, 1)])
def test_the_training_crop_is_its_box_as_pillow_would_resize_it(height, width):
    one = picture(np.random.default_rng(1), height, width)
    image = np.asarray(Image.open(io.BytesIO(one)))
    reductions, mirrors = set(), set()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        (top, left, rows, columns), reduction = jpeg.training_box(height, width, 100, rng)
        mirrored = rng.random() < 0.5
        cut = Image.fromarray(image[top : top + rows, left : left + columns])
        expected = np.asarray(cut.resize((100, 100), Image.Resampling.BILINEAR)).astype(int)
        crop = jpeg.training_crop(one, 100, np.random.default_rng(seed))
        assert crop.shape == (100, 100, 3)
        off = np.abs(crop - (expected[:, ::-1] if mirrored else expected))
        assert off.mean() < 1.5
        assert np.percentile(off, 99) <= 12
        reductions.add(reduction)
        mirrors.add(mirrored)
    assert mirrors == {True, False}
    assert max(reductions) == (8 if height == 1500 else 2 if height == 375 else 1)


def test_training_boxes_are_spread_as_they_should_be():
    boxes = [jpeg.training_box(600, 800, 600, np.random.default_rng(seed))[0] for seed in range(2000)]
    tops, lefts, rows, columns = np.array(boxes, float).T
    assert ((tops >= 0) & (lefts >= 0) & (tops + rows <= 600) & (lefts + columns <= 800)).all()
    shares, aspects = rows * columns / 480_000, columns / rows
    assert shares.min() < 0.1
    assert shares.max() > 0.9
    assert 0.74 < aspects.min() < 0.78
    assert 1.28 < aspects.max() < 1.35
    assert abs(np.median(aspects) - 1) < 0.05
    assert abs(np.mean(tops / np.maximum(600 - rows, 1)) - 0.5) < 0.05
    assert jpeg.training_box(10, 1000, 224, np.random.default_rng(0))[0] == (0, 493, 10, 13)  # none of ten fits


def test_grey_images_get_three_channels():
    crop = jpeg.training_crop(as_jpeg("L"), SIZE, np.random.default_rng(0))
    assert crop.shape == (SIZE, SIZE, 3)
    assert np.abs(crop.astype(int) - 120).max() <= 1
