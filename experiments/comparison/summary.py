"""What a comparison found: for each row means over the seeds, as record.json keeps them."""

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

from .config import Comparison
from .results import JobResults, Result, Setting
from .search import Choice


@dataclasses.dataclass(frozen=True)
class Cell:
    """Means over the seeds, at a sparsity (None: of a dense network).

    Attributes:
      test, std, values: mean, standard deviation (None: of one seed) and each of the test accuracies.
      validation, zeros, zeros_of_all, macs: means, as in `Result`; macs None where a network is cut through.
      machines: on which the runs were made.
    """

    sparsity: float | None
    test: float
    std: float | None
    values: tuple[float, ...]
    validation: float
    zeros: float
    zeros_of_all: float
    macs: float | None
    machines: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Row:
    """A method as it was chosen, and how good it was.

    Attributes:
      dense: cells of "W" and "W̃" before any cut.
      cells: one for each sparsity of which there is a run.
      runs: training that a seed costs, in trainings of the length of one run.
      seconds: of a seed.
    """

    name: str
    method: str
    setting: Setting
    order: str
    seeds: int
    dense: dict[str, Cell]
    cells: tuple[Cell, ...]
    runs: float
    seconds: float


def summary(config: Comparison, chosen: Sequence[Choice], finished: Sequence[JobResults]) -> list[Row]:
    """A row for each choice of which there are final runs."""
    rows = [_row(config, choice, finished) for choice in chosen]
    return [row for row in rows if row.seeds]


def _row(config: Comparison, choice: Choice, finished: Sequence[JobResults]) -> Row:
    runs = [run for run in finished if (run.job.method, run.job.setting) == (choice.method, choice.setting)]
    shown = lambda run: [r for r in run.of(choice.of) if r.order in ("own", choice.order)]
    alike = {run.job.sparsity: [other for other in runs if other.job.sparsity == run.job.sparsity] for run in runs}
    # Of each kind of run the mean: where some are missing the sum would be that of fewer.
    cost = lambda of: sum(statistics.mean(map(of, same)) for same in alike.values())
    epochs = cost(lambda run: run.epochs + sum(result.epochs for result in shown(run)))
    cells = [
        _cell(share, [(run, r) for run in runs for r in shown(run) if r.sparsity == share]) for share in config.sparsity
    ]
    dense = {
        kind: _cell(None, [(run, r) for run in runs for r in run.of(kind) if r.sparsity is None]) for kind in ("W", "W̃")
    }
    return Row(
        choice.name,
        choice.method,
        choice.setting,
        choice.order,
        len({run.job.seed for run in runs}),
        {kind: cell for kind, cell in dense.items() if cell},
        tuple(cell for cell in cells if cell),
        epochs / config.epochs,
        cost(lambda run: run.seconds + sum(result.seconds for result in shown(run))),
    )


def _cell(sparsity: float | None, measured: list[tuple[JobResults, Result]]) -> Cell | None:
    """None where nothing is measured."""
    if not measured:
        return None
    results = [result for _, result in measured]
    tests = tuple(result.test for result in results if result.test is not None)
    macs = [result.macs for result in results if result.macs is not None]
    return Cell(
        sparsity,
        statistics.mean(tests),
        statistics.stdev(tests) if len(tests) > 1 else None,
        tests,
        statistics.mean(result.validation for result in results),
        statistics.mean(result.zeros for result in results),
        statistics.mean(result.zeros_of_all for result in results),
        statistics.mean(macs) if len(macs) == len(results) else None,
        tuple(sorted({run.machine for run, _ in measured if run.machine})),
    )


def to_json(row: Row) -> dict[str, Any]:
    """As record.json has it."""
    cell = dataclasses.asdict
    without = lambda dense: {name: value for name, value in cell(dense).items() if name != "sparsity"}
    return {
        "row": row.name,
        "method": row.method,
        "setting": dict(row.setting),
        "order": row.order,
        "seeds": row.seeds,
        "dense": {kind: without(dense) for kind, dense in row.dense.items()},
        "cells": [cell(at) for at in row.cells],
        "runs": row.runs,
        "seconds": row.seconds,
    }


def from_json(row: dict[str, Any]) -> Row:
    """What `to_json` made."""
    tuples = lambda fields: {name: tuple(fields.get(name, ())) for name in ("values", "machines")}
    cell = lambda fields: Cell(**{"sparsity": None, **fields, **tuples(fields)})
    return Row(
        row["row"],
        row["method"],
        tuple(row["setting"].items()),
        row["order"],
        row["seeds"],
        {kind: cell(fields) for kind, fields in row["dense"].items()},
        tuple(map(cell, row["cells"])),
        row["runs"],
        row["seconds"],
    )
