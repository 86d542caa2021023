"""Small data sets whose files are missing, cut off or hold other images than they should: named by file."""

import io

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image

from experiments.bench.data import write
from experiments.comparison.config import Comparison
from experiments.comparison.setup import make_setup
from experiments.data import in_memory
from experiments.data import load as data_load
from experiments.data.dataset import Split
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
    assert dataset.test.inputs[4].tolist() == np.full((28, 28, 1), 11).tolist()


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


@pytest.mark.parametrize("label", [-1, 10, 255])
def test_a_label_that_is_no_class_is_named_by_its_record(tmp_path, monkeypatch, label):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = write(tmp_path, {"train": files(5), "test": files(3)}, "mnist")
    image, classes = tfds.features.Image(shape=(28, 28, 1)), tfds.features.Scalar(np.int64)  # of other classes
    features = tfds.features.FeaturesDict({"image": image, "label": classes})
    writer = ArrayRecordWriter(str(folder / "mnist-train.array_record-00001-of-00002"), "group_size:1")
    for i in range(5):
        writer.write(features.serialize_example({"image": png(), "label": label if i == 2 else i}))
    writer.close()
    with pytest.raises(RunError) as caught:
        load("mnist", 2, tmp_path)
    place = f"record 2 of {folder}/mnist-train.array_record-00001-of-00002 (index 7 of train)"
    assert str(caught.value) == f"{place} has the label {label} instead of 0 to 9; prepare it anew."


def test_a_cache_of_other_labels_is_made_anew(prepared):
    """Someone else's array in the cache, or a damaged one, is not trained on."""
    before = load("mnist", 2, prepared[0])
    for path in in_memory.cache_dir().glob("mnist-*.npz"):
        with np.load(path) as arrays:
            images, labels = arrays["images"], arrays["labels"] + 10
        np.savez(path, images=images, labels=labels)
    after = load("mnist", 2, prepared[0])
    assert after.test.labels.tolist() == before.test.labels.tolist()


@pytest.mark.parametrize("which", ["train", "test"])
@pytest.mark.parametrize("label", [-1, 10])
def test_labels_that_are_no_classes_are_named_before_any_training(monkeypatch, which, label):
    images, labels = np.zeros((20, 8, 8, 1), np.uint8), np.arange(20, dtype=np.int32) % 10
    strange = labels.copy()
    strange[[3, 9]] = label
    parts = [Split(images, strange if which == name else labels) for name in ("train", "test")]
    monkeypatch.setattr(data_load, "digits", lambda: (*parts, 16))
    message = rf"digits, {which}: image 3 has the label {label}, expected 0 to 9 \(2 of 20 are outside\)"
    with pytest.raises(RunError, match=message):
        load("digits", 5)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((4, 8, 8, 1)), np.zeros(4, int), r"^inputs: expected images, .*; got float64 \[4, 8, 8, 1\]"),
        (np.zeros((4, 8, 8), np.uint8), np.zeros(4, int), r"^inputs: .*uint8 \[n, length\]; got uint8 \[4, 8, 8\]"),
        (np.zeros((4, 8, 8, 1), np.uint8), np.zeros(4), r"^labels: expected whole numbers, \[4\].*, got float64 \[4\]"),
        (np.zeros((4, 8, 8, 1), np.uint8), np.zeros((4, 10), int), r"^labels: .*, got int64 \[4, 10\]"),  # one-hot
        (np.zeros((4, 8, 8, 1), np.uint8), np.zeros(5, int), r"^labels: .*\[4\] like the inputs, got int64 \[5\]"),
        (np.zeros((4, 8, 8, 1), np.uint8), [0, 1, 2, 3], r"^labels: .*, got list"),
        (np.zeros((4, 8), np.uint8), np.zeros(4, int), r"^labels: .*\[4, 8\] like the inputs, got int64 \[4\]"),
    ],
)
def test_inputs_and_labels_of_another_kind_are_rejected(images, labels, message):
    with pytest.raises(RunError, match=message):
        Split(images, labels)


@pytest.mark.filterwarnings(
    "ignore:path_speed. .* is a vector of ones"
)  # of the normalisations, which is not the point
def test_a_comparison_has_as_many_outputs_as_the_data_has_classes(monkeypatch):
    """With ten outputs, the loss of a label from 10 to 99 would be a number all the same."""
    images, labels = np.zeros((100, 32, 32, 3), np.uint8), np.arange(100, dtype=np.int32)
    monkeypatch.setattr(data_load, "from_tfds", lambda *_: (Split(images, labels), Split(images, labels), 255))
    config = Comparison(dataset="cifar100", model="resnet20", validation=20, batch_size=16, epochs=1)
    assert make_setup(config).variables["head"]["bias"].shape == (100,)
    with pytest.raises(RunError, match="cifar10, train: image 10 has the label 10, expected 0 to 9"):
        load("cifar10", 20)
