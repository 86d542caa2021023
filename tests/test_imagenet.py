"""ImageNet's pipeline: which examples, in which order, cropped how; where it goes on; what it refuses and names."""

import contextlib
import io
import json
import os
import re
from pathlib import Path

import jax
import numpy as np
import pytest
import simplejpeg
from PIL import Image

from experiments import jpeg
from experiments.bench_data import write
from experiments.data import DataError
from experiments.epochs import PART
from experiments.imagenet import imagenet, prefetch

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


@pytest.fixture(scope="module")
def files() -> dict[str, list[list[dict]]]:
    return {"train": examples(TRAIN, 0), "validation": examples(TEST, 1)}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory, files):
    directory = tmp_path_factory.mktemp("tfds")
    write(directory, files)
    return directory


def batches(data_dir, split="train", batch_size=16, **options) -> list[dict[str, np.ndarray]]:
    options = {"train": True, "size": SIZE, "workers": 0, "seed": 5, "process": (0, 1), **options}
    with contextlib.closing(imagenet(split, batch_size, data_dir=data_dir, **options)) as stream:
        return list(stream)


def assert_same(these, those):
    assert len(these) == len(those)
    for one, other in zip(these, those, strict=True):
        for name in ("images", "labels"):
            np.testing.assert_array_equal(one[name], other[name])


def test_every_example_comes_exactly_once_an_epoch_across_the_batches(data_dir):
    """70 examples, batches of 16: an epoch ends in the middle of a batch, and the next begins there."""
    found = batches(data_dir, epochs=3)
    assert len(found) == 14
    labels = np.concatenate([batch["labels"] for batch in found])
    epochs = [labels[begin : begin + 70] for begin in (0, 70, 140)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(70))
    assert not np.array_equal(epochs[0], epochs[1])
    assert not np.array_equal(epochs[0], np.sort(epochs[0]))
    images = np.concatenate([batch["images"] for batch in found])
    assert images.shape == (224, SIZE, SIZE, 3)
    assert images.dtype == np.uint8
    assert labels.dtype == np.int32
    crops = [images[70 * epoch : 70 * epoch + 70][np.argsort(epochs[epoch])] for epoch in (0, 1)]
    assert sum(np.array_equal(a, b) for a, b in zip(*crops, strict=True)) == 0  # other crops in another epoch


def test_an_epoch_ends_where_it_says(data_dir):
    with contextlib.closing(
        imagenet("train", 16, train=True, size=SIZE, epochs=3, workers=0, data_dir=data_dir, process=(0, 1))
    ) as stream:
        ends = [stream.end(epoch) for epoch in range(4)]
        assert ends == [0, 5, 9, 14]
        assert len(stream) == 14
        for epoch in range(3):
            rows = [row for batch in range(ends[epoch + 1]) for row in stream.parts.examples(batch)]
            assert len([row for row in rows if row[0] == epoch]) == 70
        taken = [example for _, example in stream.parts.examples(0)]
        np.testing.assert_array_equal(next(stream)["labels"], taken)


def test_seeds_decide_order_and_crops(data_dir):
    assert_same(batches(data_dir), batches(data_dir))
    one, other = batches(data_dir)[0], batches(data_dir, seed=6)[0]
    assert not np.array_equal(one["labels"], other["labels"])
    assert set(one["labels"]) & set(other["labels"])
    row, column = next((i, j) for i, a in enumerate(one["labels"]) for j, b in enumerate(other["labels"]) if a == b)
    assert not np.array_equal(one["images"][row], other["images"][column])


@pytest.mark.parametrize(("split", "train"), [("train", True), ("test", False)])
def test_processes_take_slices_of_the_same_batches(data_dir, split, train):
    """80 a batch, so that the slices are cut at other places than the parts the workers prepare."""
    assert 80 % PART
    whole = batches(data_dir, split, 80, train=train, epochs=2)
    for count in (2, 4):
        shares = [batches(data_dir, split, 80, train=train, epochs=2, process=(i, count)) for i in range(count)]
        joined = [
            {name: np.concatenate([share[name] for share in batch]) for name in ("images", "labels")}
            for batch in zip(*shares, strict=True)
        ]
        assert_same(joined, whole)


