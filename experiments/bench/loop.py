"""`bench loop`: what the loop adds to the bare compiled step, and Split LBI to plain SGD, on images made up.

In each round all take their turn with the same number of steps: the compiled step by itself, dispatched as fast as it
goes; and the same step in the loop of the experiments, with its batches by index, its losses read a call late and its
progress counted. Both with `optax.sgd` and with Split LBI whose path is recorded. With them the share of the machine's
rate that convolutions and matrices use, of what a large product of two matrices reaches in the same type:

    operations of a step = 6·batch·multiply-adds of an image       (two each; forward once, backward twice)
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

import parsimony as pm

from .. import models
from ..data.dataset import Dataset, Split
from ..data.loader import DeviceLoader, steps_per_call
from ..data.placement import replicate
from ..data.sampler import Sampler
from ..training.build import build_model
from ..training.network import merge_variables
from ..training.step import advance, make_step
from .timing import in_turn, ratio


def loop(
    model: str = "resnet20",
    batch_size: int = 128,
    steps: int = 8,
    rounds: int = 12,
    augment: bool = False,
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> None:
    """Time a step, images a second, and the two ratios with their quartiles.

    Args:
      model: one of experiments/models.
      batch_size: images a step, over all devices.
      steps: in each turn.
      rounds: in each of which all four take their turn.
      augment: crops and flips inside the step.
      dtype: of convolutions and matrix products.
    """
    dataset = made_up(model, 4 * batch_size)
    options: dict[str, Any] = {} if dtype == "float32" else {"dtype": dtype}  # not all models have the choice
    network, params, stats = build_model(model, 0, **options)
    loader = DeviceLoader(dataset.train, Sampler(0, len(dataset.train), batch_size))
    optimizers = {
        "sgd": optax.sgd(0.01, momentum=0.9),
        "split_lbi": pm.record_path(pm.split_lbi(0.01, momentum=0.9)),
    }
    turns = {}
    for name, tx in optimizers.items():
        step = make_step(network, tx, dataset, augment=augment)
        start = lambda tx=tx: list(replicate((params, stats, tx.init(params))))
        turns[f"{name}, bare"] = bare(step, start(), loader, steps)
        turns[f"{name}, loop"] = _looped(step, start(), loader, steps)
    times = in_turn(turns, rounds)

    device = jax.devices()[0]
    print(f"{jax.device_count()} × {device.device_kind}, JAX {jax.__version__}; {model}, batch {batch_size}, {dtype};")
    print(f"medians of {rounds} rounds of {steps} steps, {min(steps, steps_per_call())} a call; quartiles in brackets")
    variables = merge_variables(params, stats)
    units = pm.structure.find_units(network.fn, variables, jnp.zeros((1, *dataset.shape)))
    operations = 6 * batch_size * pm.structure.count_at(units, {}, variables).macs
    rate = matrix_rate(dtype) * jax.device_count()
    print(f"{operations / 1e9:.2f} GFLOP a step; matrices multiply at {rate / 1e9:,.0f} GFLOP/s")
    for name, measured in times.items():
        seconds = float(np.median(measured)) / steps
        share = operations / seconds / rate
        print(f"  {name:16s} {1e3 * seconds:9.2f} ms a step  {batch_size / seconds:9.0f} images/s  {share:5.1%} of it")
    for one, other in [
        ("sgd, loop", "sgd, bare"),
        ("split_lbi, loop", "split_lbi, bare"),
        ("split_lbi, loop", "sgd, loop"),
    ]:
        middle, low, high = ratio(times, one, other)
        print(f"  {one} / {other}: {middle:.3f} ({low:.3f}–{high:.3f})")


def made_up(model: str, images: int) -> Dataset:
    """Random images of a model's size with random labels."""
    rng, shape = np.random.default_rng(0), models.input_shape(model)
    split = Split(rng.integers(0, 256, (images, *shape), np.uint8), rng.integers(0, 10, images))
    return Dataset(split, split, split, 255, (127.0,) * shape[-1], (64.0,) * shape[-1])


def matrix_rate(dtype: str, trials: int = 10) -> float:
    """Operations a second of a device in the product of two large square matrices of random numbers."""
    size = 2048 if jax.default_backend() == "cpu" else 8192
    x = jax.random.normal(jax.random.key(0), (size, size), dtype)
    product = jax.jit(lambda x: x @ x)
    times = in_turn({"product": lambda: product(x)}, trials)
    return 2 * size**3 / float(np.median(times["product"]))


def bare(step, replicas: list, loader: DeviceLoader, steps: int):
    """Calls of the compiled step alone, all with the same batches."""
    per_call = min(steps, steps_per_call())
    arguments = next(loader.chunks(0, per_call, per_call))
    on_devices = (*arguments[:2], jax.device_put(arguments[2]), jax.device_put(arguments[3]))

    def turn():
        losses = None
        for _ in range(-(-steps // per_call)):
            *latest, losses = step(*replicas, *on_devices)
            replicas[:] = latest
        return losses

    return turn


def _looped(step, replicas: list, loader: DeviceLoader, steps: int):
    """The same number of steps in the loop."""
    at, seen = [0], []

    def turn():
        for latest, _, losses in advance(step, replicas, loader.chunks(at[0], at[0] + steps)):
            replicas[:] = latest
            seen.extend(losses)
        at[0] += steps
        return replicas

    return turn
