"""Every example exactly once an epoch, in an order that only the seed decides."""

import jax
import numpy as np
import pytest

from experiments.data.dataset import Split
from experiments.data.loader import DeviceLoader
from experiments.data.placement import shard
from experiments.data.sampler import Sampler
from experiments.errors import RunError


@pytest.mark.parametrize(("size", "batch_size"), [(10, 4), (12, 4), (7, 7), (9, 5)])
def test_an_epoch_has_every_example_once_and_no_batch_is_incomplete(size, batch_size):
    sampler = Sampler(seed=3, size=size, batch_size=batch_size)
    batches = sampler.batches(0, sampler.end(5))
    assert batches.shape[1] == batch_size
    places = batches.ravel()[: 5 * size].reshape(5, size)
    for epoch in places:
        assert sorted(epoch) == list(range(size))
    assert len({tuple(epoch) for epoch in places}) == 5
    assert sampler.end(5) * batch_size - 5 * size < batch_size


def test_the_batches_are_the_same_from_wherever_they_are_asked_for():
    sampler = Sampler(seed=0, size=50, batch_size=16)
    whole = sampler.batches(0, 20)
    for first, last in [(0, 3), (3, 4), (2, 20), (19, 20)]:
        np.testing.assert_array_equal(sampler.batches(first, last), whole[first:last])
    assert np.any(Sampler(seed=1, size=50, batch_size=16).batches(0, 20) != whole)


def test_the_devices_share_each_batch_and_nothing_else():
    batches = Sampler(seed=0, size=100, batch_size=16).batches(0, 3)
    local = shard(batches)
    assert local.shape == (jax.device_count(), 3, 16 // jax.device_count())
    np.testing.assert_array_equal(local.swapaxes(0, 1).reshape(3, 16), batches)


def test_chunks_go_on_wherever_they_ended_and_positions_of_other_batches_are_rejected():
    images = np.zeros((40, 2, 2, 1), np.uint8)
    loader = DeviceLoader(Split(images, np.zeros(40, np.int32)), Sampler(seed=0, size=40, batch_size=8))
    numbers = lambda *range_: [number.tolist() for *_, number in loader.chunks(*range_)]
    assert numbers(0, 7, 3) == [[0, 1, 2], [3, 4, 5], [6, -1, -1]]  # where there is none left: no step
    assert numbers(3, 7, 3) == [[3, 4, 5], [6, -1, -1]]
    position = loader.position(5)
    loader.check(position)
    with pytest.raises(RunError, match="other batches"):
        loader.check(position | {"seed": 1})
