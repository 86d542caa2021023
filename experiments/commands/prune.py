"""Cutting one trained run to any sparsity, by several orders of its structure, with and without fine-tuning."""

import dataclasses
import re
import sys
from pathlib import Path
from typing import Literal

import jax
import numpy as np
import tyro

import parsimony as pm

from ..errors import RunError
from ..metrics import ACCURACY, metric_named
from ..plots.text import aligned
from ..runs import snapshots, stopping
from ..runs.files import free_file, write_json
from ..runs.load import Run, load_run, others, penalised
from ..training.fit import make_fine_tune
from ..training.network import by_name, merge_variables
from ..training.step import make_metric, validation_and_test
from .fine_tuning import FineTuneOptions

Criterion = Literal["entry", "dual", "gamma", "magnitude", "area", "random"]


@dataclasses.dataclass(frozen=True)
class PruneOptions(FineTuneOptions):
    """Accuracy, or perplexity, against sparsity of one run, a row an order; the result goes to RUN/prune.json
    (prune-2.json, ...)."""

    run: tyro.conf.Positional[Path]
    """Folder of a trained run."""
    sparsity: tuple[float, ...] = (0.5, 0.7, 0.8, 0.9, 0.95)
    """Shares of the weights to remove, in [0, 1)."""
    layers: tuple[str, ...] = ()
    """Regular expressions: only the penalised parameters they are found in are cut. Default: all."""
    scope: Literal["layer", "global"] = "layer"
    """The sparsity of each layer, or of all of them together."""
    level: Literal["group", "weight"] = "group"
    """Whole groups, or single weights."""
    orders: tuple[Criterion, ...] = ("dual", "entry", "gamma", "magnitude", "random")
    """Orders of the structure, as in parsimony.rank, and: area under ‖Γ‖ over the path time; random: the mean of three
    draws."""
    fine_tune: int = 0
    """Epochs of SGD inside the support, after the cut; the step falls to zero along a cosine."""

    def __post_init__(self):
        wrong = [s for s in self.sparsity if not 0 <= s < 1]
        if wrong or not self.sparsity:
            raise ValueError(f"--sparsity: expected shares of the weights in [0, 1), got {wrong or 'none'}.")
        if self.fine_tune < 0:
            raise ValueError(f"--fine-tune: expected a number of epochs ≥ 0, got {self.fine_tune}.")
        super().__post_init__()


def prune(arguments: PruneOptions) -> dict:
    """Runs the sweep; prints and writes it."""
    run = load_run(arguments.run, arguments.data_dir)
    params, stats, opt_state = run.at()
    names = penalised(opt_state)
    protect = others(names, arguments.layers)
    metric, measure = run.dataset.metric, make_metric(run.network.fn, run.dataset)
    config, rate = run.config, arguments.learning_rate or run.config.learning_rate
    network = arguments.student(run.network, run, merge_variables(params, stats))
    fine_tune = make_fine_tune(network, run.dataset, config, rate, arguments.fine_tune, config.seed + 1)
    recalibrated = run.recalibrate()
    rows, old = [], {}
    for order in arguments.orders:
        draws = range(3) if order == "random" else range(1)
        for sparsity in arguments.sparsity:
            keys = {"scope": arguments.scope, "level": arguments.level, "protect": protect}
            masks = [
                pm.select(params, opt_state, sparsity, order=the_order(order, run, opt_state, protect, n), **keys)
                for n in draws
            ]
            cut = [pm.apply_masks(params, drawn) for drawn in masks]
            cut = [(weights, recalibrated(weights, params, stats)) for weights in cut]
            if not old and cut[0][1] is not stats:
                scores = validation_and_test(measure, merge_variables(cut[0][0], stats), run.dataset)
                old = {"statistics_of_W": {"order": order, "sparsity": sparsity, **scores}}
            for epochs in sorted({0, arguments.fine_tune}):
                if epochs:
                    cut = [fine_tune(*weights, drawn) for weights, drawn in zip(cut, masks, strict=True)]
                scores = [validation_and_test(measure, merge_variables(*weights), run.dataset) for weights in cut]
                row = {"order": order, "sparsity": sparsity, "fine_tune": epochs, "kept": _kept(masks[0], names)}
                rows.append(row | {split: float(np.mean([score[split] for score in scores])) for split in scores[0]})
                print(
                    f"{order} {sparsity:g} fine-tuned {epochs}: validation {metric.text(rows[-1]['validation'])}",
                    file=sys.stderr,
                )
    result = {"run": str(arguments.run), "checkpoint": run.saved[-1]} | {
        name: value for name, value in dataclasses.asdict(arguments).items() if name not in ("run", "data_dir")
    }
    result |= {"learning_rate": rate, "metric": metric.name}
    result["dense"] = validation_and_test(measure, merge_variables(params, stats), run.dataset)
    result |= {"rows": rows, **old}
    result["chosen"] = None
    if metric is ACCURACY:  # whose error is known
        result["chosen"] = choose(rows, result["dense"]["validation"], run.config.validation)
    path = free_file(arguments.run, "prune")
    write_json(path, result)
    print(table(result), f"\nwritten: {path}", sep="")
    return result


