"""`python -m experiments.bench by_time RUN`: a run cut by milliseconds, and by multiply-adds: time and accuracy."""

import dataclasses
import functools
import time
from pathlib import Path
from typing import Annotated, Literal

import jax
import numpy as np
import tyro

import parsimony as pm

from ..runs.load import load_run
from ..training.fit import make_fine_tune
from ..training.network import merge_variables, split_variables, trainable
from ..training.recalibration import without
from ..training.step import make_metric


def by_time(
    run: Annotated[Path, tyro.conf.Positional],
    images: int = 8,
    ms: tuple[float, ...] = (0.9, 0.8, 0.7, 0.6),
    macs: tuple[float, ...] = (0.5, 0.3, 0.15),
    fine_tune: int = 1,
    learning_rate: float = 0.02,
    busy: bool = False,
    data_dir: Path | None = None,
) -> None:
    """Networks chosen by two targets along one order, tuned alike.

    Args:
      run: folder of a trained run.
      images: in the batch that is timed.
      ms: shares of the whole network's time.
      macs: shares of its multiply-adds.
      fine_tune: epochs for each.
      learning_rate: of these, at their beginning.
      busy: count the time of this process alone, on a machine that does other work; give it one core (`taskset -c 0`).
      data_dir: where TFDS keeps its data.
    """
    trained, clock = load_run(run, data_dir), time.process_time if busy else time.perf_counter
    params, stats, opt_state = trained.at()
    variables, fn = merge_variables(params, stats), trained.network.fn
    x = jax.ShapeDtypeStruct((images, *trained.dataset.shape), "float32")
    units = pm.structure.find_units(fn, variables, x)
    table = pm.structure.TimeTable(functools.partial(pm.structure.stopwatch, clock=clock))
    whole, parts = table.measured(fn, variables, x), table.predicted(fn, variables, x)
    accuracy = lambda fn, variables: make_metric(fn, trained.dataset)(variables, trained.dataset.test)
    widths = [unit_set.size for unit_set in units.sets.values()]
    print(f"{jax.devices()[0].device_kind}, JAX {jax.__version__}; batches of {images}, {clock.__name__}")
    print(f"whole: {whole:.3f} ms, test accuracy {accuracy(fn, variables):.2%}; units {widths}", flush=True)
    wanted: list[tuple[Literal["ms", "macs"], float]] = [("ms", share) for share in ms]
    for target, share in wanted + [("macs", share) for share in macs]:
        keep = pm.structure.choose(
            units, variables, opt_state, at_most=share, target=target, times=table if target == "ms" else None
        )
        own = without(units, keep, params, stats, trained.recalibrate())[1]
        small = pm.structure.compact(units, keep, merge_variables(params, own))
        network = trainable(trained.network, small)
        tune = make_fine_tune(
            network, trained.dataset, trained.config, learning_rate, fine_tune, trained.config.seed + 1
        )
        tuned = dataclasses.replace(small, params=merge_variables(*tune(*split_variables(small.params, stats))))
        taken = table.measured(small.fn, small.params, x)
        guess = table.predicted(small.fn, small.params, x) * whole / parts
        counts = pm.structure.count(small.fn, small.params, x)
        left = [int(np.sum(keep[name])) if name in keep else s.size for name, s in units.sets.items()]
        print(
            f"  {share:.0%} of the {target}: {taken:.3f} ms ({taken / whole:.2f}; predicted {guess / taken - 1:+.1%}), "
            f"{counts.macs // images:,} multiply-adds, {counts.parameters:,} parameters, units {left}; test accuracy "
            f"{accuracy(small.fn, small.params):.2%}, tuned {accuracy(tuned.fn, tuned.params):.2%}",
            flush=True,
        )
