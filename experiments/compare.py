"""Comparing methods: trials on the validation images, then the chosen settings with other seeds, and the record.

runs/NAME/config.json     what was asked for
runs/NAME/results.jsonl   a line a run, only ever added to: its numbers, and how good it was at each sparsity
runs/NAME/record.json     what was chosen, and means and deviations over the seeds; made anew from the lines

Started again, it makes only the runs that no line tells of: after a kill, and with more seeds or methods.
"""

import dataclasses
import difflib
import itertools
import json
import math
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from scipy.stats import qmc

import parsimony as pm

from . import data, models, rivals
from .comparison import GROWING, Comparison
from .comparison_table import summary, text
from .methods import METHODS, Plan, fine_tuning, unit_strengths
from .network import merged
from .record import RunError, append_line, environment, read_lines, write_json
from .sweep import Sweep, initial, make_accuracy, train

TUNED = ", fine-tuned"


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


def compare(name: str, config: Comparison) -> Path:
    """Makes what is missing of a comparison, prints its table and returns its folder."""
    bench, where = Bench(config), environment()
    directory = open_comparison(name, config)
    file, trials, chosen = directory / "results.jsonl", [], {}
    for method in config.methods:
        if config.grid:
            chosen |= {row: (method, setting, "magnitude") for row, setting in grid(config, method).items()}
            continue
        jobs = [
            Job("trial", method, setting, config.tune_seed, sparsity)
            for setting in searched(config, method)
            for sparsity in each_run(config, method, config.tune_at)
        ]
        trials += (lines := bench.lines(file, jobs))
        chosen |= {row: (method, *best) for row, best in choose(config, lines).items()}
    final = []
    for seed in range(config.seeds):  # one seed of all methods after the other: what is there can be compared
        for method, setting in dict.fromkeys((method, setting) for method, setting, _ in chosen.values()):
            sparsities = each_run(config, method, config.sparsity)
            final += bench.lines(file, [Job("final", method, setting, seed, sparsity) for sparsity in sparsities])
        rows = summary(config, chosen, final)
        write_json(directory / "record.json", record(name, bench, where, trials, final, rows))
    print(f"\n{text(config.settings(), rows)}\n\nrecord: {directory / 'record.json'}")
    print(f"picture and Markdown table: python -m experiments report compare {directory}")
    return directory


def record(name: str, bench: "Bench", where: dict, trials: list[dict], final: list[dict], rows: list[dict]) -> dict:
    """All that a table needs: means over the seeds so far."""
    seconds = lambda lines: sum(
        line["seconds"] + sum(result["seconds"] for result in line["results"]) for line in lines
    )
    return {"name": name, "configuration": bench.config.settings(), **where} | {
        "parameters": bench.size,
        "macs": bench.macs({}),
        "trained": {"trials": len(trials), "final": len(final)},
        "training_seconds": {"trials": seconds(trials), "final": seconds(final)},
        "rows": rows,
    }


def open_comparison(name: str, config: Comparison) -> Path:
    """The folder: a new one, or one of the same comparison with as many or fewer methods and seeds."""
    directory = config.run_dir or Path("runs") / name
    file, now = directory / "config.json", json.loads(json.dumps(config.settings()))
    if file.exists():
        before = json.loads(file.read_text())
        other = [field for field in now if field not in GROWING and before.get(field) != now[field]]
        if other:
            detail = ", ".join(f"{field} {before.get(field)!r} → {now[field]!r}" for field in other)
            raise RunError(f"{directory} holds another comparison ({detail}); choose another folder by --run-dir.")
    elif directory.exists() and any(directory.iterdir()):
        raise RunError(f"{directory} holds files that are no comparison of ours; choose another folder by --run-dir.")
    directory.mkdir(parents=True, exist_ok=True)
    write_json(file, now)
    return directory


