"""Many small runs as one: seeds and settings are arrays, one compiled step takes them all.

A run is what it would be alone, to the rounding of float32. On an accelerator a small network leaves most of the
machine idle, and many cost little more than one; on a CPU there is nothing idle (measured: `together`).
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..data.dataset import Dataset
from ..data.loader import steps_per_call
from ..data.sampler import Sampler
from .network import Network
from .step import make_update, take_steps

Setting = Mapping[str, Any]
"""The numbers of a run, by name: scalars, or trees of arrays such as masks."""


@dataclasses.dataclass(frozen=True, eq=False)
class Sweep:
    """What all runs share.

    Attributes:
      network, dataset: what is trained, on what.
      epochs, batch_size, augment: as in a training run.
      transformation: the Optax transformation of a setting, made of traced numbers inside the compiled step.
    """

    network: Network
    dataset: Dataset
    epochs: int
    batch_size: int
    transformation: Callable[[Setting], Any]
    augment: bool = False

    @property
    def steps(self) -> int:
        """Of a whole training."""
        return self.sampler(0).end(self.epochs)

    def sampler(self, seed: int) -> Sampler:
        """The sampler of the batches of a run."""
        return Sampler(seed, len(self.dataset.train), self.batch_size)

    def batches(self, seeds: Sequence[int], first: int, last: int) -> np.ndarray:
        """Indices of images, as a step of as many runs takes them."""
        each = np.stack([self.sampler(seed).batches(first, last) for seed in seeds])
        return each if len(seeds) > 1 else each[0]

    @functools.cached_property
    def begin(self):
        """state(setting, params), compiled: of one run, and of several with a leading axis on all of them."""
        init = lambda setting, params: self.transformation(setting).init(params)
        return {False: jax.jit(init), True: jax.jit(jax.vmap(init))}

    @functools.cached_property
    def images(self):
        """On the device, once for all runs."""
        return jnp.asarray(self.dataset.train.inputs), jnp.asarray(self.dataset.train.labels)

    @functools.cached_property
    def step(self):
        """As many steps as the batches `index`, [steps, batch], has; the same two."""

        def step(params, stats, opt_state, setting, images, labels, index, number):
            tx = self.transformation(setting)
            update = make_update(self.network, tx, self.dataset, seed=setting["seed"], augment=self.augment)
            return take_steps(update, (params, stats, opt_state), images, labels, index, number)[0]

        many = jax.vmap(step, in_axes=(0, 0, 0, 0, None, None, 0, None))
        return {mapped: jax.jit(fn, donate_argnums=(0, 1, 2)) for mapped, fn in ((False, step), (True, many))}


def train(sweep: Sweep, settings: Sequence[Setting], starts: Sequence[tuple[dict, dict]]) -> list[tuple[Any, Any, Any]]:
    """(params, stats, opt_state) of each run after its training; all runs at once.

    Args:
      settings: one a run, all with the same names; "seed" is that of the sampler and of what is random in a step.
      starts: (params, stats) of each.
    """
    mapped, (setting, state) = len(settings) > 1, started(sweep, settings, starts)
    per_call, seeds = steps_per_call(), [int(setting["seed"]) for setting in settings]
    for first in range(0, sweep.steps, per_call):
        last = min(first + per_call, sweep.steps)
        number = np.arange(first, last, dtype=np.int32)
        state = sweep.step[mapped](*state, setting, *sweep.images, sweep.batches(seeds, first, last), number)
    return unstacked(state, len(settings)) if mapped else [state]


def started(sweep: Sweep, settings: Sequence[Setting], starts: Sequence[tuple[dict, dict]]) -> tuple[Any, tuple]:
    """(setting, (params, stats, opt_state)) before the first step; of several runs with a leading axis."""
    setting, (params, stats) = stacked(settings), stacked(starts)
    mapped = len(settings) > 1
    if not mapped:
        setting, params, stats = jax.tree.map(lambda x: x[0], (setting, params, stats))
    return setting, (params, stats, sweep.begin[mapped](setting, params))


def stacked(trees: Sequence[Any]):
    """One tree of arrays with a leading axis of runs."""
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *trees)


def unstacked(tree, runs: int) -> list:
    return [jax.tree.map(lambda x, run=run: x[run], tree) for run in range(runs)]
