"""`python -m experiments.bench times`: times of networks of other widths, predicted from parts and measured."""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import parsimony as pm

from ..models import LeNet
from ..models.resnet import ResNet
from .structure import evaluated


def times(images: int = 8, others: int = 8, again: int = 3, busy: bool = False, seed: int = 0) -> None:
    """LeNet and ResNet-20 with a part of their units: the time that the table predicts, and that of the whole program.

    Args:
      images: in a batch.
      others: choices of random widths, from an eighth of each set to all of it, beside equal shares of 3/4, 1/2, 1/4.
      again: tables, each measured anew; of an entry the smallest counts.
      busy: count the time of this process alone, on a machine that does other work; give it one core (`taskset -c 0`).
      seed: of weights and widths.
    """
    device, clock = jax.devices()[0].device_kind, time.process_time if busy else time.perf_counter
    print(f"{device}, JAX {jax.__version__}; batches of {images}, the fastest of {again} × 20 rounds, {clock.__name__}")
    rng = np.random.default_rng(seed)
    for name, network in {"LeNet": LeNet, "ResNet-20": ResNet}.items():
        fn, params = evaluated(network(rngs=nnx.Rngs(seed)))
        x = jnp.ones((images, *network.input_shape))
        units = pm.structure.find_units(fn, params, x)
        sizes = {name: unit_set.size for name, unit_set in units.sets.items()}
        kept = [{name: size for name, size in sizes.items()}]
        kept += [{name: max(1, round(share * size)) for name, size in sizes.items()} for share in (0.75, 0.5, 0.25)]
        kept += [{name: int(rng.integers(-(-n // 8), n + 1)) for name, n in sizes.items()} for _ in range(others)]
        masks = [{name: np.arange(sizes[name]) < width for name, width in widths.items()} for widths in kept]
        models = [pm.structure.compact(units, keep, params) for keep in masks]
        tables = [pm.structure.TimeTable(functools.partial(pm.structure.stopwatch, clock=clock)) for _ in range(again)]
        for table in tables:
            for model in models:
                table.predicted(model.fn, model.params, x)
                table.measured(model.fn, model.params, x)
        best = pm.structure.TimeTable(
            entries={key: min(table.entries[key] for table in tables) for key in tables[0].entries}
        )
        predicted, measured = (
            np.array([of(model.fn, model.params, x) for model in models]) for of in (best.predicted, best.measured)
        )
        predicted *= measured[0] / predicted[0]
        for place, (widths, guess, taken) in enumerate(zip(kept, predicted, measured, strict=True)):
            what = "whole" if place == 0 else ", ".join(map(str, widths.values()))
            print(f"  {name:9s} {taken:8.3f} ms  predicted {guess:8.3f} ({guess / taken - 1:+.1%})  {what}")
        off = np.abs(predicted / measured - 1)[1:]
        print(f"  {name}: off by {np.median(off):.1%} in the median, at most {off.max():.1%}", flush=True)
