"""`python -m experiments.bench structure`: time of the analysis, and how much of the work removed is time saved."""

import functools
import time
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import parsimony as pm

from ..models import models as networks
from ..models.resnet import ResNet
from ..training.network import merge_variables, parts_of
from .timing import in_turn, ratio


def structure(
    models: tuple[Literal["lenet", "resnet20", "vgg16"], ...] = ("lenet", "resnet20", "vgg16"),
    rounds: int = 20,
    seed: int = 0,
) -> None:
    """Times of find_units and compact; multiply-adds and latency of networks with fewer units.

    Args:
      models: some of these three.
      rounds: timed rounds; in each, every network takes its turn.
      seed: of the weights.
    """
    print(f"{jax.devices()[0].device_kind}, JAX {jax.__version__}; medians of {rounds} rounds, quartiles in brackets")
    _analysis()
    for name in models:
        network = networks[name](rngs=nnx.Rngs(seed))
        fn, params = evaluated(network)
        image = jnp.ones((1, *network.input_shape))
        units = pm.structure.find_units(fn, params, image)
        rows: dict[str, Any] = {"whole": (fn, params)}
        for left in (0.75, 0.5, 0.25):
            keep = pm.structure.choose(units, params, at_most=left, order="magnitude", scope="layer")
            small = pm.structure.compact(units, keep, params)
            rows[f"{left:.0%} of the units"] = (small.fn, small.params)
        macs = {row: pm.structure.count(*pair, image).macs for row, pair in rows.items()}
        images = jnp.asarray(np.random.default_rng(seed).random((128, *network.input_shape)), jnp.float32)
        for batch in (1, 128):
            calls = {row: functools.partial(jax.jit(fn), params, images[:batch]) for row, (fn, params) in rows.items()}
            times = in_turn(calls, rounds)
            for row, seconds in times.items():
                speed, low, high = ratio(times, "whole", row)
                less = macs["whole"] / macs[row]
                print(
                    f"  {name:9s} batch {batch:3d}  {row:16s} {1e3 * np.median(seconds):8.3f} ms  {less:5.2f} × fewer "
                    f"multiply-adds  {speed:5.2f} × as fast ({low:.2f}–{high:.2f})  {speed / less:4.0%}"
                )


def evaluated(network: nnx.Module):
    """fn(params, images) at inference, and its parameters with the batch statistics."""
    parts, params, stats = parts_of(network)
    return parts.fn, merge_variables(params, stats)


def _analysis() -> None:
    """A chain of 100,000 units, and the network with the most sets here."""
    chain = {f"w{i:02d}": jnp.zeros((16 if i == 0 else 2000, 16 if i == 50 else 2000)) for i in range(51)}

    def apply(params, x):
        for w in params.values():
            x = jax.nn.relu(x @ w)
        return x

    cases = {
        "a chain of 100,000 units": (apply, chain, jnp.ones((1, 16))),
        "ResNet-110": (*evaluated(ResNet(110, rngs=nnx.Rngs(0))), jnp.ones((1, 32, 32, 3))),
    }
    for name, (fn, params, x) in cases.items():
        begin = time.perf_counter()
        units = pm.structure.find_units(fn, params, x)
        seconds = time.perf_counter() - begin
        sizes = {name: unit_set.size for name, unit_set in units.sets.items() if unit_set.size > 1}
        keep = {name: np.arange(size) % 2 == 0 for name, size in sizes.items()}
        begin = time.perf_counter()
        pm.structure.compact(units, keep, params)
        print(
            f"  {name}: {len(units.sets)} sets found in {seconds:.2f} s, compact in {time.perf_counter() - begin:.2f} s"
        )
