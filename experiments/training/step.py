"""One training step, the data-parallel loop of them under `pmap`, and the metric of a network."""

from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..data.augment import augmented
from ..data.dataset import Dataset, Split
from ..data.placement import AXIS, replicate
from .network import Network


def make_step(network: Network, tx, dataset: Dataset, *, seed: int = 0, augment: bool = False):
    """The compiled data-parallel step: each device takes its shard of a batch, and all take the same update.

    step(params, stats, opt_state, images, labels, index, number) → (params, stats, opt_state, losses): as many steps
    as `index`, [devices, steps, shard of the batch], has. `number`, [steps], counts them over the whole training, and
    is negative where there is no batch: with the seed it decides what is random in a step, whatever the number of
    devices.
    """
    update = make_update(network, tx, dataset, seed=seed, augment=augment, axis=AXIS)

    def step(params, stats, opt_state, images, labels, index, number):
        state, losses = take_steps(update, (params, stats, opt_state), images, labels, index, number)
        return *state, losses

    # Outputs in the order of the donated inputs: JAX pairs buffers of one shape in order, and a wrong pair is a copy.
    return jax.pmap(step, axis_name=AXIS, in_axes=(0, 0, 0, 0, 0, 0, None), donate_argnums=(0, 1, 2))


def make_update(network: Network, tx, dataset: Dataset, *, seed, augment: bool = False, axis: str | None = None):
    """One training step: update(state, images, labels, index, number) → (state, loss).

    `state` is (params, stats, opt_state), and the batch is what `index` takes of the images, or all of them. Where
    the step runs on several devices, `axis` is the name of theirs: each has its shard of the batch, and all take the
    means of what they find. `seed` may be traced.
    """

    def loss_of(params, stats, images, labels, key):
        logits, stats = network.forward(params, stats, dataset.normalised(images), key)
        return network.loss(logits, labels).mean(), stats

    loss_and_grad = jax.value_and_grad(loss_of, has_aux=True)

    def update(state, images, labels, index, number):
        params, stats, opt_state = state
        if index is not None:
            images, labels = images[index], labels[index]
        batch, dropout_key = training_batch(images, seed, number, augment, axis)
        (loss, stats), grads = loss_and_grad(params, stats, batch, labels, dropout_key)
        if axis is not None:
            loss, stats, grads = jax.lax.pmean((loss, stats, grads), axis)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), stats, opt_state), loss

    return update


def training_batch(images, seed, number, augment: bool, axis: str | None):
    """(images, key of the dropout) of a batch as training sees it; `number` is its place in the whole training."""
    key, device = jax.random.fold_in(jax.random.key(seed), number), 0
    if axis is not None:
        device = jax.lax.axis_index(axis)
    if augment:
        images = augmented(images, key, device * len(images))
    return images, key if axis is None else jax.random.fold_in(key, device)


def take_steps(update, state, images, labels, index, number):
    """(state, losses) after an update by each batch of `index`, [steps, batch], but where its `number` is negative.

    No index: the images are one batch.

    Such batches may only be the last, and only on a CPU; elsewhere the loop has a length that the compiler knows.
    """

    def one(at, carry):
        state, losses = carry
        state, loss = update(state, images, labels, None if index is None else index[at], number[at])
        return state, losses.at[at].set(loss)

    steps = jnp.sum(number >= 0) if jax.default_backend() == "cpu" and len(number) > 1 else len(number)
    return jax.lax.fori_loop(0, steps, one, (state, jnp.zeros(len(number))))


def advance(step, replicas, chunks: Iterable[tuple]) -> Iterator[tuple[list, int, list[float]]]:
    """Takes the steps of some chunks of a loader; yields (replicas, number of steps taken, losses) for each.

    The losses are those of the chunk before, and at last once more of the last one, so that the device is never left
    waiting for the host.
    """
    before: tuple | None = None
    for images, labels, index, number in chunks:
        *replicas, losses = step(*replicas, images, labels, index, number)
        taken = int(np.sum(number >= 0))
        yield replicas, taken, [] if before is None else _listed(*before)
        before = losses, taken
    if before is not None:
        yield replicas, 0, _listed(*before)


def _listed(losses, taken: int) -> list[float]:
    return np.asarray(losses)[0, :taken].tolist()


def make_metric(fn, dataset: Dataset):
    """metric(variables, split): the metric of the data of fn's answers to a split, such as the share that is right.

    Each device of each process takes its share of the examples.
    """

    def total(variables, inputs, labels):
        return jax.lax.psum(total_of(fn, dataset, variables, inputs, labels), AXIS)

    total = jax.pmap(total, axis_name=AXIS)

    def metric(variables, split) -> float:
        replicas = replicate(variables)
        return overall(lambda *examples: np.asarray(total(replicas, *examples))[0], dataset, split)

    return metric


def total_of(fn, dataset: Dataset, variables, inputs, labels):
    """(sum of the metric's values, number of labels), [2]."""
    values = dataset.metric.values(fn(variables, dataset.normalised(inputs)), labels)
    return jnp.stack([jnp.sum(values), jnp.sum(labels >= 0).astype(values.dtype)])


def overall(total, dataset: Dataset, split) -> float:
    """The metric over a split, given `total(inputs, labels)`, which are [devices, share, ...], as `total_of`."""
    at_once = 500 if dataset.shape[0] <= 64 else 50  # of each device: what the memory holds
    devices, found = jax.local_device_count(), np.zeros(2)
    share = min(at_once, -(-len(split) // jax.device_count()))
    for part in split.parts(share * jax.device_count(), (jax.process_index(), jax.process_count())):
        examples = _filled(part, share * devices)
        found += np.asarray(total(*(x.reshape(devices, share, *x.shape[1:]) for x in examples)), np.float64)
    return dataset.metric.of_mean(float(found[0] / found[1]))


def validation_and_test(metric, variables, dataset: Dataset) -> dict[str, float]:
    """{split: metric} of the validation and the test examples."""
    return {split: metric(variables, getattr(dataset, split)) for split in ("validation", "test")}


def _filled(part: Split, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs of zeros, labelled −1, after those there are: one shape, compiled once."""
    missing = size - len(part)
    after = lambda array, value: np.concatenate([array, np.full((missing, *array.shape[1:]), value, array.dtype)])
    return after(part.inputs, 0), after(part.labels, -1)
