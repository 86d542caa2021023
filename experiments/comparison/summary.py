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
    """

    sparsity: float | None
    test: float
    std: float | None
    values: tuple[float, ...]
    validation: float
    zeros: float
    zeros_of_all: float
    macs: float | None


@dataclasses.dataclass(frozen=True)
class Row:
    """A method as it was chosen, and how good it was.

    Attributes:
      dense: cells of "W" and "W̃" before any cut.
      cells: one for each sparsity.
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
    """A row for each choice, of the final runs that there are."""
    return [_row(config, choice, finished) for choice in chosen]


def _row(config: Comparison, choice: Choice, finished: Sequence[JobResults]) -> Row:
    runs = [run for run in finished if (run.job.method, run.job.setting) == (choice.method, choice.setting)]
    shown = [r for run in runs for r in run.of(choice.of) if r.order in ("own", choice.order)]
    tuned = [result for result in shown if result.epochs]
    dense = {kind: [r for run in runs for r in run.of(kind) if r.sparsity is None] for kind in ("W", "W̃")}
    seeds = len({run.job.seed for run in runs})
    epochs = sum(run.epochs for run in runs) + sum(result.epochs for result in tuned)
    seconds = sum(run.seconds for run in runs) + sum(result.seconds for result in tuned)
    return Row(
        choice.name,
        choice.method,
        choice.setting,
        choice.order,
        seeds,
        {kind: _cell(None, results) for kind, results in dense.items() if results},
        tuple(_cell(share, [result for result in shown if result.sparsity == share]) for share in config.sparsity),
        epochs / seeds / config.epochs,
        seconds / seeds,
    )


def _cell(sparsity: float | None, results: list[Result]) -> Cell:
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
    cell = lambda fields: Cell(**{"sparsity": None, **fields, "values": tuple(fields["values"])})
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
