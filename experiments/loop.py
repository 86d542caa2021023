"""The data-parallel loop: a compiled step under `pmap`, batches, accuracy, and plain training."""

import flax.jax_utils
import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from . import data
from .augment import crop_and_flip
from .network import Network
from .record import RunError


def make_step(network: Network, tx, dataset: data.Dataset, *, seed: int = 0, augment: bool = False):
    """The compiled data-parallel step: each device takes its share of a batch, and all take the same update.

    step(params, stats, opt_state, images, labels, index, number) → (params, stats, opt_state, losses): as many steps
    as `index`, [devices, steps, share of the batch], has. `number`, [steps], counts them over the whole training: with
    the seed it decides what is random in a step, whatever the number of devices.
    """

    def loss_of(params, stats, images, labels, key):
        logits, stats = network.forward(params, stats, dataset.normalised(images), key)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), stats

    def one(state, images, labels, index, number):
        params, stats, opt_state = state
        key, device = jax.random.fold_in(jax.random.key(seed), number), jax.lax.axis_index("devices")
        taken = images[index]
        if augment:
            places = device * len(index) + jnp.arange(len(index))
            taken = crop_and_flip(taken, jax.vmap(jax.random.fold_in, (None, 0))(key, places))
        loss_and_grad = jax.value_and_grad(loss_of, has_aux=True)
        (loss, stats), grads = loss_and_grad(params, stats, taken, labels[index], jax.random.fold_in(key, device))
        loss, stats, grads = jax.lax.pmean((loss, stats, grads), "devices")
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), stats, opt_state), loss

    def step(params, stats, opt_state, images, labels, index, number):
        state = params, stats, opt_state
        if len(index) == 1:
            state, loss = one(state, images, labels, index[0], number[0])
            return *state, loss[None]
        state, losses = jax.lax.scan(lambda state, now: one(state, images, labels, *now), state, (index, number))
        return *state, losses

    # Outputs in the order of the donated inputs: JAX pairs buffers of one shape in order, and a wrong pair is a copy.
    return jax.pmap(step, axis_name="devices", in_axes=(0, 0, 0, 0, 0, 0, None), donate_argnums=(0, 1, 2))


def steps_a_call() -> int:
    """XLA on CPU runs convolutions inside a scan about three times slower; elsewhere the host would be in the way."""
    return 1 if jax.default_backend() == "cpu" else 32


def advance(step, replicas, images, labels, index, start: int, per_call: int | None = None):
    """Takes the steps of the batches `index`, [steps, batch]; yields ((params, stats, opt_state), losses) a call.

    `start` is the number of the first step. The losses are read one call late, so that the device is never left
    waiting for the host.
    """
    devices, previous, per_call = jax.local_device_count(), None, per_call or steps_a_call()
    for first in range(0, len(index), per_call):
        part = index[first : first + per_call]
        shares = part.reshape(len(part), devices, -1).swapaxes(0, 1)
        number = np.arange(start + first, start + first + len(part), dtype=np.int32)
        *replicas, losses = step(*replicas, images, labels, shares, number)
        if previous is not None:
            yield replicas, np.asarray(previous)[0].tolist()
        previous = losses
    yield replicas, np.asarray(previous)[0].tolist()


def make_accuracy(fn, dataset: data.Dataset, chunk: int = 500):
    """accuracy(variables, split): share of a split's images that fn names right, in [0, 1]."""

    @jax.jit
    def correct(variables, images, labels):
        return jnp.sum(jnp.argmax(fn(variables, dataset.normalised(images)), -1) == labels)

    def accuracy(variables, split: data.Split) -> float:
        return sum(int(correct(variables, part.images, part.labels)) for part in split.parts(chunk)) / len(split)

    return accuracy


def batches(seed: int, epoch: int, size: int, batch_size: int) -> np.ndarray:
    """Indices of an epoch's batches, [steps, batch]: a new order each epoch, the same for the same seed."""
    steps = size // batch_size
    order = np.random.default_rng([seed, epoch]).permutation(size)
    return order[: steps * batch_size].astype(np.int32).reshape(steps, -1)


def fit(step, params, stats, opt_state, dataset: data.Dataset, epochs: int, batch_size: int, seed: int, first: int = 0):
    """Training by a step of `make_step` from epoch `first` on; (params, stats, opt_state) after `epochs` more."""
    images, labels = flax.jax_utils.replicate((dataset.train.images, dataset.train.labels))
    replicas = flax.jax_utils.replicate((params, stats, opt_state))
    bar = tqdm(total=epochs * (len(dataset.train) // batch_size), unit="step", disable=None, leave=False)
    for epoch in range(first, first + epochs):
        index = batches(seed, epoch, len(dataset.train), batch_size)
        for latest, losses in advance(step, replicas, images, labels, index, epoch * len(index)):
            replicas = latest
            bar.update(len(losses))
            if not np.isfinite(losses).all():
                raise RunError(f"the loss is {losses[-1]} in epoch {epoch + 1}; try a smaller --learning-rate.")
    bar.close()
    return flax.jax_utils.unreplicate(tuple(replicas))
