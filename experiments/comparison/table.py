"""The tables of a comparison, in text and in Markdown, and their place in a Markdown file."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro

from ..baselines import LEVELS
from ..errors import RunError, unknown
from ..plots.text import aligned
from ..runs.files import read_json, write_whole
from .plots import picture
from .summary import Cell, Row, from_json

NUMBER = (int, float)
CELL = {"test": NUMBER, "std": (*NUMBER, type(None)), "values": [NUMBER], "validation": NUMBER, "zeros": NUMBER}
CELL |= {"zeros_of_all": NUMBER, "macs": (*NUMBER, type(None))}
RECORD = {
    "name": str,
    "configuration": {
        **dict.fromkeys(("dataset", "model", "level"), str),
        **dict.fromkeys(("epochs", "trials", "validation"), int),
        **dict.fromkeys(("sparsity", "grid", "methods"), list),
    },
    "devices": [str],
    "cpu_count": int,
    "macs": int,
    "rows": [
        {"row": str, "method": str, "setting": dict, "order": str, "seeds": int, "runs": NUMBER, "seconds": NUMBER}
        | {"dense": dict, "cells": [{"sparsity": NUMBER} | CELL]}
    ],
}


@dataclasses.dataclass(frozen=True)
class ReportCompareOptions:
    """Draws accuracy against sparsity of comparisons, and writes their tables into a Markdown file."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of `python -m experiments compare`."""
    markdown: Path | None = None
    """A Markdown file such as docs/results.md, with the lines `<!-- comparison NAME -->` and `<!-- end -->`: what is
    between them is replaced by the table of the comparison of that name. None: the tables are printed."""

    def __post_init__(self):
        if not self.runs:
            raise ValueError("report compare: expected at least one folder of a comparison.")


def report_compare(arguments: ReportCompareOptions) -> None:
    """Reads the records; writes RUN/comparison.png, and the tables."""
    records = [_record(directory) for directory in arguments.runs]
    text = arguments.markdown.read_text(encoding="utf-8") if arguments.markdown else None
    for record in records:
        if text is not None:
            text = replaced(text, record["name"], markdown(record), arguments.markdown)
    for directory, record in zip(arguments.runs, records, strict=True):
        if record["configuration"]["sparsity"]:
            picture(record).savefig(directory / "comparison.png", dpi=110)
            print(f"drawn: {directory / 'comparison.png'}")
        if text is None:
            print(markdown(record))
    if text is not None and arguments.markdown:
        write_whole(arguments.markdown, text)
        print(f"written: {arguments.markdown}")


def table(configuration: dict[str, Any], rows: Sequence[Row]) -> list[list[str]]:
    """Test accuracy (%) by row and sparsity, the best of a sparsity in bold; the cost in runs, and seconds a seed."""
    kinds = [kind for kind in ("W", "W̃") if any(kind in row.dense for row in rows)]
    lines = [["", *kinds, *(f"{100 * share:g} %" for share in configuration["sparsity"]), "runs", "seconds"]]
    at = {share: [_at(row, share) for row in rows] for share in configuration["sparsity"]}
    best = {share: max((cell.test for cell in cells if cell), default=None) for share, cells in at.items()}
    for row in rows:
        dense = [_percent(row, row.dense.get(kind)) for kind in kinds]
        cells = [_percent(row, _at(row, share), best[share]) for share in at]
        lines.append([row.name, *dense, *cells, f"{row.runs:.3g}", f"{row.seconds:.0f}"])
    return lines


def _at(row: Row, sparsity: float) -> Cell | None:
    return next((cell for cell in row.cells if cell.sparsity == sparsity), None)


def _percent(row: Row, cell: Cell | None, best: float | None = None) -> str:
    """With the number of seeds where it is not that of the row; empty where nothing is measured."""
    if cell is None:
        return ""
    shown = f"{100 * cell.test:.2f}" + ("" if cell.std is None else f" ± {100 * cell.std:.2f}")
    shown = f"**{shown}**" if cell.test == best else shown
    return shown if len(cell.values) == row.seeds else f"{shown} (of {len(cell.values)})"


