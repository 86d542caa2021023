"""The picture of a comparison, from its record."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ..plots.style import COLOURS, bare


def picture(record: dict[str, Any]) -> Figure:
    """Accuracy against sparsity by method; of one method over a grid of two numbers, a map for each sparsity."""
    one = len({row["method"] for row in record["rows"]}) == 1
    return _over_grid(record) if one and len(record["configuration"]["grid"]) == 2 else _against_sparsity(record)


def _against_sparsity(record: dict[str, Any]) -> Figure:
    """Mean test accuracy against sparsity, with a band of one standard deviation; one scale for the weights that are
    left, by the logarithm."""
    height = max(4.4, 0.2 * (len(record["rows"]) + 2))  # the legend has a line for each row
    figure = Figure(figsize=(8.4, height), layout="constrained")
    axes = figure.subplots()
    styles = [(colour, style) for style in ("-", "--", ":") for colour in COLOURS]
    for row, (colour, style) in zip(record["rows"], styles * 9, strict=False):
        left = [100 * (1 - cell["sparsity"]) for cell in row["cells"]]
        mean = [100 * cell["test"] for cell in row["cells"]]
        axes.plot(left, mean, style, marker="o", ms=3, lw=1.3, color=colour, label=f"{row['row']} ({row['runs']:.3g})")
        if all(cell["std"] is not None for cell in row["cells"]):
            spread = [100 * cell["std"] for cell in row["cells"]]
            low, high = ([m + sign * s for m, s in zip(mean, spread, strict=True)] for sign in (-1, 1))
            axes.fill_between(left, low, high, color=colour, alpha=0.15, lw=0)
    best = max(100 * cell["test"] for row in record["rows"] for cell in row["cells"])
    own = record["configuration"]
    axes.set(xscale="log", xlabel=f"{own['level']}s left (%)", ylabel="test accuracy (%)", title=record["name"])
    axes.set_ylim(max(0.0, best - 12), best + 0.6)
    axes.set_xticks([100 * (1 - q) for q in own["sparsity"]], [f"{100 * (1 - q):.3g}" for q in own["sparsity"]])
    axes.minorticks_off()
    axes.invert_xaxis()
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1), title="in brackets: runs")
    bare(axes)
    return figure


def _over_grid(record: dict[str, Any]) -> Figure:
    """Mean test accuracy over the two numbers, with the deviation over the seeds; the dense networks first."""
    (down, rows), (along, columns) = record["configuration"]["grid"]
    what, sparsities = record["configuration"]["level"], record["configuration"]["sparsity"]
    panels = {kind: lambda row, kind=kind: row["dense"][kind] for kind in record["rows"][0]["dense"]}
    panels |= {f"{100 * q:g} % of the {what}s zero": lambda row, i=i: row["cells"][i] for i, q in enumerate(sparsities)}
    figure = Figure(figsize=(1.2 + 0.75 * len(columns), len(panels) * (0.9 + 0.45 * len(rows))), layout="constrained")
    for axes, (title, cell) in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels.items(), strict=True):
        at = {(row["setting"][down], row["setting"][along]): cell(row) for row in record["rows"]}
        mean = np.array([[100 * at[y, x]["test"] for x in columns] for y in rows])
        axes.imshow(mean, cmap="cividis", aspect="auto")
        middle = (mean.min() + mean.max()) / 2
        for y, x in np.ndindex(mean.shape):
            std = at[rows[y], columns[x]]["std"]
            told = f"{mean[y, x]:.2f}" + ("" if std is None else f"\n± {100 * std:.2f}")
            axes.text(x, y, told, ha="center", va="center", fontsize=7, color="k" if mean[y, x] > middle else "w")
        axes.set_xticks(range(len(columns)), [f"{x:g}" for x in columns])
        axes.set_yticks(range(len(rows)), [f"{y:g}" for y in rows])
        axes.set(title=f"{title}: test accuracy (%)", xlabel=_symbol(along), ylabel=_symbol(down))
    return figure


def _symbol(name: str) -> str:
    return {"kappa": "κ", "nu": "ν"}.get(name, name)
