"""The picture of a comparison, from its record."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ..baselines import LEVELS
from ..plots.style import COLOURS, bare
from .summary import Row, from_json


def picture(record: dict[str, Any]) -> Figure:
    """Accuracy against sparsity by method; of one method over a grid of two numbers, a map for each sparsity."""
    rows = list(map(from_json, record["rows"]))
    one = len({row.method for row in rows}) == 1
    draw = _over_grid if one and len(record["configuration"]["grid"]) == 2 else _against_sparsity
    return draw(record["name"], record["configuration"], rows)


def _against_sparsity(name: str, config: dict[str, Any], rows: Sequence[Row]) -> Figure:
    """Mean test accuracy against sparsity, with a band of one standard deviation; one scale for the weights that are
    left, by the logarithm."""
    height = max(4.4, 0.2 * (len(rows) + 2))  # the legend has a line for each row
    figure = Figure(figsize=(8.4, height), layout="constrained")
    axes = figure.subplots()
    styles = [(colour, style) for style in ("-", "--", ":") for colour in COLOURS]
    for row, (colour, style) in zip(rows, styles * 9, strict=False):
        left = [100 * (1 - (cell.sparsity or 0.0)) for cell in row.cells]
        mean = [100 * cell.test for cell in row.cells]
        axes.plot(left, mean, style, marker="o", ms=3, lw=1.3, color=colour, label=f"{row.name} ({row.runs:.3g})")
        spread = [100 * cell.std for cell in row.cells if cell.std is not None]
        if len(spread) == len(mean):
            low, high = ([m + sign * s for m, s in zip(mean, spread, strict=True)] for sign in (-1, 1))
            axes.fill_between(left, low, high, color=colour, alpha=0.15, lw=0)
    best = max(100 * cell.test for row in rows for cell in row.cells)
    axes.set(xscale="log", xlabel=f"{LEVELS[config['level']]} left (%)", ylabel="test accuracy (%)", title=name)
    axes.set_ylim(max(0.0, best - 12), best + 0.6)
    ticks = [100 * (1 - share) for share in config["sparsity"]]
    axes.set_xticks(ticks, [f"{share:.3g}" for share in ticks])
    axes.minorticks_off()
    axes.invert_xaxis()
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1), title="in brackets: runs")
    bare(axes)
    return figure


def _over_grid(name: str, config: dict[str, Any], rows: Sequence[Row]) -> Figure:
    """Mean test accuracy over the two numbers, with the deviation over the seeds; the dense networks first."""
    (down, ys), (along, xs) = config["grid"]
    panels = {kind: [row.dense[kind] for row in rows] for kind in rows[0].dense}
    for i, share in enumerate(config["sparsity"]):
        panels[f"{100 * share:g} % of the {LEVELS[config['level']]} zero"] = [row.cells[i] for row in rows]
    places = [(dict(row.setting)[down], dict(row.setting)[along]) for row in rows]
    figure = Figure(figsize=(1.2 + 0.75 * len(xs), len(panels) * (0.9 + 0.45 * len(ys))), layout="constrained")
    for axes, (title, cells) in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels.items(), strict=True):
        at = dict(zip(places, cells, strict=True))
        mean = np.array([[100 * at[y, x].test for x in xs] for y in ys])
        axes.imshow(mean, cmap="cividis", aspect="auto")
        middle = (mean.min() + mean.max()) / 2
        for i, j in np.ndindex(mean.shape):
            std = at[ys[i], xs[j]].std
            label = f"{mean[i, j]:.2f}" + ("" if std is None else f"\n± {100 * std:.2f}")
            colour = "k" if mean[i, j] > middle else "w"
            axes.text(j, i, label, ha="center", va="center", fontsize=7, color=colour)
        axes.set_xticks(range(len(xs)), [f"{x:g}" for x in xs])
        axes.set_yticks(range(len(ys)), [f"{y:g}" for y in ys])
        axes.set(title=f"{title}: test accuracy (%)", xlabel=_symbol(along), ylabel=_symbol(down))
    return figure


def _symbol(name: str) -> str:
    return {"kappa": "κ", "nu": "ν"}.get(name, name)