def sizes(configuration: dict[str, Any], rows: Sequence[Row], whole: int) -> list[list[str]]:
    """Share of all weights that is zero, and of the multiply-adds that is left without units that are dead."""
    lines = [["", *(f"{100 * share:g} %" for share in configuration["sparsity"])]]
    left = lambda cell: "none left" if cell.macs is None else f"{100 * cell.macs / whole:.1f} %"
    shown = lambda cell: f"{100 * cell.zeros_of_all:.2f} %, {left(cell)}" if cell else ""
    for row in rows:
        lines.append([row.name, *(shown(_at(row, share)) for share in configuration["sparsity"])])
    return lines


def text(configuration: dict[str, Any], rows: Sequence[Row]) -> str:
    """The table for a terminal."""
    lines = [[cell.replace("**", "") for cell in line] for line in table(configuration, rows)]
    return aligned(lines)


def markdown(record: dict[str, Any]) -> str:
    """The tables of a record, with what they are of."""
    config, rows = record["configuration"], list(map(from_json, record["rows"]))
    of = "filters of the convolutions" if config["level"] == "group" else "weights of all kernels"
    seeds = " or ".join(map(str, sorted({row.seeds for row in rows})))
    trained = f"{config['model']} on {config['dataset']}, {config['epochs']} epochs a run"
    if size := config.get("image_size"):
        trained += f", images averaged down to {size}×{size}"
    said = [
        f"`python -m experiments compare {record['name']}`: {trained}. Test accuracy (%), "
        + ("of one seed" if seeds == "1" else f"mean ± standard deviation over {seeds} seeds")
    ]
    if config["sparsity"]:
        said.append(f", by the share of the {of} that is zero, counted over the whole network")
    if not config["grid"]:
        said.append(f". {_tuned(record)}")
    said.append(
        ". Runs: what the whole row costs one seed, in trainings of that length. Seconds: the time of these on "
        f"{_machines(record, rows)}, with other work beside them."
    )
    if record.get("missing"):
        said.append(f" {record['missing']} runs are still missing.")
    parts = ["".join(said), _rows(table(config, rows))]
    if config["sparsity"]:
        parts += [
            "Share of all parameters that is zero; multiply-adds left when units without inputs or readers are gone:",
            _rows(sizes(config, rows, record["macs"])),
        ]
    return "\n\n".join(parts)


def _tuned(record: dict[str, Any]) -> str:
    """By how many trials which methods were tuned; before there was a choice, all."""
    config = record["configuration"]
    tuned = record.get("tuned", config["methods"])
    trials = f"tuned by {config['trials']} trials on {config['validation']:,} held-out images"
    if set(tuned) == set(config["methods"]):
        return f"Every method was {trials}"
    rest = "the numbers of all others were fixed beforehand"
    return f"{', '.join(tuned)}: {trials}; {rest}" if tuned else "All numbers were fixed beforehand, none was tuned"


def _machines(record: dict[str, Any], rows: Sequence[Row]) -> str:
    """Where the cells were measured; older records name one machine for all."""
    named = sorted({name for row in rows for cell in (*row.cells, *row.dense.values()) for name in cell.machines})
    if named:
        return " or ".join(named)
    return f"{record['cpu_count']} CPU cores" if record["devices"][0].startswith("cpu") else record["devices"][0]


def _rows(lines: list[list[str]]) -> str:
    rule = ["---"] * len(lines[0])
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))


def replaced(text: str, name: str, part: str, file: Path | None) -> str:
    """The text with what stands between the markers of a comparison replaced."""
    begin, end = f"<!-- comparison {name} -->", "<!-- end -->"
    if text.count(begin) != 1 or end not in text[text.find(begin) :]:
        raise RunError(f"{file} has no place for {name}: expected the line {begin!r} once, and {end!r} after it.")
    before, after = text.split(begin)
    return f"{before}{begin}\n{part}\n{end}{after[after.index(end) + len(end) :]}"


def _record(directory: Path) -> dict[str, Any]:
    file = directory / "record.json"
    if not file.exists() or not read_json(file, dict, sealed=False).get("rows"):
        raise RunError(f"{directory} holds no finished row of a comparison; run `python -m experiments compare` first.")
    record = read_json(file, RECORD, sealed=False)  # measured results of earlier versions have no seal
    if (level := record["configuration"]["level"]) not in LEVELS:
        raise RunError(f"{file}: configuration: {unknown('level', level, LEVELS)}")
    return record
