"""One self-contained HTML page about one or more runs: it opens offline, with every picture inside."""

import base64
import dataclasses
import html
import io
import json
import statistics
from pathlib import Path

import tyro

import parsimony as pm

from ..errors import RunError
from ..growth import rounds
from ..growth.config import Grow
from ..plots import run as run_plots
from ..runs import snapshots, stopping
from ..runs.files import read_json, write_whole
from ..runs.load import Run, load_run
from .prune import table

GENERATOR = "<meta name='generator' content='parsimony'>"  # marks a page as written here
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.6rem; } h2 { margin-top: 2.4rem; border-bottom: 1px solid #ddd; } figure { margin: 1rem 0; }
img { max-width: 100%; } figcaption { color: #555; font-size: 0.9rem; } table { border-collapse: collapse; }
td, th { padding: 0.15rem 0.8rem 0.15rem 0; text-align: right; border-bottom: 1px solid #eee; }
td:first-child, th:first-child { text-align: left; } pre { background: #f6f6f6; padding: 0.8rem; overflow-x: auto; }
"""

NUMBER = (int, float)
TRAINED = {
    "final": {"test_accuracy": NUMBER, "test_sparse_accuracy": NUMBER, "seconds": NUMBER},
    "curve": [{"total_density": NUMBER}],
    **dict.fromkeys(("commit", "versions", "python", "devices", "cpu_count", "digest"), object),
}
GROWN = {"final": {"parameters": int, "test": dict}}


@dataclasses.dataclass(frozen=True)
class ReportOptions:
    """Writes a report about runs; with several, a table of them all comes first."""

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
    if output.exists() and GENERATOR not in output.read_text(encoding="utf-8", errors="ignore"):
        raise RunError(f"{output} is not a report written by this command; choose another --output.")
    parts = [_table_of_runs(runs), _mean_sweeps(runs)] if len(runs) > 1 else []
    parts += [_section(run) for run in runs]
    title = html.escape(", ".join(run.directory.name for run in runs))
    page = (
        "<!doctype html>\n<html lang='en'><meta charset='utf-8'>"
        f"{GENERATOR}<title>Parsimony: {title}</title><style>{STYLE}</style>\n<h1>Parsimony: {title}</h1>\n"
        + "\n".join(parts)
        + "</html>\n"
    )
    write_whole(output, page)
    print(f"written: {output} ({len(page) / 1e6:.1f} MB)")
    return output


def _section(run: Run) -> str:
    if isinstance(run.config, Grow):
        return _growth(run)
    params, stats, opt_state = run.at()
    curve = snapshots.curve(run.directory)
    record = _record(run)
    parts = [f"<h2>{html.escape(str(run.directory))}</h2>", _headline(run, curve, record)]
    for name, figure, caption in [
        (*run_plots.path(run.directory),
         "The path. A line is the norm of one group of Γ: in colour what is in the support at the end, "
         "darkest what came first."),
        (*run_plots.accuracy_and_density(curve),
         "Left: accuracy on the held-out images. Right: share of each layer's weights in the support."),
        (*run_plots.accuracy_against_sparsity(curve, sweeps := _results(run.directory, "prune")),
         "Accuracy against sparsity. Snapshots of W̃ along the path (held-out images)"
         + (", and the final W cut in several orders (test images)." if sweeps else ".")),
    ]:  # fmt: skip
        parts.append(_figure(name, figure, caption))
    filters = [name for name in params if "conv" in name]
    if filters:
        name, figure = run_plots.first_filters(params, opt_state, filters[0])
        parts.append(_figure(name, figure, f"Filters of {filters[0]} in the order of entry; the number is the step."))
        name, figure = run_plots.exciting_images(run, params, stats, opt_state, filters[-1])
        caption = f"Images that excite filters of {filters[-1]} most. Above: the first of the order; below: the last."
        parts.append(_figure(name, figure, caption))
    parts.append(f"<h3>Structure at the end</h3><pre>{html.escape(str(pm.sparsity_summary(opt_state)))}</pre>")
    for sweep in sweeps:
        parts.append(f"<h3>Cut</h3><pre>{html.escape(table(sweep))}</pre>")
    for result in _results(run.directory, "ticket"):
        parts.append(_ticket(result))
    settings = json.dumps(run.config.settings(), indent=1)
    parts.append(f"<h3>Configuration</h3><pre>{html.escape(settings)}</pre>")
    if record:
        where = {key: record[key] for key in ("commit", "versions", "python", "devices", "cpu_count", "digest")}
        parts.append(f"<h3>Where it ran</h3><pre>{html.escape(json.dumps(where, indent=1))}</pre>")
    return "\n".join(parts)


def _growth(run: Run) -> str:
    """A network that has grown."""
    rows, record = rounds.rounds(run.directory), _record(run)
    parts = [f"<h2>{html.escape(str(run.directory))}</h2>"]
    if record:
        final = record["final"]
        accuracies = ", ".join(f"{kind} {value:.2%}" for kind, value in final["test"].items())
        parts.append(f"<p>{final['parameters']:,} parameters. Test accuracy: {html.escape(accuracies)}.</p>")
    caption = "Left: the widths of the layers. Right: accuracy on the held-out images against the size."
    parts.append(_figure(*run_plots.widths(rows), caption))
    parts.append(f"<pre>{html.escape(rounds.table(rows))}\n\n{html.escape(rows[-1]['end'])}</pre>")
    parts.append(f"<h3>Configuration</h3><pre>{html.escape(json.dumps(run.config.settings(), indent=1))}</pre>")
    return "\n".join(parts)


def _headline(run: Run, curve: list[dict], record: dict | None) -> str:
    if record:
        final = record["final"]
        text = f"Test accuracy: W {final['test_accuracy']:.2%}, W̃ {final['test_sparse_accuracy']:.2%}, "
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
    return f"<p>{html.escape(text)}</p>"


def _table_of_runs(runs: list[Run]) -> str:
    rows, finals = [["run", "seed", "W, test", "W̃, test", "density", "seconds"]], []
    for run in runs:
        record = _record(run)
        row = [run.directory.name, str(run.config.seed)]
        if record:
            final, last = record["final"], record["curve"][-1]
            finals.append((final["test_accuracy"], final["test_sparse_accuracy"], last["total_density"]))
            row += [f"{finals[-1][0]:.2%}", f"{finals[-1][1]:.2%}", f"{finals[-1][2]:.1%}", f"{final['seconds']:.0f}"]
        else:
            row += ["not finished", "", "", ""]
        rows.append(row)
    if len(finals) > 1:
        rows.append(["mean ± std", "", *map(_spread, zip(*finals, strict=True)), ""])
    return _table(rows)


def _mean_sweeps(runs: list[Run]) -> str:
    """Cuts that were made alike of several runs: mean ± standard deviation of the test accuracy."""
    alike: dict[str, list[dict]] = {}
    for run in runs:
        for sweep in _results(run.directory, "prune"):
            keys = ("layers", "scope", "level", "sparsity", "orders", "fine_tune", "learning_rate")
            alike.setdefault(json.dumps([sweep[key] for key in keys]), []).append(sweep)
    parts = []
    for sweeps in alike.values():
        one = sweeps[0]
        if len(sweeps) < 2:
            continue
        rows = [["test, %", *(f"{share:.1%}" for share in one["sparsity"])]]
        for order, epochs in dict.fromkeys((row["order"], row["fine_tune"]) for row in one["rows"]):
            cells = [
                [row["test"] for row in sweep["rows"] if (row["order"], row["fine_tune"]) == (order, epochs)]
                for sweep in sweeps
            ]
            rows.append([f"{order}, fine-tuned" if epochs else order, *map(_spread, zip(*cells, strict=True))])
        what = ", ".join(one["layers"]) or "all layers"
        title = f"Cut of {len(sweeps)} runs: {what}, {one['level']}s, by {one['scope']}"
        parts.append(f"<h3>{html.escape(title)}</h3>{_table(rows)}")
    return "\n".join(parts)


def _spread(values) -> str:
    """Mean ± standard deviation, in per cent."""
    values = [100 * value for value in values]
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"


def _table(rows: list[list[str]]) -> str:
    head, *body = rows
    line = lambda tag, cells: "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"
    return "<table>" + line("th", head) + "".join(line("td", row) for row in body) + "</table>"


def _ticket(result: dict) -> str:
    text = (
        f"Mask of epoch {result['at_epoch']}, {result['masked_sparsity']:.1%} of the weights of "
        f"{', '.join(result['kept'])} removed; rewound to {result['rewind']}, {result['epochs']} epochs of SGD. Test: "
        + ", ".join(f"{kind} {result[kind]['test']:.2%}" for kind in ("dense", "ticket", "random"))
    )
    return f"<h3>Ticket</h3><p>{html.escape(text)}.</p>"


def _figure(name: str, figure, caption: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    data = base64.b64encode(buffer.getvalue()).decode()
    alt = html.escape(name.removesuffix(".png"))
    image = f"<img alt='{alt}' src='data:image/png;base64,{data}'>"
    return f"<figure>{image}<figcaption>{html.escape(caption)}</figcaption></figure>"


def _results(directory: Path, stem: str) -> list[dict]:
    return [read_json(path) for path in sorted(directory.glob(f"{stem}*.json"))]


def _record(run: Run) -> dict | None:
    """What a finished run has recorded."""
    file = run.directory / "record.json"
    return read_json(file, GROWN if isinstance(run.config, Grow) else TRAINED) if file.exists() else None
