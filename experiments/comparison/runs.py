"""The runs of a comparison: trained by the compiled steps of a sweep, measured, a line each."""

import dataclasses
import itertools
import json
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

import parsimony as pm

from .. import baselines, models
from ..data.load import load
from ..errors import RunError, unknown
from ..runs.files import append_line, read_lines
from ..training.build import build_model, checked_sampler
from ..training.network import merge_variables
from ..training.step import make_accuracy
from ..training.sweep import Sweep, train
from .config import Comparison
from .methods import METHODS, Plan, fine_tuning, unit_strengths

TUNED, SPARSE = ", fine-tuned", ", W̃"
"""What a result is of, where it is not of W as the run left it, or as it was cut."""


@dataclasses.dataclass(frozen=True)
class Job:
    """A training run: of a trial, or of a final seed. `sparsity` is None where one run gives all of them."""

    kind: str
    method: str
    setting: tuple[tuple[str, float], ...]
    seed: int
    sparsity: float | None

    def line(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"setting": dict(self.setting)}


class Bench:
    """Network, data and compiled steps of a comparison, checked before anything is written."""

    def __init__(self, config: Comparison):
        for method in (*config.methods, *(name.split(".")[0] for name, _ in config.ranges)):
            if method not in METHODS:
                raise RunError(unknown("method", method, METHODS))
            known = [*METHODS[method].search, *METHODS[method].fixed]
            for number in config.ranges_of(method):
                if number not in known:
                    raise RunError(f"ranges: {unknown(f'number of {method}', number, known)}")
            if not config.sparsity and not METHODS[method].cuts and method in config.methods:
                raise RunError(f"{method} trains for a sparsity: give --sparsity, or leave it out of --methods.")
        if config.model not in models.models:
            raise RunError(unknown("model", config.model, models.models))
        if config.level == "filter" and "rigl" in config.methods:
            raise RunError("rigl rewires single weights: leave it out of --methods, or choose --level weight.")
        self.config = config
        self.together = config.together or (1 if jax.default_backend() == "cpu" else 32)
        self.dataset = load(config.dataset, config.validation, config.data_dir, config.images)
        sampler = checked_sampler(self.dataset, config.dataset, config.model, 0, config.batch_size)
        steps = sampler.end(config.epochs)
        self.network, params, stats = build_model(config.model, config.tune_seed)
        if not any(baselines.prunable(w, config.level) for w in jax.tree.leaves(params)):
            raise RunError(f"model {config.model} has no {config.level}s to prune; choose another --level.")
        self.plan = Plan(
            steps,
            config.drops,
            config.clip_norm,
            config.level,
            unit_strengths(params, config.level),
            max(1, round(config.mask_interval * steps)),
        )
        self.shared = self.network, self.dataset
        image = jax.ShapeDtypeStruct((1, *models.image_shape(config.model)), "float32")
        self.whole = merge_variables(params, stats)
        self.units = pm.structure.find_units(self.network.fn, self.whole, image)
        self.size = sum(w.size for w in jax.tree.leaves(params))
        self.sweeps: dict[str, Sweep] = {}
        tuning = dataclasses.replace(self.plan, steps=sampler.end(max(1, config.fine_tune)))
        self.tuner = self.sweep(config.fine_tune, lambda setting: fine_tuning(tuning, setting))
        self.accuracy = make_accuracy(self.network.fn, self.dataset)

    def sweep(self, epochs: int, transformation) -> Sweep:
        return Sweep(*self.shared, epochs, self.config.batch_size, transformation, self.config.augment)

    def lines(self, file: Path, jobs: list[Job]) -> list[dict]:
        """The lines of these jobs, in their order; those that are not there yet are run first."""
        keys = ("kind", "method", "setting", "seed", "sparsity")
        key = lambda line: json.dumps([line[name] for name in keys], sort_keys=True)
        known = {key(line): line for line in read_lines(file)}
        missing = [job for job in jobs if key(job.line()) not in known]
        for first in range(0, len(missing), self.together):
            for line in self.run(missing[first : first + self.together]):
                append_line(file, line)
                known[key(line)] = line
                print(_told(line), flush=True)
        return [known[key(job.line())] for job in jobs]

    def run(self, jobs: list[Job]) -> list[dict]:
        """Trains these jobs of one method as one; a line for each."""
        method, begin = jobs[0].method, time.perf_counter()
        make = METHODS[method].make
        if method not in self.sweeps:
            self.sweeps[method] = self.sweep(self.config.epochs, lambda setting: make(self.plan, setting))
        settings = [
            {name: np.float32(value) for name, value in job.setting}
            | ({} if job.sparsity is None else {"sparsity": np.float32(job.sparsity)})
            | {"seed": np.int32(job.seed)}
            for job in jobs
        ]
        starts = {seed: build_model(self.config.model, seed)[1:] for seed in {job.seed for job in jobs}}
        trained = train(self.sweeps[method], settings, [starts[job.seed] for job in jobs])
        jax.block_until_ready(trained)
        seconds = (time.perf_counter() - begin) / len(jobs)
        return [
            job.line() | {"epochs": self.config.epochs, "seconds": seconds, "results": self.results(job, *own)}
            for job, own in zip(jobs, trained, strict=True)
        ]

    def results(self, job: Job, params, stats, opt_state) -> list[dict]:
        """How good a run is: dense, at each sparsity by each order, and after fine-tuning."""
        measured = lambda row, sparsity, order, own, own_stats, epochs=0, seconds=0.0: self.measured(
            job,
            {"row": row, "sparsity": sparsity, "order": order, "epochs": epochs, "seconds": seconds},
            own,
            own_stats,
        )
        if job.sparsity is not None:
            return [measured("", job.sparsity, "own", params, stats)]
        found = [measured("", None, "magnitude", params, stats)]
        if METHODS[job.method].split_lbi:
            sparse = pm.sparse_params(params, opt_state)
            found.append(measured(SPARSE, None, "magnitude", sparse, stats))
        config, trial = self.config, job.kind == "trial"
        orders = ("magnitude", "dual", "entry") if METHODS[job.method].split_lbi else ("magnitude",)
        for sparsity, order in itertools.product(config.judged_at if trial else config.sparsity, orders):
            cut = pm.apply_masks(params, self.masks(params, opt_state, sparsity, order))
            found.append(measured("", sparsity, order, cut, stats))
        if not config.fine_tune:
            return found
        rate = np.float32(config.fine_tune_rate * dict(job.setting)["learning_rate"])
        judged = {*config.sparsity, *config.judged_at}
        shares = [share for share in judged if share <= max(config.judged_at)] if trial else config.sparsity
        for sparsity in sorted(shares):  # from one to the next: each cut is of what was tuned
            begin, masks = time.perf_counter(), baselines.magnitude_masks(params, sparsity, config.level)
            setting = {"learning_rate": rate, "masks": masks, "seed": np.int32(job.seed)}
            ((params, stats, _),) = train(self.tuner, [setting], [(pm.apply_masks(params, masks), stats)])
            jax.block_until_ready(params)
            seconds = time.perf_counter() - begin
            found.append(measured(TUNED, sparsity, "magnitude", params, stats, config.fine_tune, seconds))
        return found

    def masks(self, params, opt_state, sparsity: float, order: str):
        if order == "magnitude":
            return baselines.magnitude_masks(params, sparsity, self.config.level)
        level = "weight" if self.config.level == "weight" else "group"
        return pm.select(params, opt_state, sparsity, order=order, scope="global", level=level)

    def measured(self, job: Job, told: dict[str, Any], params, stats) -> dict[str, Any]:
        """Accuracy, and what is zero; test accuracy of the final runs alone."""
        leaves = jax.tree.leaves(params)
        inside = [w for w in leaves if baselines.prunable(w, self.config.level)]
        zeros = lambda ws: sum(int((w == 0).sum()) for w in ws) / sum(w.size for w in ws)
        variables = merge_variables(params, stats)
        told = told | {"validation": self.accuracy(variables, self.dataset.validation)}
        if job.kind == "final":
            told["test"] = self.accuracy(variables, self.dataset.test)
        masks = jax.tree.map(lambda w: np.asarray(w != 0) if w.ndim >= 2 else np.ones(w.shape, bool), params)
        return told | {"zeros": zeros(inside), "zeros_of_all": zeros(leaves), "macs": self.macs(masks)}

    def macs(self, masks) -> int | None:
        """Multiply-adds for one image when the units that no weight makes or reads are gone; None: nothing is left."""
        try:
            keep = pm.structure.keep_from_masks(self.units, masks, conflicts="keep") if masks else {}
        except ValueError:
            return None
        return pm.structure.count_at(self.units, {n: int(k.sum()) for n, k in keep.items()}, self.whole).macs


def _told(line: dict[str, Any]) -> str:
    setting = " ".join(f"{name}={value:g}" for name, value in line["setting"].items())
    results = [r for r in line["results"] if r["order"] in ("own", "magnitude")]
    at = ", ".join(
        f"{'dense' if r['sparsity'] is None else format(r['sparsity'], 'g')}{r['row']} {r['validation']:.2%}"
        for r in results
    )
    return f"{line['kind']} {line['method']} ({setting}) seed {line['seed']}: validation {at}; {line['seconds']:.0f} s"
