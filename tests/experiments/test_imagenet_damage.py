"""What is missing, truncated, damaged or not prepared is named by file."""

import re

import numpy as np
import pytest

from experiments.bench.data import write
from experiments.data.imagenet.stream import imagenet
from experiments.errors import RunError
from helpers.small_imagenet import as_jpeg, batches, whole


@pytest.fixture(scope="module")
def files():
    return whole()


@pytest.mark.slow
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda one: {**one, "image": one["image"][: len(one["image"]) // 2]}, "Premature end of JPEG file"),
        (lambda one: {**one, "image": b""}, "JPEG"),
        (lambda one: {**one, "image": b"\x89PNG\r\n\x1a\n" + 100 * b"a"}, "JPEG"),
        (lambda one: {**one, "image": as_jpeg("CMYK")}, "pixels are CMYK instead of RGB or grey"),
    ],
    ids=["half", "empty", "png", "cmyk"],
)
def test_an_image_that_cannot_be_used_is_named(tmp_path, files, change, message, train):
    groups = [list(group) for group in files["train"]]
    groups[1][4] = change(groups[1][4])
    folder = write(tmp_path, {"train": groups})
    path = folder / "imagenet2012-train.array_record-00001-of-00003"
    with pytest.raises(RunError) as caught:
        batches(tmp_path, train=train)
    text = str(caught.value)
    assert text.startswith(f"n0_31.JPEG, record 4 of {path} (index 31 of train), cannot be used: ")
    assert message in text
    assert "accept_damaged" in text


def test_a_damaged_image_can_be_accepted_by_name(tmp_path, files):
    groups = [list(group) for group in files["train"]]
    groups[1][4] = {**groups[1][4], "image": groups[1][4]["image"][:-20]}
    write(tmp_path, {"train": groups})
    with pytest.raises(RunError, match=r"n0_31\.JPEG.*Premature end"):
        batches(tmp_path)
    found = batches(tmp_path, accept_damaged=("n0_31.JPEG",))
    assert 31 in np.concatenate([batch["labels"] for batch in found])


def written(tmp_path, files):
    folder = write(tmp_path, files)
    return folder, folder / "imagenet2012-train.array_record-00002-of-00003"


@pytest.mark.parametrize("left", [0, 1000, 65536, -1000, -1])
def test_a_truncated_file_is_named_before_any_work(tmp_path, files, left):
    _, path = written(tmp_path, files)
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(RunError, match=re.escape(f"{path} is truncated or damaged; copy it again")):
        imagenet("train", 16, train=True, data_dir=tmp_path, workers=0)
    imagenet("test", 16, train=False, data_dir=tmp_path, workers=0)  # its files are whole


def test_a_missing_file_is_named_before_any_work(tmp_path, files):
    _, path = written(tmp_path, files)
    path.unlink()
    with pytest.raises(RunError, match=re.escape(f"{path} is missing")):
        imagenet("train", 16, train=True, data_dir=tmp_path, workers=0)


def test_a_file_with_fewer_records_than_it_should_have_is_named(tmp_path, files):
    folder, path = written(tmp_path, files)
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace('"20"', '"21"'))
    with pytest.raises(RunError, match=rf"{re.escape(str(path))} .* \(it holds 20 records instead of 21\)"):
        imagenet("train", 16, train=True, data_dir=tmp_path, workers=0)


def test_a_record_that_was_overwritten_is_named(tmp_path, files):
    _, path = written(tmp_path, files)
    whole = path.read_bytes()
    start = whole.index(files["train"][2][7]["image"][-40:-10])  # the tables before are those of all
    path.write_bytes(whole[:start] + bytes(30) + whole[start + 30 :])
    with pytest.raises(RunError, match=re.escape(f"record 7 of {path} (index 57 of train) cannot be read: ")):
        batches(tmp_path)


def test_a_label_out_of_range_is_named(tmp_path, files):
    groups = [[{**one, "label": -1} for one in group] for group in files["train"]]
    write(tmp_path, {"train": groups})
    with pytest.raises(RunError, match="its label is -1 instead of 0 to 999"):
        batches(tmp_path)


def test_what_is_not_prepared_says_what_to_download_and_the_command(tmp_path):
    with pytest.raises(RunError) as caught:
        imagenet("train", 16, train=True, data_dir=tmp_path, workers=0)
    text = str(caught.value)
    assert f"`python -m experiments prepare imagenet2012 --data-dir {tmp_path}`" in text
    assert "ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar" in text
    assert f"{tmp_path}/downloads/manual" in text


def test_a_missing_split_and_another_format_are_said(tmp_path, files):
    folder = write(tmp_path, {"train": files["train"]})
    with pytest.raises(RunError, match=r"no validation split: ILSVRC2012_img_val\.tar was missing"):
        imagenet("test", 16, train=False, data_dir=tmp_path, workers=0)
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(RunError, match=r"as tfrecord, which cannot be read by index"):
        imagenet("train", 16, train=True, data_dir=tmp_path, workers=0)
