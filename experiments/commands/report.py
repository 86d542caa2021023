"""One self-contained HTML page about one or more runs: it opens offline, with every picture inside."""

import dataclasses
import json
from pathlib import Path

import tyro

import parsimony as pm

from ..errors import RunError
from ..growth import rounds
from ..growth.config import Grow
from ..metrics import metric_in, metric_named
from ..plots import charts, page
from ..plots import run as run_plots
from ..runs import results, snapshots, stopping
from ..runs.files import write_whole
from ..runs.load import Run, load_run
from . import compact as compact_command
from . import family as family_command
from . import importance as importance_command
from . import prune as prune_command
from .together import together


@dataclasses.dataclass(frozen=True)
class ReportOptions:
    """Writes a report about runs; with several, tables of them all and their curves in one plot come first."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of runs."""
    output: Path | None = None
    """The page. None: report.html in the first run's folder; an older report is replaced."""
    data_dir: Path | None = None
    """Where TFDS keeps its data."""

    def __post_init__(self):
        if not self.runs:
            raise ValueError("report: expected at least one run folder.")


def report(arguments: ReportOptions) -> Path:
    """Reads the runs, draws, writes the page whole, and returns its path."""
    runs = [load_run(directory, arguments.data_dir) for directory in arguments.runs]
    output = arguments.output or arguments.runs[0] / "report.html"
    if output.exists() and page.GENERATOR not in output.read_text(encoding="utf-8", errors="ignore"):
        raise RunError(f"{output} is not a report written by this command; choose another --output.")
    sections = [("All runs", together(runs))] if len(runs) > 1 else []
    sections += [(str(run.directory), _parts(run)) for run in runs]
    written = page.page("Parsimony: " + ", ".join(run.directory.name for run in runs), sections)
    write_whole(output, written)
    print(f"written: {output} ({len(written) / 1e6:.1f} MB)")
    return output


def _parts(run: Run) -> list[tuple[str, str]]:
    """The parts of a run's section, each with its title."""
    record = results.record(run)
    parts = _growth(run, record) if isinstance(run.config, Grow) else _path(run, record)
    parts += _afterwards(run)
    parts.append(("Configuration", page.verbatim(json.dumps(run.config.settings(), indent=1))))
    if record:
        where = {key: record[key] for key in results.WHERE if key in record}
        parts.append(("Where it ran", page.verbatim(json.dumps(where, indent=1))))
    return parts


def _path(run: Run, record: dict | None) -> list[tuple[str, str]]:
    """A training: its path, its curves, its filters."""
    params, stats, opt_state = run.at()
    curve = snapshots.curve(run.directory)
    one = {run.directory.name: curve}
    parts = [
        ("", _headline(run, curve, record)),
        ("Path", page.picture(
            *run_plots.path(run.directory),
            "A line is the norm of one group of Γ: in colour what is in the support at the end, darkest what came "
            "first.",
            plot=True)),
        ("Curves", page.charts(
            charts.metrics(one), charts.densities(one), charts.along_the_path(one),
            caption=f"{run.dataset.metric.name.capitalize()} on the held-out examples, share of each layer's weights "
            "in the support, and both: a point is a snapshot.")),
    ]  # fmt: skip
    filters = [name for name, layer in params.items() if "conv" in name and "kernel" in layer]
    if filters:
        name, figure = run_plots.first_filters(params, opt_state, filters[0])
        caption = f"Filters of {filters[0]} in the order of entry; the number is the step."
        parts.append(("Filters", page.picture(name, figure, caption)))
        name, figure = run_plots.exciting_images(run, params, stats, opt_state, filters[-1])
        caption = f"Images that excite filters of {filters[-1]} most. Above: the first of the order; below: the last."
        parts.append(("", page.picture(name, figure, caption)))
    parts.append(("Structure at the end", page.verbatim(str(pm.sparsity_summary(opt_state)))))
    return parts


def _growth(run: Run, record: dict | None) -> list[tuple[str, str]]:
    """A network that has grown."""
    rows = rounds.rounds(run.directory)
    parts = []
    if record:
        final = record["final"]
        accuracies = ", ".join(f"{kind} {value:.2%}" for kind, value in final["test"].items())
        parts.append(("", page.text(f"{final['parameters']:,} parameters. Test accuracy: {accuracies}.")))
    caption = "Left: the widths of the layers. Right: accuracy on the held-out images against the size."
    drawn = charts.widths(rows), charts.growth({run.directory.name: rows})
    parts.append(("Growth", page.charts(*drawn, caption=caption)))
    parts.append(("", page.verbatim(f"{rounds.table(rows)}\n\n{rows[-1]['end']}")))
    return parts


def _afterwards(run: Run) -> list[tuple[str, str]]:
    """What was made of the run since: points of stopping rules, cuts, tickets, compact networks."""
    parts = []
    of = lambda command: results.of(run.directory, command, run.dataset.metric)
    for point in of("stop"):
        parts.append((f"Stop: {point['rule']}", page.text(_stopped(point))))
    for sweep in of("prune"):
        drawn = page.charts(charts.cut(sweep), caption="The final W, cut in several orders; test examples.")
        parts.append(("Cut", drawn + page.verbatim(prune_command.table(sweep))))
    for result in of("importance"):
        parts.append(("Importance of units", page.verbatim(importance_command.table([result]))))
    for result in of("ticket"):
        parts.append(("Ticket", page.text(_ticket(result))))
    for result in of("compact"):
        parts.append(("Compact", page.verbatim(compact_command.table(result))))
    for result in of("family"):
        drawn = page.charts(charts.family(result), caption="Networks of several sizes, each inside the next.")
        parts.append(("Family", drawn + page.verbatim(family_command.table(result))))
    return parts


def _headline(run: Run, curve: list[dict], record: dict | None) -> str:
    if record:
        final = record["final"]
        text = f"Test {run.dataset.metric.of_pair(final, 'test_')}, "
    else:
        steps = run.sampler.end(run.config.epochs)
        text = f"Not finished: {run.saved[-1]:,} of {steps:,} steps at the last checkpoint; "
    text += f"density of the penalised weights {curve[-1]['total_density']:.1%}."
    chosen = stopping.sparsest_within_one_error(curve, run.config.validation)
    if chosen:
        text += (
            f" The sparsest snapshot within one standard error of the best on {run.config.validation:,} held-out "
            f"images: epoch {chosen['epoch']}, density {chosen['total_density']:.1%}, "
            f"W̃ {chosen['sparse_accuracy']:.2%}."
        )
    return page.text(text)


def _stopped(point: dict) -> str:
    line, given = point["point"], "" if point["rule"] != "sparsity" else f" of {point['sparsity']:.1%}"
    return (
        f"The rule {point['rule']}{given} ends the path at epoch {line['epoch']}, t = {line['time']:.4g}: density "
        f"{line['total_density']:.1%}, held-out {metric_in(line).of_pair(line)}; "
        "groups " + ", ".join(f"{name} {count}" for name, count in line["groups"].items()) + "."
    )


def _ticket(result: dict) -> str:
    metric = metric_named(result)
    return (
        f"Mask of epoch {result['at_epoch']}, {result['masked_sparsity']:.1%} of the weights of "
        f"{', '.join(result['kept'])} removed; rewound to {result['rewind']}, {result['epochs']} epochs of SGD. Test: "
        + ", ".join(f"{kind} {metric.text(result[kind]['test'])}" for kind in ("dense", "ticket", "random"))
        + "."
    )