def the_order(name: str, run: Run, opt_state, protect: list[str], draw: int = 0):
    """What `select` takes for an order of this name."""
    if name == "random":
        random = np.random.default_rng([run.config.seed, draw])
        return jax.tree.map(lambda x: random.random(x.shape), pm.group_norms(opt_state))
    if name == "area":
        gamma = snapshots.norms(run.directory, "gamma")
        times = np.array([line["time"] for line in snapshots.curve(run.directory)])
        lasting = np.diff(times, prepend=0.0)
        groups = by_name(pm.group_norms(opt_state))
        missing = [key for key in groups if key not in gamma and not any(re.search(p, key) for p in protect)]
        if missing:
            raise RunError(
                f"the order area needs the norms of {missing[0]} at every snapshot: train with --snapshot-groups "
                f"{groups[missing[0]].size}, or choose --layers or --orders."
            )
        area = [
            -(lasting @ gamma[key]).reshape(norms.shape) if key in gamma else np.zeros(norms.shape)
            for key, norms in groups.items()
        ]
        return jax.tree.structure(pm.group_norms(opt_state)).unflatten(area)
    return name


def choose(rows: list[dict], dense: float, images: int) -> dict | None:
    """The sparsest cut by V that validation cannot tell from the dense network: within one SE."""
    bound = dense - stopping.standard_error(dense, images)
    good = [row for row in rows if row["order"] == "dual" and row["validation"] >= bound]
    return max(good, key=lambda row: (row["sparsity"], row["validation"]), default=None)


def table(result: dict) -> str:
    """The metric on the test examples, a row an order and a column a sparsity."""
    sparsities, metric = result["sparsity"], metric_named(result)
    dense = metric.text(result["dense"]["test"])
    title = f"test {metric.label}, {result['level']}s, by {result['scope']}; dense {dense}"
    lines = [["order", *(f"{s:.0%}" if round(s, 2) == s else f"{s:.1%}" for s in sparsities)]]
    for order, epochs in dict.fromkeys((row["order"], row["fine_tune"]) for row in result["rows"]):
        cells = [row["test"] for row in result["rows"] if (row["order"], row["fine_tune"]) == (order, epochs)]
        label = f"{order}, fine-tuned {epochs}" if epochs else order
        lines.append([label, *(f"{metric.scale * value:.2f}" for value in cells)])
    chosen, text = result["chosen"], f"{title}\n{aligned(lines)}"
    if chosen:
        text += (
            f"\nchosen on validation: {chosen['sparsity']:.1%} by V"
            f"{', fine-tuned' if chosen['fine_tune'] else ''}, test {chosen['test']:.2%}"
        )
    return text


def _kept(masks, names: list[str]) -> dict[str, int]:
    """Weights kept in each penalised parameter."""
    return {name: int(mask.sum()) for name, mask in by_name(masks).items() if name in names}
