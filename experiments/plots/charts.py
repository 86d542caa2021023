"""The charts of runs, from their curves: each of one run, or of several laid over one another."""

from typing import Any

from .run import FAMILY_KINDS, FAMILY_SIZES, short
from .svg import Line, chart

Curves = dict[str, list[dict[str, Any]]]
"""{the run's name: the lines of its curve}."""


def accuracies(curves: Curves) -> str:
    """Accuracy of W and of W̃ on the held-out images over the epochs."""
    lines = []
    for number, (name, curve) in enumerate(curves.items()):
        for style, (key, kind) in enumerate([("accuracy", "dense W"), ("sparse_accuracy", "sparse W̃")]):
            label = kind if len(curves) == 1 else f"{name}, {kind}"
            points = [(_epoch(curve, line), 100 * line[key]) for line in curve]
            colour = style if len(curves) == 1 else number
            lines.append(Line(label, points, _tips(points, curve), colour, 0 if len(curves) == 1 else style))
    best = max((y for line in lines for _, y in line.points), default=100.0)
    return chart("held-out images", "epoch", "accuracy (%)", lines, y_least=max(0.0, best - 12))


def densities(curves: Curves) -> str:
    """Share of the weights in the support over the epochs: of one run by layer, of several of all together."""
    lines = []
    for name, curve in curves.items():
        layers = list(curve[-1]["density"]) if len(curves) == 1 else [None]
        for layer in layers:
            of = lambda line, layer=layer: line["total_density"] if layer is None else line["density"][layer]
            points = [(_epoch(curve, line), 100 * of(line)) for line in curve]
            lines.append(Line(name if layer is None else short(layer), points, _tips(points, curve)))
    return chart("support of Γ", "epoch", "weights in supp Γ (%)", lines)


def along_the_path(curves: Curves) -> str:
    """Accuracy of W̃ on the held-out images against its density, a point a snapshot."""
    lines = []
    for name, curve in curves.items():
        inside = [line for line in curve if line["total_density"] > 0]
        points = [(100 * line["total_density"], 100 * line["sparse_accuracy"]) for line in inside]
        tips = [
            f"epoch {line['epoch']}, {x:.3g} % of the weights, {y:.2f} %"
            for line, (x, y) in zip(inside, points, strict=True)
        ]
        lines.append(Line("W̃ at a snapshot" if len(curves) == 1 else name, points, tips))
    return chart("W̃ along the path", "weights in supp Γ (%)", "accuracy (%)", lines, log_x=True)


def cut(sweep: dict[str, Any]) -> str:
    """Test accuracy against the share of weights removed, a line an order."""
    lines = []
    for number, order in enumerate(dict.fromkeys(row["order"] for row in sweep["rows"])):
        for style, epochs in enumerate(sorted({0, sweep["fine_tune"]})):
            rows = [row for row in sweep["rows"] if (row["order"], row["fine_tune"]) == (order, epochs)]
            points = [(100 * row["sparsity"], 100 * row["test"]) for row in rows]
            tips = [f"{x:.4g} % removed, {y:.2f} %" for x, y in points]
            lines.append(Line(f"{order}, fine-tuned" if epochs else order, points, tips, number, style))
    what = ", ".join(sweep["layers"]) or "all layers"
    return chart(f"W cut: {what}, by {sweep['scope']}", "weights removed (%)", "test accuracy (%)", lines)


def family(result: dict[str, Any]) -> str:
    """Test accuracy of the networks of a family against their size."""
    key, label = FAMILY_SIZES[result["target"]]
    lines = []
    for kind in result["members"][0]["accuracy"]:
        points = [(row["size"][key], 100 * row["accuracy"][kind]["test"]) for row in result["members"]]
        tips = [
            f"budget {row['budget']:g}, {x:,} {label}, {y:.2f} %"
            for row, (x, y) in zip(result["members"], points, strict=True)
        ]
        lines.append(Line(FAMILY_KINDS[kind], points, tips))
    return chart("family", label, "test accuracy (%)", lines, log_x=True)


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


def _tips(points, curve: list[dict[str, Any]]) -> list[str]:
    return [
        f"epoch {line['epoch']}, t = {line['time']:.4g}: {y:.2f} %" for line, (_, y) in zip(curve, points, strict=True)
    ]
