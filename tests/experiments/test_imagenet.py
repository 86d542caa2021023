"""ImageNet's pipeline: which examples, in which order; where it goes on; what it asks for."""

import contextlib
import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from experiments import models
from experiments.bench.data import write
from experiments.commands import train
from experiments.config import Config
from experiments.data import loader
from experiments.data.imagenet import jpeg
from experiments.data.imagenet.batches import PART
from experiments.data.imagenet.stream import imagenet, prefetch
from experiments.errors import RunError, StoppedError
from helpers import processes
from helpers.small_imagenet import SIZE, batches, whole


@pytest.fixture(scope="module")
def files():
    return whole()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory, files):
    directory = tmp_path_factory.mktemp("tfds")
    write(directory, files)
    return directory


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


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_a_position_of_other_batches_is_rejected(data_dir):
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


@pytest.mark.slow
def test_an_error_behind_prefetch_reaches_the_one_who_takes_the_batch(tmp_path, files):
    broken = [[{**one, "label": 3} for one in group] for group in files["train"]]
    broken[0][3]["image"] = b"no picture"
    write(tmp_path, {"train": broken})
    stream = imagenet("train", 40, train=True, size=SIZE, data_dir=tmp_path, workers=2)
    with contextlib.closing(prefetch(stream)) as ahead, pytest.raises(RunError, match=r"n0_3\.JPEG, record 3 of"):
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
def test_arguments_that_are_invalid_are_rejected(data_dir, split, options, message):
    with pytest.raises((ValueError, RunError), match=message):
        imagenet(split, 16, train=True, data_dir=data_dir, **options)


@pytest.mark.skipif(not Path("/dev/shm").exists(), reason="needs Linux: shared memory with a size of its own")
def test_too_little_shared_memory_is_said_before_it_kills_a_worker(data_dir):
    with pytest.raises(RunError, match=r"2 workers need .* MB of shared memory .* --shm-size"):
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


@pytest.mark.slow
def test_the_benchmark_counts_the_cores(tmp_path, files, capsys):
    from experiments.bench.data import data

    write(tmp_path, files)
    data(rate=1000, images=4, rounds=1, workers=0, batch_size=8, data_dir=tmp_path)
    text = capsys.readouterr().out
    speed, rate, needed = re.findall(r"R / \((\d+) images/s per core\).* R = (\d+): ([\d.]+) cores", text)[0]
    assert float(needed) == pytest.approx(int(rate) / int(speed), rel=0.05, abs=0.06)
    assert text.count("simplejpeg ") >= 4


class Tiny(nnx.Module):
    input_shape = (SIZE, SIZE, 3)

    def __init__(self, classes: int = 1000, *, rngs: nnx.Rngs):
        self.conv = nnx.Conv(3, 8, (4, 4), (4, 4), rngs=rngs)
        self.head = nnx.Linear(8, classes, rngs=rngs)

    def __call__(self, x):
        return self.head(nnx.relu(self.conv(x)).mean((1, 2)))


@pytest.mark.slow
def test_a_training_goes_on_in_the_middle_of_an_epoch_to_the_same_bits(data_dir, tmp_path, monkeypatch):
    """40 of the 70 examples, 3 epochs of 2.5 batches; asked to end after the first snapshot, and in the first epoch."""
    monkeypatch.setitem(models.models, "tiny", Tiny)
    own: dict[str, Any] = {"dataset": "imagenet2012", "model": "tiny", "batch_size": 16, "validation": 30}
    own |= {"epochs": 3, "drops": (), "workers": 0, "data_dir": data_dir}
    run = lambda name, **more: train.train("tiny", Config(**own, **more, run_dir=tmp_path / name))
    read = lambda path: json.loads((path / "record.json").read_text())
    undisturbed = run("a")
    record = read(undisturbed)
    assert [line["step"] for line in record["curve"]] == [3, 5, 8]
    assert record["images"] == {"train": 40, "validation": 30, "test": 19}

    number, take = [0], loader.StreamLoader.chunks

    def interrupted(self, first, last):
        for chunk in take(self, first, last):
            number[0] += 1
            if number[0] in (2, 4):
                os.kill(os.getpid(), signal.SIGTERM)
            yield chunk

    monkeypatch.setattr(loader.StreamLoader, "chunks", interrupted)
    for step in (2, 4):
        with pytest.raises(StoppedError, match=f"saved after step {step} of 8"):
            run("b")
    processes.assert_same((record, undisturbed), (read(run("b")), tmp_path / "b"))
    monkeypatch.undo()
    monkeypatch.setitem(models.models, "tiny", Tiny)
    over_mesh = read(run("mesh", parallel="mesh"))  # whose batches come by the same stream
    for line, other in zip(record["curve"], over_mesh["curve"], strict=True):
        assert other["loss"] == pytest.approx(line["loss"], rel=1e-5)
        assert other["accuracy"] == line["accuracy"]
