"""Cutting one trained run to any sparsity, by several orders of its structure, with and without fine-tuning."""

import dataclasses
import re
import sys
from pathlib import Path
from typing import Literal

import jax
import numpy as np
import optax
import tyro

import parsimony as pm

from ..errors import RunError
from ..plots.text import aligned
from ..runs import snapshots, stopping
from ..runs.files import free_file, write_json
from ..runs.load import Run, load_run, others, penalised
from ..training.fit import fit
from ..training.network import merge_variables
from ..training.step import make_accuracy, make_step

Criterion = Literal["entry", "dual", "gamma", "magnitude", "area", "random"]


@dataclasses.dataclass(frozen=True)
class PruneOptions:
    """Accuracy against sparsity of one run, a row an order; written to RUN/prune.json (prune-2.json, ...)."""

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
    orders: tuple[Criterion, ...] = ("entry", "dual", "gamma", "magnitude", "random")
    """Orders of the structure, as in parsimony.rank, and: area under ‖Γ‖ over the path time; random: the mean of three
    draws."""
    fine_tune: int = 0
    """Epochs of SGD with momentum inside the support, after the cut."""
    learning_rate: float = 0.01
    """Of the fine-tuning."""
    data_dir: Path | None = None
    """Where TFDS keeps its data."""

    def __post_init__(self):
        wrong = [s for s in self.sparsity if not 0 <= s < 1]
        if wrong or not self.sparsity:
            raise ValueError(f"--sparsity: expected shares of the weights in [0, 1), got {wrong or 'none'}.")
        if self.fine_tune < 0 or not self.learning_rate > 0:
            raise ValueError("--fine-tune must be ≥ 0, --learning-rate > 0.")


def prune(arguments: PruneOptions) -> dict:
    """Runs the sweep; prints and writes it."""
    run = load_run(arguments.run, arguments.data_dir)
    params, stats, opt_state = run.at()
    names = penalised(opt_state)
    protect = others(names, arguments.layers)
    accuracy = make_accuracy(run.network.fn, run.dataset)
    tuned = lambda masks: pm.keep_support(optax.sgd(arguments.learning_rate, momentum=0.9), masks)
    # The masks are in the state, so that one compiled step serves them all.
    config, everything = run.config, tuned(jax.tree.map(lambda w: w != 0, params))
    step = make_step(run.network, everything, run.dataset, seed=config.seed + 1, augment=config.augment)

    def trained(masks, epochs: int):
        sparse = pm.apply_masks(params, masks)
        if epochs == 0:
            return merge_variables(sparse, stats)
        start = sparse, stats, tuned(masks).init(sparse)
        return merge_variables(*fit(step, *start, run.dataset, epochs, config.batch_size, config.seed + 1)[:2])

    rows = []
    for order in arguments.orders:
        draws = range(3) if order == "random" else range(1)
        for sparsity in arguments.sparsity:
            keys = {"scope": arguments.scope, "level": arguments.level, "protect": protect}
            masks = [
                pm.select(params, opt_state, sparsity, order=the_order(order, run, opt_state, protect, n), **keys)
                for n in draws
            ]
            for epochs in sorted({0, arguments.fine_tune}):
                pruned = [trained(m, epochs) for m in masks]
                rows.append(
                    {"order": order, "sparsity": sparsity, "fine_tune": epochs, "kept": _kept(masks[0], names)}
                    | {
                        split: float(np.mean([accuracy(p, getattr(run.dataset, split)) for p in pruned]))
                        for split in ("validation", "test")
                    }
                )
                print(
                    f"{order} {sparsity:g} fine-tuned {epochs}: validation {rows[-1]['validation']:.2%}",
                    file=sys.stderr,
                )
    result = {"run": str(arguments.run), "checkpoint": run.saved[-1]} | {
        name: value for name, value in dataclasses.asdict(arguments).items() if name not in ("run", "data_dir")
    }
    result["dense"] = {
        split: accuracy(merge_variables(params, stats), getattr(run.dataset, split)) for split in ("validation", "test")
    }
    result["rows"] = rows
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
        groups = snapshots.by_name(pm.group_norms(opt_state))
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
    """The sparsest cut in the order of entry that validation cannot tell from the dense network: within one SE."""
    bound = dense - stopping.standard_error(dense, images)
    good = [row for row in rows if row["order"] == "entry" and row["validation"] >= bound]
    return max(good, key=lambda row: (row["sparsity"], row["validation"]), default=None)


def table(result: dict) -> str:
    """Test accuracy, a row an order and a column a sparsity."""
    sparsities = result["sparsity"]
    told = f"test accuracy (%), {result['level']}s, by {result['scope']}; dense {result['dense']['test']:.2%}"
    lines = [["order", *(f"{s:.0%}" if round(s, 2) == s else f"{s:.1%}" for s in sparsities)]]
    for order, epochs in dict.fromkeys((row["order"], row["fine_tune"]) for row in result["rows"]):
        cells = [row["test"] for row in result["rows"] if (row["order"], row["fine_tune"]) == (order, epochs)]
        label = f"{order}, fine-tuned {epochs}" if epochs else order
        lines.append([label, *(f"{100 * value:.2f}" for value in cells)])
    chosen, text = result["chosen"], f"{told}\n{aligned(lines)}"
    if chosen:
        text += (
            f"\nchosen on validation: {chosen['sparsity']:.1%} by entry"
            f"{', fine-tuned' if chosen['fine_tune'] else ''}, test {chosen['test']:.2%}"
        )
    return text


def _kept(masks, names: list[str]) -> dict[str, int]:
    """Weights kept in each penalised parameter."""
    return {name: int(mask.sum()) for name, mask in snapshots.by_name(masks).items() if name in names}
