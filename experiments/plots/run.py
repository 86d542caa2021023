"""The pictures of a run, from its curve."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import parsimony as pm

from ..metrics import ACCURACY, metric_in, metric_named
from ..runs import snapshots
from ..training.network import merge_variables
from . import activation_maximization
from .style import COLOURS, bare

FAMILY_SIZES = {
    "units": ("parameters", "parameters"), "parameters": ("parameters", "parameters"),
    "macs": ("macs", "multiply-adds"), "bytes": ("bytes", "bytes of parameters"),
}  # fmt: skip
"""{target of a family: (key of a size, what it is called)}."""
TUNINGS = {"together": "tuned together", "chain": "tuned one from the next"}
"""How the members of a family are tuned: what it is called."""


def path(directory: Path) -> tuple[str, Figure]:
    """Norm of every group of Γ along the path: a line a group, a panel a layer.

    In colour what is in the support at the end, darkest what came first.
    """
    curve, norms = snapshots.curve(directory), snapshots.norms(directory, "gamma")
    shown = {layer: rows for layer, rows in norms.items() if "conv" in layer} or norms
    places, label = [0.0, *(line["time"] for line in curve)], "path time t = Σα"
    if places[-1] > 5 * places[len(places) // 2]:  # a path with a fast finish would squeeze all before it
        steps = curve[-1]["step"] / curve[-1]["epoch"]
        places, label = [0.0, *(line["step"] / steps for line in curve)], "epoch"
    figure = Figure(figsize=(4.2 * max(1, len(shown)), 3.6), layout="constrained")
    panels = figure.subplots(1, max(1, len(shown)), squeeze=False)[0]
    for axes, (layer, rows) in zip(panels, shown.items(), strict=False):
        rows = np.concatenate([np.zeros((1, rows.shape[1])), rows])
        end = rows[~np.isnan(rows).any(1)][-1]  # of the last snapshot that is whole
        entered = np.where((rows > 0).any(0), (rows > 0).argmax(0), len(rows))
        moments = np.unique(entered)
        shade = 0.95 - 0.7 * np.searchsorted(moments, entered) / max(len(moments) - 1, 1)
        drawn = np.argsort(-entered)[-2000:]  # of many thousand weights, the first
        for i in drawn:
            colour = COLOURS[0] if end[i] > 0 else "0.6"
            axes.plot(places, rows[:, i], color=colour, alpha=shade[i], lw=1.1 if len(drawn) < 500 else 0.4)
        what = "filters" if "conv" in layer else "weights"
        axes.set(
            title=f"{short(layer)}: {(end > 0).sum()} of {rows.shape[1]} {what}",
            xlabel=label,
            ylabel=f"‖Γ‖ of a {what[:-1]}",
        )
        bare(axes)
    return "path.png", figure


def metric_and_density(curve: list[dict]) -> tuple[str, Figure]:
    """The metric of W and W̃ on the held-out examples, and the density of each layer, over the epochs."""
    figure = Figure(figsize=(9.2, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    steps = max(line["step"] for line in curve) / max(line["epoch"] for line in curve)
    epochs = [line["step"] / steps for line in curve]
    metric = metric_in(curve[-1])
    for kind, label, colour in [("", "dense W", COLOURS[0]), ("sparse_", "sparse W̃", COLOURS[1])]:
        values = [metric.scale * line[f"{kind}{metric.name}"] for line in curve]
        left.plot(epochs, values, color=colour, label=label)
    left.set(xlabel="epoch", ylabel=f"validation {metric.label}")
    if metric is ACCURACY:
        best = max(100 * line["accuracy"] for line in curve)
        left.set(ylim=(max(0, best - 12), min(100.3, best + 1)))
    else:
        left.set(yscale="log")
    left.legend(frameon=False, loc="lower right" if metric is ACCURACY else "upper right")
    for layer, colour in zip(curve[-1]["density"], COLOURS * 9, strict=False):
        values = [100 * line["density"][layer] for line in curve]
        right.plot(epochs, values, color=colour, label=short(layer))
    right.set(xlabel="epoch", ylabel="weights in supp Γ (%)", ylim=(0, 102))
    right.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    for axes in (left, right):
        bare(axes)
    return f"{metric.name}.png", figure


def widths(rows: list[dict]) -> tuple[str, Figure]:
    """Widths over the rounds, up where units were added and down to those in use; held-out accuracy against size."""
    figure = Figure(figsize=(9.2, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    rounds, names = [row["round"] for row in rows], list(rows[0]["widths"])
    few = len(names) <= len(COLOURS)
    for i, name in enumerate(names):
        colour = COLOURS[i] if few else matplotlib.colormaps["viridis"](i / len(names))
        over = 1 - i / len(names)  # lines that coincide: the earlier layers are wider, and show beneath the later
        shape = {"lw": 1.2 + 4 * over, "ms": 3 + 5 * over}
        times = [time for number in rounds for time in (number, number + 0.7)]  # before a round, and after the cut
        sizes = [size for row in rows for size in (row["widths"][name], row["used"][name])]
        left.plot(times, sizes, "o-", color=colour, label=name, **shape)
    left.set(xlabel="round", ylabel="units of a layer", ylim=(0, None))
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    if few:
        left.legend(frameon=False, fontsize=8)
    else:
        left.set_title("from the first layer (dark) to the last (light)", fontsize=9)
    sizes, values = [row["parameters"] for row in rows], [100 * row["accuracy"] for row in rows]
    right.plot(sizes, values, "o-", ms=3, lw=1.2, color=COLOURS[0])
    right.set(xlabel="parameters", ylabel="validation accuracy (%)", xscale="log")
    right.set_xticks(sizes, [f"{size:,}" for size in sizes], rotation=30, ha="right")
    right.minorticks_off()
    for axes in (left, right):
        bare(axes)
    return "widths.png", figure


def family_kind(result: dict, kind: str) -> str:
    """What the networks of a family are called that were cut, tuned or tuned alone."""
    return {"cut": "cut", "tuned": TUNINGS[result["tuning"]], "alone": "tuned alone"}[kind]


def family(result: dict) -> tuple[str, Figure]:
    """The metric of the networks of a family on the test examples, against their size."""
    figure, metric = Figure(figsize=(5.6, 3.8), layout="constrained"), metric_named(result)
    axes = figure.subplots()
    sizes = [row["size"][FAMILY_SIZES[result["target"]][0]] for row in result["members"]]
    for kind, colour in zip(result["members"][0][metric.name], COLOURS, strict=False):
        values = [metric.scale * row[metric.name][kind]["test"] for row in result["members"]]
        axes.plot(sizes, values, "o-", ms=4, lw=1.2, color=colour, label=family_kind(result, kind))
    whole = metric.scale * result["whole"][metric.name]["test"]
    axes.axhline(whole, color="0.5", lw=1, ls="--", label="the whole network")
    axes.set(xlabel=FAMILY_SIZES[result["target"]][1], ylabel=f"test {metric.label}", xscale="log")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes], rotation=30, ha="right")
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize=8)
    bare(axes)
    return "family.png", figure


def first_filters(params, opt_state, layer: str) -> tuple[str, Figure]:
    """The filters of a convolution in the order of entry, one scale of colour for all."""
    kernel = np.asarray(params[layer]["kernel"])
    steps = np.asarray(pm.entry_steps(opt_state)[layer]["kernel"])
    order = np.argsort(np.asarray(pm.rank(params, opt_state, "entry")[layer]["kernel"]))[:32]
    columns = min(8, len(order))
    rows = -(-len(order) // columns)
    figure = Figure(figsize=(1.1 * columns, 1.35 * rows), layout="constrained")
    most = np.abs(kernel).max()
    for axes, i in zip(figure.subplots(rows, columns, squeeze=False).ravel(), order, strict=False):
        axes.imshow(kernel[..., 0, i], cmap="RdBu_r", vmin=-most, vmax=most)
        axes.set_title(f"{steps[i]}" if steps[i] != pm.NEVER else "never", fontsize=8)
    _no_ticks(figure)
    return "filters.png", figure


def exciting_images(run, params, stats, opt_state, layer: str) -> tuple[str, Figure]:
    """The images that excite the first and the last filters of the order most."""
    places = np.asarray(pm.rank(params, opt_state)[layer]["kernel"])
    norms = np.asarray(pm.group_norms(opt_state, params)[layer]["kernel"])
    inside = np.asarray(pm.group_norms(opt_state)[layer]["kernel"]) > 0
    order = np.argsort(places)
    count = min(8, len(order) // 2)
    chosen = [int(i) for i in (*order[:count], *order[-count:])]
    images = activation_maximization.most_exciting(run, merge_variables(params, stats), layer, chosen)
    figure = Figure(figsize=(1.25 * count, 3.1), layout="constrained")
    for axes, i, image in zip(figure.subplots(2, count).ravel(), chosen, images, strict=True):
        axes.imshow(image[..., 0], cmap="gray", vmin=0, vmax=1)
        axes.set_title(f"{i}{' in' if inside[i] else ' out'}\n‖W‖ {norms[i]:.2g}", fontsize=7)
    _no_ticks(figure)
    return "exciting.png", figure


def _no_ticks(figure: Figure) -> None:
    for axes in figure.axes:
        axes.set(xticks=[], yticks=[])
        axes.set_frame_on(bool(axes.images))


def short(name: str) -> str:
    return name.removesuffix("/kernel")