def each_run(config: Comparison, method: str, sparsities: tuple[float, ...]) -> tuple[float | None, ...]:
    """The sparsities that take a run each."""
    return (None,) if METHODS[method].cuts else sparsities


def searched(config: Comparison, method: str) -> list[tuple[tuple[str, float], ...]]:
    """The settings of the trials: points of a Halton sequence, spread over the logarithms of the search space."""
    fixed = dict(config.fixed)
    search = {name: span for name, span in METHODS[method].search.items() if name not in fixed}
    given = {name: fixed.get(name, value) for name, value in METHODS[method].fixed.items()}
    given |= {name: fixed[name] for name in METHODS[method].search if name in fixed}
    if not search:
        return [tuple(sorted(given.items()))]
    points = qmc.Halton(len(search), rng=np.random.default_rng(config.tune_seed)).random(config.trials)
    at = lambda span, part: float(f"{span[0] * (span[1] / span[0]) ** part:.4g}")
    return [
        tuple(
            sorted((given | {n: at(span, part) for (n, span), part in zip(search.items(), point, strict=True)}).items())
        )
        for point in points
    ]


def grid(config: Comparison, method: str) -> dict[str, tuple[tuple[str, float], ...]]:
    """{label: setting} of every combination; what is neither in the grid nor fixed is an error."""
    names = [name for name, _ in config.grid]
    own = dict(METHODS[method].fixed) | dict(config.fixed)
    found = {}
    for values in itertools.product(*(values for _, values in config.grid)):
        label = " ".join(f"{name}={value:g}" for name, value in zip(names, values, strict=True))
        found[f"{method} {label}"] = tuple(sorted((own | dict(zip(names, values, strict=True))).items()))
    return found


def choose(config: Comparison, lines: list[dict]) -> dict[str, tuple[tuple, str]]:
    """{row: (setting, order)} of the best mean validation accuracy at the sparsities of `tune_at`."""
    scores: dict[tuple, list[float]] = {}
    for line in lines:
        for result in line["results"]:
            if result["sparsity"] in (config.tune_at if config.sparsity else (None,)):
                key = line["method"] + result["row"], tuple(sorted(line["setting"].items())), result["order"]
                scores.setdefault(key, []).append(result["validation"])
    best: dict[str, tuple] = {}
    for (row, setting, order), values in scores.items():
        score = math.fsum(values) / len(values)
        if row not in best or score > best[row][0]:
            best[row] = score, setting, order
    return {row: own[1:] for row, own in best.items()}


