"""The pictures of a run, from its curve."""

from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by colour-blind readers too.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]


def path(curve: list[dict]) -> tuple[str, Figure]:
    """Norm of every filter of Γ along the path: a line a filter, a panel a layer."""
    layers = list(curve[-1]["gamma_norms"])
    figure = Figure(figsize=(4.2 * len(layers), 3.6), layout="constrained")
    times = [0.0, *(line["time"] for line in curve)]
    for axes, layer in zip(figure.subplots(1, len(layers), squeeze=False)[0], layers, strict=True):
        norms = [[0.0] * len(curve[-1]["gamma_norms"][layer]), *(line["gamma_norms"][layer] for line in curve)]
        last = norms[-1]
        # Light to dark by the step of entry: what came first is darkest.
        entered = [next((k for k, row in enumerate(norms) if row[i] > 0), len(norms)) for i in range(len(last))]
        order = {k: rank / max(len(set(entered)) - 1, 1) for rank, k in enumerate(sorted(set(entered)))}
        for i in sorted(range(len(last)), key=lambda i: -entered[i]):
            axes.plot(times, [row[i] for row in norms], color=COLOURS[0], alpha=0.95 - 0.7 * order[entered[i]], lw=1.1)
        count = sum(x > 0 for x in last)
        axes.set(
            title=f"{_short(layer)}: {count} of {len(last)} filters",
            xlabel="path time t = Σα",
            ylabel="‖Γ‖ of a filter",
        )
        _bare(axes)
    return "path.png", figure


def accuracy_and_density(curve: list[dict]) -> tuple[str, Figure]:
    """Validation accuracy of W and W̃, and the density of each layer, over the epochs."""
    figure = Figure(figsize=(9.2, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = [line["epoch"] for line in curve]
    for key, label, colour in [("accuracy", "dense W", COLOURS[0]), ("sparse_accuracy", "sparse W̃", COLOURS[1])]:
        left.plot(epochs, [100 * line[key] for line in curve], color=colour, label=label)
    best = max(100 * line["accuracy"] for line in curve)
    left.set(xlabel="epoch", ylabel="validation accuracy (%)", ylim=(max(0, best - 12), min(100.3, best + 1)))
    left.legend(frameon=False, loc="lower right")
    for layer, colour in zip(curve[-1]["density"], COLOURS * 9, strict=False):
        values = [100 * line["density"][layer] for line in curve]
        right.plot(epochs, values, color=colour, label=_short(layer))
    right.set(xlabel="epoch", ylabel="weights in supp Γ (%)", ylim=(0, 102))
    right.legend(frameon=False, loc="upper left", ncols=2)
    for axes in (left, right):
        _bare(axes)
    return "accuracy.png", figure


def _short(name: str) -> str:
    return name.removesuffix("/kernel")


def _bare(axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.margins(x=0.01)
