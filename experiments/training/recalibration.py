"""Batch statistics for weights that were cut: W̃, and whatever a mask or an order leaves.

The running statistics belong to the dense weights they were collected with. Measured with them a cut network looks
far worse than it is.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import flax.jax_utils
import jax
import numpy as np

import parsimony as pm

from ..data.dataset import Dataset, Split
from ..data.loader import make_loader
from ..data.placement import AXIS, shard
from ..data.sampler import Sampler
from .network import Network, equal_arrays, merge_variables, split_variables
from .step import training_batch

IMAGES = 2048
"""How many images the statistics are the mean over, in whole batches."""

Recalibrate = Callable[[Any, Any, Any], Any]
"""recalibrated(cut, params, stats): the statistics of the weights `cut`, made from `params`, whose own are `stats`."""


def make_recalibrate(
    network: Network, dataset: Dataset, *, batch_size: int, seed: int = 0, augment: bool = False
) -> Recalibrate:
    """The function that gives a network's batch statistics for the weights as they are; compiled once.

    They are the mean over the first batches of a training with this seed, drawn and augmented as it draws them,
    whatever the momentum of the normalisations (`pm.recalibrate`): images without the augmentation would give others.
    A network without statistics, and weights that were not changed, keep what they have; without `params` (None) these
    are the statistics of whatever weights are given.
    """

    def forward(params, stats, images, number):
        batch, key = training_batch(images, seed, number, augment, AXIS)
        stats = network.forward(params, stats, dataset.normalised(batch), key)[1]
        return jax.lax.pmean(stats, AXIS)

    forward = jax.pmap(forward, axis_name=AXIS, in_axes=(None, None, 0, None))
    batches = functools.cache(lambda: _batches(dataset.train, Sampler(seed, len(dataset.train), batch_size)))

    def recalibrated(cut, params, stats):
        if not jax.tree.leaves(stats) or (params is not None and equal_arrays(cut, params)):
            return stats
        cut, stats = jax.device_get((cut, stats))  # wherever they lie: `pmap` takes them whole
        new = lambda old, batch: flax.jax_utils.unreplicate(forward(cut, old, *batch))
        return pm.recalibrate(new, stats, batches())

    return recalibrated


def _batches(split, sampler: Sampler) -> list[tuple[Any, np.int32]]:
    """(images, [devices, share of the batch, ...]; number) of the first batches of the training."""
    count = max(1, min(IMAGES, sampler.size) // sampler.batch_size)
    if isinstance(split, Split):
        index = shard(sampler.batches(0, count)).swapaxes(0, 1)
        return [(split.inputs[own], np.int32(number)) for number, own in enumerate(index)]
    with contextlib.closing(make_loader(split, sampler, 1)) as loader:
        return [(np.asarray(images), number[0]) for images, _, _, number in loader.chunks(0, count)]


def without(units: pm.structure.Units, keep, params, stats, recalibrated):
    """(variables with the other units at zero, their batch statistics); `recalibrated`: of `make_recalibrate`."""
    zeroed = units.zero(keep, merge_variables(params, stats))
    own = recalibrated(split_variables(zeroed, stats)[0], params, stats)
    return units.zero(keep, merge_variables(params, own)), own
