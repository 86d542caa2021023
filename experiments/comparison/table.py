"""What a comparison found: means over the seeds, a table in text and in Markdown, and its place in a page."""

import dataclasses
import statistics
from pathlib import Path
from typing import Any

import tyro

from ..errors import RunError
from ..plots.text import aligned
from ..runs.files import read_json, write_whole
from .plots import picture


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


def summary(config, chosen: dict[str, tuple], lines: list[dict]) -> list[dict[str, Any]]:
    """A row for each method (and its fine-tuning) in the order of `chosen`, {row: (method, setting, order)}."""
    rows = []
    for name, (method, setting, order) in chosen.items():
        own = [line for line in lines if line["method"] == method and line["setting"] == dict(setting)]
        part = name.removeprefix(method) if name.removeprefix(method).startswith(",") else ""
        runs = [(line, result) for line in own for result in line["results"]]
        fits = lambda result, part=part, order=order: result["row"] == part and result["order"] in ("own", order)
        cells = []
        for sparsity in config.sparsity:
            found = [result for _, result in runs if fits(result) and result["sparsity"] == sparsity]
            cells.append({"sparsity": sparsity} | _cell(found))
        dense = {
            label: _cell(found)
            for label, key in (("W", ""), ("W̃", ", W̃"))
            if (found := [result for _, result in runs if result["row"] == key and result["sparsity"] is None])
        }
        tuned = [result for _, result in runs if fits(result) and result["epochs"]]
        epochs = sum(line["epochs"] for line in own) + sum(result["epochs"] for result in tuned)
        seconds = sum(line["seconds"] for line in own) + sum(result["seconds"] for result in tuned)
        seeds = len({line["seed"] for line in own})
        rows.append(
            {"row": name, "method": method, "setting": dict(setting), "order": order, "seeds": seeds, "dense": dense}
            | {"cells": cells, "runs": epochs / seeds / config.epochs, "seconds": seconds / seeds}
        )
    return rows


def _cell(found: list[dict]) -> dict[str, Any]:
    """Mean, standard deviation and values of what the seeds gave; multiply-adds None where a network fell apart."""
    mean = lambda key: statistics.mean(result[key] for result in found)
    macs = [result["macs"] for result in found]
    values = [result["test"] for result in found]
    return {
        "test": statistics.mean(values),
        "std": statistics.stdev(values) if len(values) > 1 else None,
        "values": values,
        "validation": mean("validation"),
        "zeros": mean("zeros"),
        "zeros_of_all": mean("zeros_of_all"),
        "macs": None if None in macs else statistics.mean(macs),
    }


def table(configuration: dict[str, Any], rows: list[dict[str, Any]]) -> list[list[str]]:
    """Test accuracy (%) by row and sparsity, the cost in training runs, and seconds a seed."""
    percent = lambda cell: f"{100 * cell['test']:.2f}" + ("" if cell["std"] is None else f" ± {100 * cell['std']:.2f}")
    kinds = [kind for kind in ("W", "W̃") if any(kind in row["dense"] for row in rows)]
    head = ["", *kinds, *(f"{100 * q:g} %" for q in configuration["sparsity"]), "runs", "seconds"]
    lines = [head]
    for row in rows:
        dense = [percent(row["dense"][kind]) if kind in row["dense"] else "" for kind in kinds]
        cells = [percent(cell) for cell in row["cells"]]
        lines.append([row["row"], *dense, *cells, f"{row['runs']:.3g}", f"{row['seconds']:.0f}"])
    best = [max((row["cells"][i]["test"] for row in rows), default=0) for i in range(len(configuration["sparsity"]))]
    for row, line in zip(rows, lines[1:], strict=True):
        for i, most in enumerate(best):
            if row["cells"][i]["test"] == most:
                line[1 + len(kinds) + i] = f"**{line[1 + len(kinds) + i]}**"
    return lines


def sizes(configuration: dict[str, Any], rows: list[dict[str, Any]], whole: int) -> list[list[str]]:
    """Share of all weights that is zero, and of the multiply-adds that is left without units that are dead."""
    lines = [["", *(f"{100 * q:g} %" for q in configuration["sparsity"])]]
    for row in rows:
        share = lambda cell: "none left" if cell["macs"] is None else f"{100 * cell['macs'] / whole:.1f} %"
        lines.append([row["row"], *(f"{100 * cell['zeros_of_all']:.2f} %, {share(cell)}" for cell in row["cells"])])
    return lines


def text(configuration: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """The table for a terminal."""
    lines = [[cell.replace("**", "") for cell in line] for line in table(configuration, rows)]
    return aligned(lines)


def markdown(record: dict[str, Any]) -> str:
    """The tables of a record, with what they are of."""
    own, rows = record["configuration"], record["rows"]
    of = "filters of the convolutions" if own["level"] == "filter" else "weights of all kernels"
    seeds = {row["seeds"] for row in rows}
    where = f"{record['cpu_count']} CPU cores" if record["devices"][0].startswith("cpu") else record["devices"][0]
    said = [
        f"`python -m experiments compare {record['name']}`: {own['model']} on {own['dataset']}, {own['epochs']} epochs "
        f"a run. Test accuracy (%), mean ± standard deviation over {' or '.join(map(str, sorted(seeds)))} seeds"
    ]
    if own["sparsity"]:
        said.append(f", by the share of the {of} that is zero, counted over the whole network")
    if not own["grid"]:
        said.append(f". Every method was tuned by {own['trials']} trials on {own['validation']:,} held-out images")
    said.append(
        ". Runs: what the whole row costs one seed, in trainings of that length. Seconds: the time of these on "
        f"{where}, with other work beside them."
    )
    parts = ["".join(said), _rows(table(own, rows))]
    if own["sparsity"]:
        parts += [
            "Share of all parameters that is zero; multiply-adds left when units without inputs or readers are gone:",
            _rows(sizes(own, rows, record["macs"])),
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
    record = read_json(file) if file.exists() else {}
    if "rows" not in record:
        raise RunError(f"{directory} holds no finished comparison; run `python -m experiments compare` first.")
    return record
