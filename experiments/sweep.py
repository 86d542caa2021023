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
import optax
from flax import nnx

from . import models
from .augment import crop_and_flip
from .data import Dataset, Split
from .feed import steps_a_call
from .network import Network, merged, parts_of
from .order import Order

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
        return self.order(0).end(self.epochs)

    def order(self, seed: int) -> Order:
        """The order of the batches of a run."""
        return Order(seed, len(self.dataset.train), self.batch_size)

    @functools.cached_property
    def begin(self):
        """state(setting, params), compiled: of one run, and of several with a leading axis on all of them."""
        own = lambda setting, params: self.transformation(setting).init(params)
        return {False: jax.jit(own), True: jax.jit(jax.vmap(own))}

    @functools.cached_property
    def images(self):
        """On the device, once for all runs."""
        return jnp.asarray(self.dataset.train.images), jnp.asarray(self.dataset.train.labels)

    @functools.cached_property
    def step(self):
        """As many steps as the batches `index`, [steps, batch], has; the same two."""

        def loss_of(params, stats, images, labels, key):
            logits, stats = self.network.forward(params, stats, self.dataset.normalised(images), key)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), stats

        def one(setting, state, images, labels, index, number):
            params, stats, opt_state = state
            key, taken = jax.random.fold_in(jax.random.key(setting["seed"]), number), images[index]
            if self.augment:
                taken = crop_and_flip(taken, jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(len(index))))
            grads, stats = jax.grad(loss_of, has_aux=True)(params, stats, taken, labels[index], key)
            updates, opt_state = self.transformation(setting).update(grads, opt_state, params)
            return optax.apply_updates(params, updates), stats, opt_state

        def several(params, stats, opt_state, setting, images, labels, index, number):
            state = params, stats, opt_state
            if len(index) == 1:
                return one(setting, state, images, labels, index[0], number[0])
            take = lambda state, now: (one(setting, state, images, labels, *now), None)
            return jax.lax.scan(take, state, (index, number))[0]

        many = jax.vmap(several, in_axes=(0, 0, 0, 0, None, None, 0, None))
        return {mapped: jax.jit(own, donate_argnums=(0, 1, 2)) for mapped, own in ((False, several), (True, many))}


def initial(model: str, seed: int) -> tuple[Network, dict, dict]:
    """(network, params, stats) as the seed makes them."""
    return parts_of(models.models[model](rngs=nnx.Rngs(seed)))


def train(sweep: Sweep, settings: Sequence[Setting], starts: Sequence[tuple[dict, dict]]) -> list[tuple[Any, Any, Any]]:
    """(params, stats, opt_state) of each run after its training; all runs at once.

    Args:
      settings: one a run, all with the same names; "seed" is the order of the batches and what is random in a step.
      starts: (params, stats) of each.
    """
    setting, (params, stats) = stacked(settings), stacked(starts)
    mapped = len(settings) > 1
    if not mapped:
        setting, params, stats = jax.tree.map(lambda x: x[0], (setting, params, stats))
    state = params, stats, sweep.begin[mapped](setting, params)
    per_call, seeds = steps_a_call(), [int(own["seed"]) for own in settings]
    for first in range(0, sweep.steps, per_call):
        last = min(first + per_call, sweep.steps)
        part = np.stack([sweep.order(seed).batches(first, last) for seed in seeds])
        number = np.arange(first, last, dtype=np.int32)
        state = sweep.step[mapped](*state, setting, *sweep.images, part if mapped else part[0], number)
    return unstacked(state, len(settings)) if mapped else [state]


def stacked(trees: Sequence[Any]):
    """One tree of arrays with a leading axis of runs."""
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *trees)


def unstacked(tree, runs: int) -> list:
    return [jax.tree.map(lambda x, run=run: x[run], tree) for run in range(runs)]


def make_accuracy(sweep: Sweep, chunk: int = 1000):
    """accuracy(params, stats, split): share of a split's images that the network names right, in [0, 1]."""

    @jax.jit
    def correct(variables, images, labels):
        return jnp.sum(jnp.argmax(sweep.network.fn(variables, sweep.dataset.normalised(images)), -1) == labels)

    def accuracy(params, stats, split: Split) -> float:
        variables = merged(params, stats)
        return sum(int(correct(variables, part.images, part.labels)) for part in split.parts(chunk)) / len(split)

    return accuracy