def test_workers_change_nothing_and_a_position_is_good_for_any_number_of_them(data_dir):
    options = {"train": True, "size": SIZE, "seed": 5, "epochs": 2, "data_dir": data_dir, "process": (0, 1)}
    whole = batches(data_dir, batch_size=40, epochs=2)
    with contextlib.closing(imagenet("train", 40, workers=2, **options)) as stream:
        assert_same([next(stream) for _ in range(2)], whole[:2])
        state = json.loads(json.dumps(stream.get_state()))
        assert_same(list(stream), whole[2:])
    with contextlib.closing(imagenet("train", 40, workers=0, **options)) as stream:
        next(stream)
        stream.set_state(state)
        assert_same(list(stream), whole[2:])


def test_a_position_of_other_batches_is_refused(data_dir):
    make = lambda size, **options: imagenet("train", size, train=True, workers=0, data_dir=data_dir, **options)
    state = make(16, seed=1, epochs=2).get_state()
    with pytest.raises(ValueError, match=r"other batches \(batch_size 16 → 32, seed 1 → 2\)"):
        make(32, seed=2).set_state(state)
    with pytest.raises(ValueError, match="batch 9 of 5; more epochs"):
        make(16, seed=1).set_state({**state, "next_batch": 9})


def test_prefetch_puts_shares_on_devices_and_its_position_is_that_of_what_was_taken(data_dir):
    options = {"train": True, "size": SIZE, "seed": 5, "epochs": 2, "data_dir": data_dir, "workers": 0}
    whole = batches(data_dir, batch_size=24, epochs=2)
    with contextlib.closing(prefetch(imagenet("train", 24, **options))) as ahead:
        taken = [next(ahead) for _ in range(2)]
        state = ahead.get_state()
        assert state["next_batch"] == 2
        for batch, expected in zip(taken, whole, strict=False):
            assert batch["images"].shape == (8, 3, SIZE, SIZE, 3)
            np.testing.assert_array_equal(batch["images"].reshape(24, SIZE, SIZE, 3), expected["images"])
            np.testing.assert_array_equal(batch["labels"].reshape(24), expected["labels"])
            assert [shard.data.shape for shard in batch["labels"].addressable_shards] == [(1, 3)] * 8
        with jax.transfer_guard("disallow"):  # pmap takes them as they are
            sums = jax.pmap(lambda x: x.sum(axis=0))(taken[0]["labels"])
        assert int(sums.sum()) == whole[0]["labels"].sum()
        rest = list(ahead)
    assert len(rest) == len(whole) - 2
    with contextlib.closing(prefetch(imagenet("train", 24, **options), jax.local_devices()[:4])) as ahead:
        ahead.set_state(state)
        again = list(ahead)
    assert again[0]["images"].shape == (4, 6, SIZE, SIZE, 3)
    for one, other in zip(rest, again, strict=True):
        np.testing.assert_array_equal(one["images"].reshape(24, -1), other["images"].reshape(24, -1))
    with pytest.raises(ValueError, match="20 examples a process do not divide among 8 devices"):
        prefetch(imagenet("train", 20, **options))


def test_an_error_behind_prefetch_reaches_the_one_who_takes_the_batch(tmp_path, files):
    broken = [[{**one, "label": 3} for one in group] for group in files["train"]]
    broken[0][3]["image"] = b"no picture"
    write(tmp_path, {"train": broken})
    stream = imagenet("train", 40, train=True, size=SIZE, data_dir=tmp_path, workers=2)
    with contextlib.closing(prefetch(stream)) as ahead, pytest.raises(DataError, match=r"n0_3\.JPEG, record 3 of"):
        list(ahead)


