"""The runs of a comparison: trained by the compiled steps of a sweep, measured, a line each."""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

import parsimony as pm

from .. import baselines
from ..runs.digest import machine
from ..runs.files import append_line, read_lines
from ..training.network import merge_variables
from ..training.sweep import train
from .methods import METHODS
from .results import Job, JobResults, Result, from_line, to_line
from .setup import Setup


def finish(setup: Setup, file: Path, jobs: Sequence[Job], fits: Callable[[float], bool] = lambda _: True):
    """[JobResults] of these jobs, in their order; those that no line of the file tells of are run first.

    Args:
      fits: seconds → whether so long a run is still made; a job that does not fit is left out.
    """
    known = {done.job: done for done in map(from_line, read_lines(file)) if _covers(setup, done)}
    missing = [job for job in jobs if job not in known]
    for together in _together(setup, missing):
        if not fits(_expected(known.values(), together)):
            continue
        for done in run(setup, together):
            append_line(file, to_line(done))
            known[done.job] = done
            print(format_results(done), flush=True)
    return [known[job] for job in jobs if job in known]


def _covers(setup: Setup, done: JobResults) -> bool:
    """Whether a run that gives every sparsity was cut to all that are asked for by now."""
    if done.job.sparsity is not None:
        return True
    wanted = setup.config.judged_at if done.job.kind == "trial" else setup.config.sparsity
    return set(wanted) <= {result.sparsity for result in done.results}


def _together(setup: Setup, jobs: Sequence[Job]) -> Iterator[Sequence[Job]]:
    """The jobs that are trained as one; networks of other widths cannot be."""
    apart = lambda job: job.sparsity if METHODS[job.method].narrow else None
    for alike in {apart(job): [one for one in jobs if apart(one) == apart(job)] for job in jobs}.values():
        yield from (alike[first : first + setup.together] for first in range(0, len(alike), setup.together))


def _expected(known: Iterable[JobResults], jobs: Sequence[Job]) -> float:
    """Seconds that jobs will take: the most that one of the method took on this machine, a quarter more to measure."""
    here = machine()
    cost = lambda done: done.seconds + sum(result.seconds for result in done.results)
    alike = [cost(done) for done in known if done.machine == here and done.job.method == jobs[0].method]
    return 1.25 * len(jobs) * max(alike, default=0.0)


def run(setup: Setup, jobs: Sequence[Job]) -> list[JobResults]:
    """Trains these jobs of one method as one, and measures each."""
    begin = time.perf_counter()
    settings = [
        {name: np.float32(value) for name, value in job.setting}
        | ({} if job.sparsity is None else {"sparsity": np.float32(job.sparsity)})
        | {"seed": np.int32(job.seed)}
        for job in jobs
    ]
    if METHODS[jobs[0].method].narrow:
        setup = setup.narrowed(jobs[0].sparsity or 0.0)
    starts = {seed: setup.start(seed) for seed in {job.seed for job in jobs}}
    trained = train(setup.sweep_of(jobs[0].method), settings, [starts[job.seed] for job in jobs])
    jax.block_until_ready(trained)
    seconds = (time.perf_counter() - begin) / len(jobs)
    return [
        JobResults(job, setup.config.epochs, seconds, tuple(measure_all(setup, job, *weights)), machine())
        for job, weights in zip(jobs, trained, strict=True)
    ]


def measure_all(setup: Setup, job: Job, params, stats, opt_state) -> list[Result]:
    """How good a run is: dense, at each sparsity by each order, and after fine-tuning."""
    config, trial, split_lbi = setup.config, job.kind == "trial", METHODS[job.method].split_lbi
    if job.sparsity is not None:
        return [measure(setup, job, "W", job.sparsity, "own", params, stats)]
    results = [measure(setup, job, "W", None, "magnitude", params, stats)]
    if split_lbi:
        sparse = pm.sparse_params(params, opt_state)
        results.append(measure(setup, job, "W̃", None, "magnitude", sparse, stats))
    orders = ("magnitude", "dual", "entry") if split_lbi else ("magnitude",)
    for sparsity, order in itertools.product(config.judged_at if trial else config.sparsity, orders):
        cut = pm.apply_masks(params, masks_of(config.level, params, opt_state, sparsity, order))
        results.append(measure(setup, job, "W", sparsity, order, cut, stats))
    return results + (fine_tuned(setup, job, params, stats) if config.fine_tune else [])


def fine_tuned(setup: Setup, job: Job, params, stats) -> list[Result]:
    """After fine-tuning, from one sparsity to the next: each cut is of what was tuned before."""
    config, results = setup.config, []
    shares = set(config.sparsity)
    if job.kind == "trial":
        shares = {share for share in shares.union(config.judged_at) if share <= max(config.judged_at)}
    rate = np.float32(config.fine_tune_rate * dict(job.setting)["learning_rate"])
    for sparsity in sorted(shares):
        begin, masks = time.perf_counter(), baselines.magnitude_masks(params, sparsity, config.level)
        setting = {"learning_rate": rate, "masks": masks, "seed": np.int32(job.seed)}
        ((params, stats, _),) = train(setup.tuner, [setting], [(pm.apply_masks(params, masks), stats)])
        jax.block_until_ready(params)
        cost = {"epochs": config.fine_tune, "seconds": time.perf_counter() - begin}
        results.append(measure(setup, job, "fine-tuned", sparsity, "magnitude", params, stats, **cost))
    return results


def masks_of(level: Literal["group", "weight"], params, opt_state, sparsity: float, order: str):
    """Masks of a sparsity, by magnitude or by an order of the path."""
    if order == "magnitude":
        return baselines.magnitude_masks(params, sparsity, level)
    return pm.select(params, opt_state, sparsity, order=order, scope="global", level=level)


def measure(setup: Setup, job: Job, of: str, sparsity: float | None, order: str, params, stats, **cost: Any) -> Result:
    """Accuracy, with batch statistics of these weights, and what is zero; test accuracy of the final runs alone."""
    leaves, level = jax.tree.leaves(params), setup.config.level
    zeros = lambda ws, whole: 1 - sum(int((w != 0).sum()) for w in ws) / whole
    variables = merge_variables(params, setup.recalibrated(params, None, stats))
    return Result(
        of=of,
        sparsity=sparsity,
        order=order,
        validation=setup.accuracy(variables, setup.dataset.validation),
        test=setup.accuracy(variables, setup.dataset.test) if job.kind == "final" else None,
        zeros=zeros([w for w in leaves if baselines.prunable(w, level)], setup.prunable),
        zeros_of_all=zeros(leaves, setup.parameters),
        macs=macs(setup, variables),
        **cost,
    )


def macs(setup: Setup, variables) -> int:
    """Multiply-adds for one image of the smallest dense network that computes the same."""
    small = pm.structure.minimise(setup.units, variables, None)
    image = jax.ShapeDtypeStruct((1, *setup.dataset.shape), "float32")
    return pm.structure.count(small.fn, small.params, image).macs


def format_results(done: JobResults) -> str:
    """A line for the terminal."""
    job = done.job
    setting = " ".join(f"{name}={value:g}" for name, value in job.setting)
    shown = [result for result in done.results if result.order in ("own", "magnitude")]
    label = lambda result: "dense" if result.sparsity is None else format(result.sparsity, "g")
    kind = lambda result: "" if result.of == "W" else f", {result.of}"
    accuracies = ", ".join(f"{label(result)}{kind(result)} {result.validation:.2%}" for result in shown)
    return f"{job.kind} {job.method} ({setting}) seed {job.seed}: validation {accuracies}; {done.seconds:.0f} s"
