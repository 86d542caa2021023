"""Comparing methods: trials on the validation images, then the chosen settings with other seeds, and the record.

runs/NAME/config.json     what was asked for
runs/NAME/results.jsonl   a line a run, only ever added to: its numbers, and how good it was at each sparsity
runs/NAME/record.json     what was chosen, and means and deviations over the seeds; made anew from the lines

Started again, it makes only the runs that no line tells of: after a kill, and with more seeds or methods.
"""

import itertools
import math
from pathlib import Path

import numpy as np
from scipy.stats import qmc

from ..comparison.config import GROWING, Comparison
from ..comparison.methods import METHODS
from ..comparison.runs import SPARSE, Bench, Job
from ..comparison.table import summary, text
from ..runs.digest import environment
from ..runs.files import write_json
from ..runs.folder import open_folder


def compare(name: str, config: Comparison) -> Path:
    """Makes what is missing of a comparison, prints its table and returns its folder."""
    bench, where = Bench(config), environment()
    directory = config.run_dir or Path("runs") / name
    with open_folder(directory, config.settings(), "comparison", growing=GROWING):
        file, trials, chosen = directory / "results.jsonl", [], {}
        for method in config.methods:
            if config.grid:
                chosen |= {row: (method, setting, "magnitude") for row, setting in grid(config, method).items()}
                continue
            jobs = [
                Job("trial", method, setting, config.tune_seed, sparsity)
                for setting in searched(config, method)
                for sparsity in each_run(config, method, config.judged_at)
            ]
            trials += (lines := bench.lines(file, jobs))
            chosen |= {row: (method, *best) for row, best in choose(config, lines).items()}
        final = []
        # All seeds at once where they train as one; else one after the other, so that what is there can be compared.
        for seeds in [range(config.seeds)] if bench.together > 1 else [[seed] for seed in range(config.seeds)]:
            for method, setting in dict.fromkeys((method, setting) for method, setting, _ in chosen.values()):
                own = itertools.product(seeds, each_run(config, method, config.sparsity))
                final += bench.lines(file, [Job("final", method, setting, seed, sparsity) for seed, sparsity in own])
            rows = summary(config, chosen, final)
            write_json(directory / "record.json", record(name, bench, where, trials, final, rows))
    print(f"\n{text(config.settings(), rows)}\n\nrecord: {directory / 'record.json'}")
    print(f"picture and Markdown table: python -m experiments report compare {directory}")
    return directory


def record(name: str, bench: Bench, where: dict, trials: list[dict], final: list[dict], rows: list[dict]) -> dict:
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


def each_run(config: Comparison, method: str, sparsities: tuple[float, ...]) -> tuple[float | None, ...]:
    """The sparsities that take a run each."""
    return (None,) if METHODS[method].cuts else sparsities


def searched(config: Comparison, method: str) -> list[tuple[tuple[str, float], ...]]:
    """The settings of the trials: points of a Halton sequence, spread over the logarithms of the search space."""
    fixed = dict(config.fixed)
    ranges = {**METHODS[method].search, **config.ranges_of(method)}
    search = {name: span for name, span in ranges.items() if name not in fixed}
    given = {name: fixed.get(name, value) for name, value in METHODS[method].fixed.items() if name not in search}
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
    """{row: (setting, order)} of the best mean validation accuracy at the sparsities of `judged_at`."""
    scores: dict[tuple, list[float]] = {}
    for line in lines:
        for result in line["results"]:
            if result["row"] != SPARSE and result["sparsity"] in (config.judged_at or (None,)):
                key = line["method"] + result["row"], tuple(sorted(line["setting"].items())), result["order"]
                scores.setdefault(key, []).append(result["validation"])
    best: dict[str, tuple] = {}
    for (row, setting, order), values in scores.items():
        score = math.fsum(values) / len(values)
        if row not in best or score > best[row][0]:
            best[row] = score, setting, order
    return {row: own[1:] for row, own in best.items()}