def test_evaluation_goes_through_the_files_and_fills_the_last_batch(data_dir, files):
    found = batches(data_dir, "test", 8, train=False, epochs=2)
    assert len(found) == 6
    labels = np.concatenate([batch["labels"] for batch in found])
    assert labels.tolist() == 2 * ([*range(19)] + [-1] * 5)
    assert not found[2]["images"][3:].any()
    assert_same(found[:3], found[3:])
    jpegs = [one["image"] for group in files["validation"] for one in group]
    expected = [jpeg.evaluation_crop(one, SIZE) for one in jpegs]
    np.testing.assert_array_equal(np.concatenate([batch["images"] for batch in found])[:19], expected)


def test_the_validation_split_is_held_out_by_index_and_recorded(data_dir):
    make = lambda split, train: imagenet(
        split, 10, train=train, size=SIZE, validation=20, data_dir=data_dir, workers=0, epochs=1
    )
    held_out = np.concatenate([batch["labels"] for batch in make("validation", False)])
    kept = np.concatenate([batch["labels"] for batch in make("train", True)])
    assert len(held_out) == 20
    assert sorted([*held_out, *kept]) == list(range(70))
    record = make("validation", False).record()
    assert record["examples"] == 20
    assert record["data"] == "imagenet2012/5.1.0"
    assert record["tfds_split"] == "train"
    derived = np.sort(eval(record["indices"], {"numpy": np}))
    np.testing.assert_array_equal(derived, held_out)
    assert len({make(split, False).record()["sha256"] for split in ("train", "validation", "test")}) == 3


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


def as_jpeg(mode: str) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (50, 40), 120 if mode == "L" else (10, 20, 30, 40)).save(file, "JPEG")
    return file.getvalue()


def test_grey_images_get_three_channels():
    crop = jpeg.training_crop(as_jpeg("L"), SIZE, np.random.default_rng(0))
    assert crop.shape == (SIZE, SIZE, 3)
    assert np.abs(crop.astype(int) - 120).max() <= 1


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
    with pytest.raises(DataError) as caught:
        batches(tmp_path, train=train)
    text = str(caught.value)
    assert text.startswith(f"n0_31.JPEG, record 4 of {path} (index 31 of train), cannot be used: ")
    assert message in text
    assert "accept_damaged" in text


def test_a_damaged_image_can_be_accepted_by_name(tmp_path, files):
    groups = [list(group) for group in files["train"]]
    groups[1][4] = {**groups[1][4], "image": groups[1][4]["image"][:-20]}
    write(tmp_path, {"train": groups})
    with pytest.raises(DataError, match=r"n0_31\.JPEG.*Premature end"):
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
    with pytest.raises(DataError, match=re.escape(f"{path} is truncated or damaged; copy it again")):
        imagenet("train", 16, train=True, data_dir=tmp_path, workers=0)
    imagenet("test", 16, train=False, data_dir=tmp_path, workers=0)  # its files are whole


def test_a_missing_file_is_named_before_any_work(tmp_path, files):
    _, path = written(tmp_path, files)
    path.unlink()
    with pytest.raises(DataError, match=re.escape(f"{path} is missing")):
        imagenet("train", 16, train=True, data_dir=tmp_path, workers=0)


def test_a_file_with_fewer_records_than_it_should_have_is_named(tmp_path, files):
    folder, path = written(tmp_path, files)
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace('"20"', '"21"'))
    with pytest.raises(DataError, match=rf"{re.escape(str(path))} .* \(it holds 20 records instead of 21\)"):
        imagenet("train", 16, train=True, data_dir=tmp_path, workers=0)


def test_a_record_that_was_overwritten_is_named(tmp_path, files):
    _, path = written(tmp_path, files)
    whole = path.read_bytes()
    start = whole.index(files["train"][2][7]["image"][-40:-10])  # the tables before are those of all
    path.write_bytes(whole[:start] + bytes(30) + whole[start + 30 :])
    with pytest.raises(DataError, match=re.escape(f"record 7 of {path} (index 57 of train) cannot be read: ")):
        batches(tmp_path)


