"""The charts of runs, from their curves: each of one run, or of several laid over one another."""

from typing import Any

from ..metrics import ACCURACY, Metric, metric_in, metric_named
from .run import FAMILY_SIZES, family_kind, short
from .svg import Line, chart

Curves = dict[str, list[dict[str, Any]]]
"""{the run's name: the lines of its curve}."""


def metrics(curves: Curves) -> str:
    """The metric of W and of W̃ on the held-out examples over the epochs; that of all curves is one."""
    lines, metric = [], _metric(curves)
    for number, (name, curve) in enumerate(curves.items()):
        for style, (key, kind) in enumerate([("", "dense W"), ("sparse_", "sparse W̃")]):
            label = kind if len(curves) == 1 else f"{name}, {kind}"
            points = [(_epoch(curve, line), metric.scale * line[f"{key}{metric.name}"]) for line in curve]
            colour = style if len(curves) == 1 else number
            lines.append(Line(label, points, _tips(points, curve, metric), colour, 0 if len(curves) == 1 else style))
    values = [y for line in lines for _, y in line.points]
    least = max(0.0, max(values, default=100.0) - 12) if metric is ACCURACY else min(values, default=0.0)
    return chart("held-out examples", "epoch", metric.label, lines, y_least=least)


def densities(curves: Curves) -> str:
    """Share of the weights in the support over the epochs: of one run by layer, of several of all together."""
    lines = []
    for name, curve in curves.items():
        layers = list(curve[-1]["density"]) if len(curves) == 1 else [None]
        for layer in layers:
            of = lambda line, layer=layer: line["total_density"] if layer is None else line["density"][layer]
            points = [(_epoch(curve, line), 100 * of(line)) for line in curve]
            tips = [f"epoch {line['epoch']}, t = {line['time']:.4g}: {100 * of(line):.2f} %" for line in curve]
            lines.append(Line(name if layer is None else short(layer), points, tips))
    return chart("support of Γ", "epoch", "weights in supp Γ (%)", lines)


def along_the_path(curves: Curves) -> str:
    """The metric of W̃ on the held-out examples against its density, a point a snapshot."""
    lines, metric = [], _metric(curves)
    for name, curve in curves.items():
        inside = [line for line in curve if line["total_density"] > 0]
        value = f"sparse_{metric.name}"
        points = [(100 * line["total_density"], metric.scale * line[value]) for line in inside]
        tips = [
            f"epoch {line['epoch']}, {x:.3g} % of the weights, {y:.2f} {metric.unit}".strip()
            for line, (x, y) in zip(inside, points, strict=True)
        ]
        lines.append(Line("W̃ at a snapshot" if len(curves) == 1 else name, points, tips))
    return chart("W̃ along the path", "weights in supp Γ (%)", metric.label, lines, log_x=True)


def cut(sweep: dict[str, Any]) -> str:
    """The metric on the test examples against the share of weights removed, a line an order."""
    lines, metric = [], metric_named(sweep)
    for number, order in enumerate(dict.fromkeys(row["order"] for row in sweep["rows"])):
        for style, epochs in enumerate(sorted({0, sweep["fine_tune"]})):
            rows = [row for row in sweep["rows"] if (row["order"], row["fine_tune"]) == (order, epochs)]
            points = [(100 * row["sparsity"], metric.scale * row["test"]) for row in rows]
            tips = [f"{x:.4g} % removed, {y:.2f} {metric.unit}".strip() for x, y in points]
            lines.append(Line(f"{order}, fine-tuned" if epochs else order, points, tips, number, style))
    what = ", ".join(sweep["layers"]) or "all layers"
    return chart(f"W cut: {what}, by {sweep['scope']}", "weights removed (%)", f"test {metric.label}", lines)


def family(result: dict[str, Any]) -> str:
    """The metric of the networks of a family on the test examples, against their size."""
    key, label = FAMILY_SIZES[result["target"]]
    lines, metric = [], metric_named(result)
    for kind in result["members"][0][metric.name]:
        points = [(row["size"][key], metric.scale * row[metric.name][kind]["test"]) for row in result["members"]]
        tips = [
            f"budget {row['budget']:g}, {x:,} {label}, {y:.2f} {metric.unit}".strip()
            for row, (x, y) in zip(result["members"], points, strict=True)
        ]
        lines.append(Line(family_kind(result, kind), points, tips))
    return chart("family", label, f"test {metric.label}", lines, log_x=True)


def growth(rounds: dict[str, list[dict[str, Any]]]) -> str:
    """Accuracy on the held-out images against the size of networks that grow."""
    lines = []
    for name, rows in rounds.items():
        points = [(row["parameters"], 100 * row["accuracy"]) for row in rows]
        tips = [f"round {row['round']}, {row['parameters']:,} parameters, {row['accuracy']:.2%}" for row in rows]
        lines.append(Line(name, points, tips))
    return chart("growth", "parameters", "held-out accuracy (%)", lines, log_x=True)


def widths(rows: list[dict[str, Any]]) -> str:
    """The units of each layer over the rounds of a growth."""
    lines = []
    for name in rows[0]["widths"]:
        points = [(row["round"], row["widths"][name]) for row in rows]
        lines.append(Line(name, points, [f"round {x}, {y} units" for x, y in points]))
    return chart("widths", "round", "units of a layer", lines)


def _epoch(curve: list[dict[str, Any]], line: dict[str, Any]) -> float:
    return line["step"] / curve[-1]["step"] * curve[-1]["epoch"]


def _tips(points, curve: list[dict[str, Any]], metric: Metric) -> list[str]:
    return [
        f"epoch {line['epoch']}, t = {line['time']:.4g}: {y:.2f} {metric.unit}".strip()
        for line, (_, y) in zip(curve, points, strict=True)
    ]


def _metric(curves: Curves) -> Metric:
    """That of the curves, which is one."""
    return metric_in(next(curve[-1] for curve in curves.values() if curve))
