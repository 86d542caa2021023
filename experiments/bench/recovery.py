"""`python -m experiments.bench recovery RUN...`: what a refit and a teacher give back after a cut, alone and tuned."""

import functools
import time
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import tyro

import parsimony as pm

from ..metrics import Metric
from ..plots.text import aligned, spread
from ..runs.load import Run, load_run
from ..training.fit import make_fine_tune
from ..training.network import distilled, merge_variables, split_variables, trainable
from ..training.recalibration import without
from ..training.step import make_metric

Found = dict[tuple[str, float], list[float]]
"""{(what was done, share of the units that went): test metric of each run}"""


def recovery(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional],
    sparsity: tuple[float, ...] = (0.5, 0.7, 0.85),
    scope: Literal["global", "layer"] = "global",
    refit: int = 1000,
    fine_tune: int = 2,
    taught: int = 1,
    distil: float = 0.9,
    temperature: float = 2.0,
    learning_rate: float = 0.02,
    data_dir: Path | None = None,
) -> None:
    """Units cut by ‖V‖: as they are, with statistics of their own, refitted, and each of these tuned.

    Args:
      runs: folders of trained runs that differ in the seed.
      sparsity: shares of the units that go.
      scope: one order of all units, or an equal share of each layer.
      refit: training images for the refit.
      fine_tune: epochs with the labels alone.
      taught: epochs with the whole network as teacher, each of which costs a forward pass of it a step more.
      distil, temperature: of the teacher, as in `compact`.
      learning_rate: of all fine-tuning, at its beginning.
      data_dir: where TFDS keeps its data.
    """
    found: Found = defaultdict(list)
    loaded = [load_run(run, data_dir) for run in runs]
    print(f"{jax.devices()[0].device_kind}, JAX {jax.__version__}; {refit} images to refit with, by {scope}")
    for directory, run in zip(runs, loaded, strict=True):
        for share in sparsity:
            keys = {"refit": refit, "epochs": (fine_tune, taught), "teacher": (temperature, distil)}
            for what, (score, seconds) in _recovered(run, share, scope, learning_rate, **keys).items():
                found[what, share].append(score)
                text = run.dataset.metric.text(score)
                print(f"  {directory}, {share:.0%} cut, {what}: {text}, {seconds:.1f} s", flush=True)
    print(table(found, sparsity, loaded[0].dataset.metric))


def _recovered(run: Run, share: float, scope, rate: float, *, refit: int, epochs, teacher):
    """{what was done: (test metric, CPU seconds, those of the first step and its compilation among them)}."""
    params, stats, opt_state = run.at()
    variables, again = merge_variables(params, stats), run.recalibrate()
    units = pm.structure.find_units(run.network.fn, variables, run.dataset.example)
    keep = pm.structure.choose(units, variables, opt_state, at_most=1 - share, scope=scope)
    small = pm.structure.compact(units, keep, variables)
    measure = make_metric(small.fn, run.dataset)
    cut = lambda weights, own: pm.structure.compact(units, keep, merge_variables(weights, own)).params
    images = jnp.asarray(run.dataset.normalised(next(run.dataset.train.parts(refit)).inputs))
    starts, plain = {"cut": small.params}, "cut"
    if jax.tree.leaves(stats):
        plain = "recalibrated"
        starts[plain] = cut(params, without(units, keep, params, stats, again)[1])
    begin = time.process_time()
    weights, _ = split_variables(pm.structure.refit(units, keep, variables, images).params, stats)
    starts["refitted"] = cut(weights, again(weights, params, stats))
    seconds = {name: 0.0 for name in starts} | {"refitted": time.process_time() - begin}
    scores = {name: (measure(its, run.dataset.test), seconds[name]) for name, its in starts.items()}

    network = trainable(run.network, small)
    student = distilled(network, functools.partial(run.network.fn, variables), *teacher)
    for name, its, number in (("tuned", network, epochs[0]), ("taught", student, epochs[1])):
        tune = make_fine_tune(its, run.dataset, run.config, rate, number, run.config.seed + 1)
        for first in (plain, "refitted"):
            begin = time.process_time()
            tuned = merge_variables(*jax.block_until_ready(tune(*split_variables(starts[first], stats))))
            taken = time.process_time() - begin
            scores[f"{first}, {name} {number}"] = measure(tuned, run.dataset.test), taken
    return scores


def table(found: Found, sparsity, metric: Metric) -> str:
    """Mean ± standard deviation over the runs, a line for what was done and a column a share."""
    lines = [["cut, of the units", *(f"{share:.0%}" for share in sparsity)]]
    for what in dict.fromkeys(what for what, _ in found):
        lines.append([what, *(spread(found[what, share], metric.scale) for share in sparsity)])
    return aligned(lines)