class Bench:
    """Network, data and compiled steps of a comparison, checked before anything is written."""

    def __init__(self, config: Comparison):
        for method in config.methods:
            if method not in METHODS:
                near = difflib.get_close_matches(method, METHODS, n=1, cutoff=0)[0]
                raise RunError(f"unknown method {method!r}; did you mean {near!r}? Known: {', '.join(METHODS)}.")
        if config.model not in models.models:
            raise RunError(f"unknown model {config.model!r}; known: {', '.join(models.models)}.")
        if config.level == "filter" and "rigl" in config.methods:
            raise RunError("rigl rewires single weights: leave it out of --methods, or choose --level weight.")
        self.config = config
        self.dataset = data.load(config.dataset, config.validation, config.data_dir, config.images)
        if self.dataset.train.images.shape[1:] != models.image_shape(config.model):
            raise RunError(f"model {config.model} takes images of another size than {config.dataset} has.")
        an_epoch = len(self.dataset.train) // config.batch_size
        if an_epoch == 0:
            raise RunError(
                f"batch_size {config.batch_size} is more than the {len(self.dataset.train)} training images."
            )
        if config.every > config.epochs * an_epoch / 10:
            raise RunError(f"every {config.every}: more than a tenth of the {config.epochs * an_epoch} steps of a run.")
        self.network, params, stats = initial(config.model, config.tune_seed)
        if not any(rivals.prunable(w, config.level) for w in jax.tree.leaves(params)):
            raise RunError(f"model {config.model} has no {config.level}s to prune; choose another --level.")
        self.plan = Plan(
            config.epochs * an_epoch,
            config.drops,
            config.clip_norm,
            config.level,
            unit_strengths(params, config.level),
            config.every,
        )
        self.shared = self.network, self.dataset
        image = jax.ShapeDtypeStruct((1, *models.image_shape(config.model)), "float32")
        self.whole = merged(params, stats)
        self.units = pm.structure.find_units(self.network.fn, self.whole, image)
        self.size = sum(w.size for w in jax.tree.leaves(params))
        self.sweeps: dict[str, Sweep] = {}
        tuning = dataclasses.replace(self.plan, steps=max(1, config.fine_tune) * an_epoch)
        self.tuner = self.sweep(config.fine_tune, lambda setting: fine_tuning(tuning, setting))
        self.accuracy = make_accuracy(self.tuner)

    def sweep(self, epochs: int, transformation) -> Sweep:
        return Sweep(*self.shared, epochs, self.config.batch_size, transformation, self.config.augment)

    def lines(self, file: Path, jobs: list[Job]) -> list[dict]:
        """The lines of these jobs, in their order; those that are not there yet are run first."""
        keys = ("kind", "method", "setting", "seed", "sparsity")
        key = lambda line: json.dumps([line[name] for name in keys], sort_keys=True)
        known = {key(line): line for line in read_lines(file)}
        missing = [job for job in jobs if key(job.line()) not in known]
        size = self.config.together or (1 if jax.default_backend() == "cpu" else 32)
        for first in range(0, len(missing), size):
            for line in self.run(missing[first : first + size]):
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
        starts = {seed: initial(self.config.model, seed)[1:] for seed in {job.seed for job in jobs}}
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
            found.append(measured(", W̃", None, "magnitude", sparse, stats))
        config, trial = self.config, job.kind == "trial"
        orders = ("magnitude", "dual", "entry") if METHODS[job.method].split_lbi else ("magnitude",)
        for sparsity, order in itertools.product(config.tune_at if trial else config.sparsity, orders):
            cut = pm.apply_masks(params, self.masks(params, opt_state, sparsity, order))
            found.append(measured("", sparsity, order, cut, stats))
        if not config.fine_tune:
            return found
        rate = np.float32(config.fine_tune_rate * dict(job.setting)["learning_rate"])
        for sparsity in sorted(config.sparsity):  # from one to the next: each cut is of what was tuned
            if trial and sparsity > max(config.tune_at):
                break
            begin, masks = time.perf_counter(), rivals.magnitude_masks(params, sparsity, config.level)
            setting = {"learning_rate": rate, "masks": masks, "seed": np.int32(job.seed)}
            ((params, stats, _),) = train(self.tuner, [setting], [(pm.apply_masks(params, masks), stats)])
            jax.block_until_ready(params)
            seconds = time.perf_counter() - begin
            found.append(measured(TUNED, sparsity, "magnitude", params, stats, config.fine_tune, seconds))
        return found

    def masks(self, params, opt_state, sparsity: float, order: str):
        if order == "magnitude":
            return rivals.magnitude_masks(params, sparsity, self.config.level)
        level = "weight" if self.config.level == "weight" else "group"
        return pm.select(params, opt_state, sparsity, order=order, scope="global", level=level)

    def measured(self, job: Job, told: dict[str, Any], params, stats) -> dict[str, Any]:
        """Accuracy, and what is zero; test accuracy of the final runs alone."""
        leaves = jax.tree.leaves(params)
        inside = [w for w in leaves if rivals.prunable(w, self.config.level)]
        zeros = lambda ws: sum(int((w == 0).sum()) for w in ws) / sum(w.size for w in ws)
        told = told | {"validation": self.accuracy(params, stats, self.dataset.validation)}
        if job.kind == "final":
            told["test"] = self.accuracy(params, stats, self.dataset.test)
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
