"""Comparing methods: trials on the validation images, then the chosen settings with other seeds, and the record.

runs/NAME/config.json     what was asked for
runs/NAME/results.jsonl   a line a run, only ever added to: its numbers, and how good it was at each sparsity
runs/NAME/record.json     what was chosen, and means and deviations over the seeds; made anew from the lines

Started again, it makes only the runs that no line tells of: after a kill, with more seeds, methods or sparsities, and
after the time of a start was over (`minutes`), on another machine too, to which the folder was taken. Each line says
where its run was made.
"""

import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import parsimony as pm

from ..comparison.config import GROWING, Comparison
from ..comparison.results import Job, JobResults
from ..comparison.runs import finish
from ..comparison.search import Choice, choose, grid, searched, settled, sparsities_run
from ..comparison.setup import Setup, make_setup
from ..comparison.summary import Row, summary, to_json
from ..comparison.table import text
from ..progress import announce
from ..runs.digest import environment
from ..runs.files import write_json
from ..runs.folder import open_folder

Fits = Callable[[float], bool]
"""Whether a run of so many seconds still ends in the time of this start."""


def compare(name: str, config: Comparison, clock: Callable[[], float] = time.monotonic) -> Path:
    """Makes what is missing of a comparison, prints its table and returns its folder."""
    end = None if config.minutes is None else clock() + 60 * config.minutes
    fits = lambda seconds: end is None or clock() + seconds < end
    announce(f"reading {config.dataset} and building {config.model}")
    setup, where = make_setup(config), environment()
    directory = config.run_dir or Path("runs") / name
    with open_folder(directory, config.settings(), "comparison", growing=GROWING):
        file = directory / "results.jsonl"
        trials, chosen, missing = tune(setup, file, fits)
        final, rows = [], []
        # All seeds at once where they train as one; else one after the other, so that what is there can be compared.
        for seeds in [range(config.seeds)] if setup.together > 1 else [[seed] for seed in range(config.seeds)]:
            for method, setting in dict.fromkeys((choice.method, choice.setting) for choice in chosen):
                wanted = itertools.product(seeds, sparsities_run(config, method, config.sparsity))
                jobs = [Job("final", method, setting, *job) for job in wanted]
                done = finish(setup, file, jobs, fits)
                missing += len(jobs) - len(done)
                final += done
            rows = summary(config, chosen, final)
            found = record(name, setup, where, trials, final, rows) | {"missing": missing}
            write_json(directory / "record.json", found)
    print(f"\n{text(config.settings(), rows)}\n" if rows else "")
    if missing:
        print(f"{missing} runs did not fit into {config.minutes:g} minutes: start it again, here or elsewhere.")
    print(f"record: {directory / 'record.json'}")
    print(f"picture and Markdown table: python -m experiments report compare {directory}")
    return directory


def tune(setup: Setup, file: Path, fits: Fits = lambda _: True) -> tuple[list[JobResults], list[Choice], int]:
    """(trials, rows that come of them, runs that are missing); of a grid and of what is fixed there are no trials.

    A method has its rows when all of its trials are done.
    """
    config = setup.config
    if config.grid:
        return [], [choice for method in config.methods for choice in grid(config, method)], 0
    trials, chosen, missing = [], [], 0
    for method in config.methods:
        if rows := settled(config, method):
            chosen += rows
            continue
        jobs = [
            Job("trial", method, setting, config.tune_seed, sparsity)
            for setting in searched(config, method)
            for sparsity in sparsities_run(config, method, config.judged_at)
        ]
        of_method = finish(setup, file, jobs, fits)
        trials += of_method
        if left := len(jobs) - len(of_method):
            missing += left + config.seeds * len(sparsities_run(config, method, config.sparsity))
        else:
            chosen += choose(config, of_method)
    return trials, chosen, missing


def record(
    name: str, setup: Setup, where: dict[str, Any], trials: Sequence[JobResults], final: Sequence[JobResults],
    rows: Sequence[Row],
) -> dict[str, Any]:  # fmt: skip
    """All that a table needs: means over the seeds so far."""
    seconds = lambda runs: sum(run.seconds + sum(result.seconds for result in run.results) for run in runs)
    return {"name": name, "configuration": setup.config.settings(), **where} | {
        "parameters": setup.parameters,
        "macs": pm.structure.count_at(setup.units, {}, setup.variables).macs,
        "trained": {"trials": len(trials), "final": len(final)},
        "tuned": sorted({run.job.method for run in trials}),
        "training_seconds": {"trials": seconds(trials), "final": seconds(final)},
        "rows": list(map(to_json, rows)),
    }
