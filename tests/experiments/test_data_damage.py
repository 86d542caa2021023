"""Small data sets whose files are missing, cut off or hold other images than they should: named by file."""

import io

import numpy as np
import pytest
from PIL import Image

from experiments.bench.data import write
from experiments.data.load import load
from experiments.errors import RunError


def png(shape=(28, 28), value=7) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full(shape, value, np.uint8)).save(file, "PNG")
    return file.getvalue()


def files(count: int) -> list[list[dict]]:
    return [[{"image": png(value=10 * number + i), "label": i} for i in range(count)] for number in range(2)]


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """mnist with 2 files of 5 training images, and of 3 test images; the cache is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path, write(tmp_path, {"train": files(5), "test": files(3)}, "mnist")


def test_whole_files_are_read(prepared):
    dataset = load("mnist", 2, prepared[0])
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (8, 2, 6)
    assert dataset.test.images[4].tolist() == np.full((28, 28, 1), 11).tolist()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "is missing; copy it again or prepare mnist anew"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1000]), "is truncated or damaged; copy it again"),
        (lambda path: path.write_bytes(b""), "is truncated or damaged; copy it again"),
    ],
    ids=["missing", "truncated", "empty"],
)
def test_a_file_that_is_not_whole_is_named(prepared, damage, message):
    directory, folder = prepared
    path = folder / "mnist-train.array_record-00001-of-00002"
    damage(path)
    with pytest.raises(RunError) as caught:
        load("mnist", 2, directory)
    assert str(caught.value).startswith(f"{path} {message}")


@pytest.mark.parametrize("how", ["empty", "half", "list", "nothing in it", "other names"])
def test_metadata_that_cannot_be_read_are_one_sentence(prepared, how):
    directory, folder = prepared
    file = folder / "dataset_info.json"
    text = file.read_text()
    damaged = {"empty": "", "half": text[: len(text) // 2], "list": "[]", "nothing in it": "{}"}
    file.write_text(damaged.get(how, text.replace("train", "trian").replace("image", "imag")))
    with pytest.raises(RunError, match=r"the metadata of mnist in .* cannot be used") as caught:
        load("mnist", 2, directory)
    assert str(caught.value).count("\n") == 0


def test_an_image_of_another_shape_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    train = files(5)
    train[1][2]["image"] = png((20, 28))
    folder = write(tmp_path, {"train": train, "test": files(3)}, "mnist")
    with pytest.raises(RunError) as caught:
        load("mnist", 2, tmp_path)
    assert "(20, 28, 1) instead of (28, 28, 1)" in str(caught.value)
    assert str(caught.value).startswith(
        f"record 2 of {folder}/mnist-train.array_record-00001-of-00002 (index 7 of train)"
    )
