"""The data-parallel loop: a compiled step under `pmap`, batches, accuracy, and training inside a support."""

import flax.jax_utils
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from . import data
from .record import RunError


def function(graphdef):
    """A network as fn(params, images): logits."""
    return lambda params, images: nnx.merge(graphdef, params)(images)


def make_step(fn, tx, maximum: int):
    """The compiled data-parallel step: each device takes its share of the batch, and all take the same update."""

    def loss_of(params, images, labels):
        logits = fn(params, images.astype(jnp.float32) / maximum)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def step(params, opt_state, images, labels, index):
        loss, grads = jax.value_and_grad(loss_of)(params, images[index], labels[index])
        loss, grads = jax.lax.pmean((loss, grads), "devices")
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    # Outputs in the order of the donated inputs: JAX pairs buffers of one shape in order, and a wrong pair is a copy.
    return jax.pmap(step, axis_name="devices", donate_argnums=(0, 1))


def advance(step, replicas, images, labels, index):
    """Takes the steps of the batches `index`, [steps, batch]; yields ((params, opt_state), loss) after each.

    The loss is read one step late, so that the device is never left waiting for the host.
    """
    devices, previous = jax.local_device_count(), None
    for batch in index.reshape(len(index), devices, -1):
        *replicas, loss = step(*replicas, images, labels, batch)
        if previous is not None:
            yield replicas, float(np.asarray(previous)[0])
        previous = loss
    yield replicas, float(np.asarray(previous)[0])


def make_accuracy(fn, maximum: int, chunk: int = 500):
    """accuracy(params, split): share of a split's images that the network names right, in [0, 1]."""

    @jax.jit
    def correct(params, images, labels):
        logits = fn(params, images.astype(jnp.float32) / maximum)
        return jnp.sum(jnp.argmax(logits, -1) == labels)

    def accuracy(params, split: data.Split) -> float:
        return sum(int(correct(params, part.images, part.labels)) for part in split.parts(chunk)) / len(split)

    return accuracy


def batches(seed: int, epoch: int, size: int, batch_size: int) -> np.ndarray:
    """Indices of an epoch's batches, [steps, batch]: a new order each epoch, the same for the same seed."""
    steps = size // batch_size
    order = np.random.default_rng([seed, epoch]).permutation(size)
    return order[: steps * batch_size].astype(np.int32).reshape(steps, -1)


def fit(step, params, opt_state, dataset: data.Dataset, epochs: int, batch_size: int, seed: int):
    """Plain training by a step of `make_step`; the weights after the last epoch."""
    images, labels = flax.jax_utils.replicate((dataset.train.images, dataset.train.labels))
    replicas = flax.jax_utils.replicate((params, opt_state))
    for epoch in range(epochs):
        index = batches(seed, epoch, len(dataset.train), batch_size)
        for latest, loss in advance(step, replicas, images, labels, index):
            replicas = latest
            if not np.isfinite(loss):
                raise RunError(f"the loss is {loss} in epoch {epoch + 1}; try a smaller --learning-rate.")
    return flax.jax_utils.unreplicate(replicas[0])
