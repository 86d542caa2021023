"""What several runs say together: tables, curves in one plot, and means over runs that differ in the seed alone."""

import functools
import json
from collections.abc import Sequence
from typing import Any

from ..growth import rounds
from ..growth.config import Grow
from ..metrics import metric_named
from ..plots import charts, page
from ..plots.text import spread
from ..runs import results, snapshots
from ..runs.load import Run


def together(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """The parts of the section about all runs, each with its title."""
    parts = [("Settings and results", _table(runs) + page.text(_note(runs)))]
    trained = {_name(run, runs): run for run in runs if not isinstance(run.config, Grow)}
    for metric in dict.fromkeys(run.dataset.metric for run in trained.values()):
        alike = {name: run.directory for name, run in trained.items() if run.dataset.metric is metric}
        curves = {name: curve for name, directory in alike.items() if (curve := snapshots.curve(directory))}
        if len(curves) > 1:
            caption = "Every run in one plot. Left: W (full line) and W̃ (dashed) on the held-out examples."
            drawn = charts.metrics(curves), charts.densities(curves), charts.along_the_path(curves)
            parts.append(("Curves", page.charts(*drawn, caption=caption)))
    grown = {_name(run, runs): rounds.rounds(run.directory) for run in runs if isinstance(run.config, Grow)}
    if len(grown) > 1:
        parts.append(("Growth", page.charts(charts.growth(grown), caption="A point is a round.")))
    return parts + _mean_sweeps(runs)


def _name(run: Run, runs: Sequence[Run]) -> str:
    """The name of a run's folder, or its whole path where two have the same name."""
    same = sum(other.directory.name == run.directory.name for other in runs)
    return run.directory.name if same == 1 else str(run.directory)


def _settings(run: Run) -> dict[str, Any]:
    """What must be equal for two runs to be seeds of one experiment."""
    return {name: value for name, value in run.config.settings().items() if name != "seed"}


def _identity(run: Run) -> str:
    return json.dumps([type(run.config).__name__, _settings(run)], sort_keys=True)


def seeds(runs: Sequence[Run]) -> list[list[Run]]:
    """The runs in groups that differ in the seed alone; of one seed there is one run in a group."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        own = groups.setdefault(_identity(run), [])
        if run.config.seed not in [other.config.seed for other in own]:
            own.append(run)
    return list(groups.values())


def _differences(runs: Sequence[Run]) -> list[str]:
    """The settings, but for the seed, that are not the same in all runs."""
    every = [_settings(run) for run in runs]
    names = dict.fromkeys(name for settings in every for name in settings)
    return [name for name in names if len({json.dumps(settings.get(name, "—")) for settings in every}) > 1]


def _note(runs: Sequence[Run]) -> str:
    if differ := _differences(runs):
        return f"Means are over runs that differ in the seed alone. These differ in {', '.join(differ)} too."
    return "Means are over runs that differ in the seed alone, each seed once."


def _table(runs: Sequence[Run]) -> str:
    differ = _differences(runs)
    rows = [["run", "seed", *differ, "W, test", "W̃, test", "density", "seconds"]]
    for group in seeds(runs):
        finals = []
        for run in [run for run in runs if _identity(run) == _identity(group[0])]:
            values = [str(_settings(run).get(name, "—")) for name in differ]
            cells, numbers = _final(run)
            finals += [numbers] if numbers and any(run is own for own in group) else []
            rows.append([_name(run, runs), str(run.config.seed), *values, *cells])
        if len(finals) > 1:
            scale = group[0].dataset.metric.scale if not isinstance(group[0].config, Grow) else 100
            scales = scale, scale, 100
            means = [spread(column, by) for column, by in zip(zip(*finals, strict=True), scales, strict=False)]
            rows.append([f"mean ± std of {len(finals)} seeds", "", *[""] * len(differ), *means, ""])
    return page.table(rows)


def _final(run: Run) -> tuple[list[str], tuple[float, ...] | None]:
    """The cells of a run in the table, and the numbers that have a mean."""
    record = results.record(run)
    if record is None:
        return ["not finished", "", "", ""], None
    final = record["final"]
    if isinstance(run.config, Grow):
        test = final["test"]
        return [f"{test['grown']:.2%}", f"{test['fine-tuned']:.2%}", "", f"{final['seconds']:.0f}"], None
    metric, density = run.dataset.metric, record["curve"][-1]["total_density"]
    pair = final[f"test_{metric.name}"], final[f"test_sparse_{metric.name}"]
    return [*map(metric.text, pair), f"{density:.2%}", f"{final['seconds']:.0f}"], (*pair, density)


def _mean_sweeps(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Cuts that were made alike of seeds of one experiment: mean ± standard deviation on the test examples."""
    parts = []
    for group in seeds(runs):
        alike: dict[str, list[dict]] = {}
        for run in group:
            own = set()
            for sweep in results.of(run.directory, "prune", run.dataset.metric):
                keys = ("layers", "scope", "level", "sparsity", "orders", "fine_tune", "learning_rate", "checkpoint")
                key = json.dumps([sweep[key] for key in keys])
                if key not in own:  # of one run once
                    alike.setdefault(key, []).append(sweep)
                own.add(key)
        parts += [_mean_sweep(sweeps) for sweeps in alike.values() if len(sweeps) > 1]
    return parts


def _mean_sweep(sweeps: list[dict]) -> tuple[str, str]:
    one, metric = sweeps[0], metric_named(sweeps[0])
    spread_of = functools.partial(spread, scale=metric.scale)
    rows = [[f"test {metric.label}", *(f"{share:.1%}" for share in one["sparsity"])]]
    for order, epochs in dict.fromkeys((row["order"], row["fine_tune"]) for row in one["rows"]):
        cells = [
            [row["test"] for row in sweep["rows"] if (row["order"], row["fine_tune"]) == (order, epochs)]
            for sweep in sweeps
        ]
        rows.append([f"{order}, fine-tuned" if epochs else order, *map(spread_of, zip(*cells, strict=True))])
    what = ", ".join(one["layers"]) or "all layers"
    return f"Cut of {len(sweeps)} runs: {what}, {one['level']}s, by {one['scope']}", page.table(rows)
