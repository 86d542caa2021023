"""The tables of a comparison, in text and in Markdown, and their place in a Markdown file."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro

from ..errors import RunError
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
    best = [max(cells, key=lambda cell: cell.test).test for cells in zip(*(row.cells for row in rows), strict=True)]
    lines = [["", *kinds, *(f"{100 * share:g} %" for share in configuration["sparsity"]), "runs", "seconds"]]
    for row in rows:
        dense = [_percent(row.dense[kind]) if kind in row.dense else "" for kind in kinds]
        cells = [
            f"**{_percent(cell)}**" if cell.test == most else _percent(cell)
            for cell, most in zip(row.cells, best, strict=True)
        ]
        lines.append([row.name, *dense, *cells, f"{row.runs:.3g}", f"{row.seconds:.0f}"])
    return lines


def _percent(cell: Cell) -> str:
    return f"{100 * cell.test:.2f}" + ("" if cell.std is None else f" ± {100 * cell.std:.2f}")


def sizes(configuration: dict[str, Any], rows: Sequence[Row], whole: int) -> list[list[str]]:
    """Share of all weights that is zero, and of the multiply-adds that is left without units that are dead."""
    lines = [["", *(f"{100 * share:g} %" for share in configuration["sparsity"])]]
    for row in rows:
        left = lambda cell: "none left" if cell.macs is None else f"{100 * cell.macs / whole:.1f} %"
        lines.append([row.name, *(f"{100 * cell.zeros_of_all:.2f} %, {left(cell)}" for cell in row.cells)])
    return lines


def text(configuration: dict[str, Any], rows: Sequence[Row]) -> str:
    """The table for a terminal."""
    lines = [[cell.replace("**", "") for cell in line] for line in table(configuration, rows)]
    return aligned(lines)


def markdown(record: dict[str, Any]) -> str:
    """The tables of a record, with what they are of."""
    config, rows = record["configuration"], list(map(from_json, record["rows"]))
    of = "filters of the convolutions" if config["level"] == "filter" else "weights of all kernels"
    seeds = {row.seeds for row in rows}
    where = f"{record['cpu_count']} CPU cores" if record["devices"][0].startswith("cpu") else record["devices"][0]
    trained = f"{config['model']} on {config['dataset']}, {config['epochs']} epochs a run"
    said = [
        f"`python -m experiments compare {record['name']}`: {trained}. Test accuracy (%), mean ± standard deviation "
        f"over {' or '.join(map(str, sorted(seeds)))} seeds"
    ]
    if config["sparsity"]:
        said.append(f", by the share of the {of} that is zero, counted over the whole network")
    if not config["grid"]:
        images = f"{config['validation']:,} held-out images"
        said.append(f". Every method was tuned by {config['trials']} trials on {images}")
    said.append(
        ". Runs: what the whole row costs one seed, in trainings of that length. Seconds: the time of these on "
        f"{where}, with other work beside them."
    )
    parts = ["".join(said), _rows(table(config, rows))]
    if config["sparsity"]:
        parts += [
            "Share of all parameters that is zero; multiply-adds left when units without inputs or readers are gone:",
            _rows(sizes(config, rows, record["macs"])),
        ]
    return "\n\n".join(parts)


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
    if not file.exists() or "rows" not in read_json(file, dict, sealed=False):
        raise RunError(f"{directory} holds no finished comparison; run `python -m experiments compare` first.")
    return read_json(file, RECORD, sealed=False)  # measured results of earlier versions have no seal