def test_a_label_out_of_range_is_named(tmp_path, files):
    groups = [[{**one, "label": -1} for one in group] for group in files["train"]]
    write(tmp_path, {"train": groups})
    with pytest.raises(DataError, match="its label is -1 instead of 0 to 999"):
        batches(tmp_path)


def test_what_is_not_prepared_says_what_to_download_and_the_command(tmp_path):
    with pytest.raises(DataError) as caught:
        imagenet("train", 16, train=True, data_dir=tmp_path, workers=0)
    text = str(caught.value)
    assert f"`python -m experiments prepare imagenet2012 --data-dir {tmp_path}`" in text
    assert "ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar" in text
    assert f"{tmp_path}/downloads/manual" in text


def test_a_missing_split_and_another_format_are_said(tmp_path, files):
    folder = write(tmp_path, {"train": files["train"]})
    with pytest.raises(DataError, match=r"no validation split: ILSVRC2012_img_val\.tar was missing"):
        imagenet("test", 16, train=False, data_dir=tmp_path, workers=0)
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(DataError, match=r"as tfrecord, which cannot be read by index"):
        imagenet("train", 16, train=True, data_dir=tmp_path, workers=0)


@pytest.mark.parametrize(
    ("split", "options", "message"),
    [
        ("tran", {}, "did you mean 'train'"),
        ("train", {"process": (2, 2)}, "its index must be 0 to count"),
        ("train", {"process": (0, 3)}, "batch_size 16 does not divide among 3 processes"),
        ("validation", {}, "validation is 0; it must be 1 or more"),
        ("train", {"validation": 70}, "70 training images, so 70 cannot be held out"),
        ("train", {"workers": -1}, "workers is -1"),
        ("train", {"epochs": 0}, "epochs is 0"),
        ("train", {"seed": -1}, "seed is -1"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(data_dir, split, options, message):
    with pytest.raises((ValueError, DataError), match=message):
        imagenet(split, 16, train=True, data_dir=data_dir, **options)


@pytest.mark.skipif(not Path("/dev/shm").exists(), reason="needs Linux: shared memory with a size of its own")
def test_too_little_shared_memory_is_said_before_it_kills_a_worker(data_dir):
    with pytest.raises(DataError, match=r"2 workers need .* MB of shared memory .* --shm-size"):
        imagenet("train", 64, train=True, size=10**6, data_dir=data_dir, workers=2)


@pytest.mark.skipif("TFDS_DATA_DIR" not in os.environ, reason="needs TFDS_DATA_DIR with imagenet2012 (or a sample)")
def test_imagenet_itself():
    data_dir = os.environ["TFDS_DATA_DIR"]
    with contextlib.closing(
        imagenet("train", 64, train=True, validation=32, data_dir=data_dir, workers=0, process=(0, 1))
    ) as stream:
        batch = next(stream)
        assert len(stream) == -(-stream.record()["examples"] // 64)
    assert batch["images"].shape == (64, 224, 224, 3)
    assert 60 < batch["images"].mean() < 180
    assert len(set(batch["labels"].tolist())) > 10
    found = batches(data_dir, "test", 32, train=False, size=224)
    assert -1 not in found[0]["labels"]


def test_the_benchmark_counts_the_cores(tmp_path, files, capsys):
    from experiments.bench_data import data

    write(tmp_path, files)
    data(rate=1000, images=4, rounds=1, workers=0, batch_size=8, data_dir=tmp_path)
    text = capsys.readouterr().out
    speed, rate, needed = re.findall(r"R / \((\d+) images/s per core\).* R = (\d+): ([\d.]+) cores", text)[0]
    assert float(needed) == pytest.approx(int(rate) / int(speed), rel=0.05, abs=0.06)
    assert text.count("simplejpeg ") >= 4
