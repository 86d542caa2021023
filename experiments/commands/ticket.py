"""Winning tickets: the mask of an early epoch, weights rewound, retrained by plain SGD inside the support."""

import dataclasses
import re
from pathlib import Path
from typing import Literal

import jax
import numpy as np
import optax
import tyro

import parsimony as pm

from ..errors import RunError
from ..growth.config import Grow
from ..runs.files import free_file, write_json
from ..runs.load import load_run, others, penalised
from ..training.fit import make_fine_tune
from ..training.network import by_name, merge_variables
from ..training.step import make_metric, validation_and_test


@dataclasses.dataclass(frozen=True)
class TicketOptions:
    """Retrains dense, inside the mask of an early epoch, and inside a random mask of the same density; written to
    RUN/ticket.json (ticket-2.json, ...)."""

    run: tyro.conf.Positional[Path]
    """Folder of a run trained with --keep."""
    at_epoch: int
    """Epoch whose path makes the mask."""
    rewind: Literal["init", "E", "none"] = "init"
    """Weights to start from: those of the seed, those of that epoch, or those of the end of the run."""
    sparsity: float | None = None
    """None: the mask is the support at that epoch. Else the share of the weights to remove, in [0, 1), the groups with
    the least ‖V‖ over its threshold first."""
    scope: Literal["layer", "global"] = "layer"
    """The sparsity of each layer, or of all of them together."""
    layers: tuple[str, ...] = ("conv",)
    """Regular expressions of the parameters to mask."""
    epochs: int | None = None
    """Epochs of the retraining; None: those of the run. The step falls to zero along a cosine."""
    data_dir: Path | None = None
    """Where TFDS keeps its data."""

    def __post_init__(self):
        if self.sparsity is not None and not 0 <= self.sparsity < 1:
            raise ValueError(f"--sparsity: expected a share of the weights in [0, 1), got {self.sparsity}.")
        if self.epochs is not None and self.epochs < 1:
            raise ValueError(f"--epochs: expected at least 1, got {self.epochs}.")


def ticket(arguments: TicketOptions) -> dict:
    """Draws the ticket, retrains the three, prints and writes the comparison."""
    run = load_run(arguments.run, arguments.data_dir)
    if isinstance(run.config, Grow):
        raise RunError(
            f"{arguments.run} is a run of `grow`, which has no initial weights to rewind to; give a run of `train`."
        )
    params, stats, opt_state = run.at(arguments.at_epoch)
    if any(isinstance(p, pm.UnitPenalty) for _, p in optax.tree.get(opt_state, "SplitLBIState").penalty.rules):
        raise RunError(f"{arguments.run} has units as groups, and a ticket masks single layers; train --groups layers.")
    names = penalised(opt_state)
    protect = others(names, arguments.layers)
    drawn = [name for name in names if not any(re.search(pattern, name) for pattern in protect)]
    if arguments.sparsity is None:
        masks = _only(drawn, pm.support(opt_state))
        empty = [name for name in drawn if not by_name(masks)[name].any()]
        if empty:
            raise RunError(
                f"nothing of {', '.join(empty)} was in the support at epoch {arguments.at_epoch} of {run.directory}; "
                "take a later epoch, a path that opens earlier, or give a --sparsity, for the order of V."
            )
    else:
        masks = pm.select(params, opt_state, arguments.sparsity, scope=arguments.scope, order="dual", protect=protect)
    start, start_stats = {"init": run.start, "E": (params, stats), "none": run.at()[:2]}[arguments.rewind]
    epochs = arguments.epochs or run.config.epochs
    config, metric = run.config, run.dataset.metric
    measure = make_metric(run.network.fn, run.dataset)
    everything = jax.tree.map(lambda mask: np.ones(mask.shape, bool), masks)
    retrain = make_fine_tune(run.network, run.dataset, config, config.learning_rate, epochs, config.seed)
    result = {"run": str(arguments.run), "epochs": epochs, "metric": metric.name} | {
        name: value
        for name, value in dataclasses.asdict(arguments).items()
        if name not in ("run", "data_dir", "epochs")
    }
    result["kept"] = {name: int(m.sum()) for name, m in by_name(masks).items() if name in drawn}
    result["masked_sparsity"] = 1 - sum(result["kept"].values()) / sum(
        m.size for name, m in by_name(masks).items() if name in drawn
    )
    recalibrated = run.recalibrate()
    kinds = {"dense": everything, "ticket": masks, "random": _random(run, params, opt_state, masks, drawn)}
    for kind, kept in kinds.items():
        cut = pm.apply_masks(start, kept)
        trained = merge_variables(*retrain(cut, recalibrated(cut, start, start_stats), kept))
        result[kind] = validation_and_test(measure, trained, run.dataset)
        told = ", ".join(f"{split} {metric.text(value)}" for split, value in result[kind].items())
        print(f"{kind:7s} {told}", flush=True)
    path = free_file(arguments.run, "ticket")
    write_json(path, result)
    print(f"mask of epoch {arguments.at_epoch}: {result['masked_sparsity']:.1%} of {', '.join(drawn)} removed")
    print(f"written: {path}")
    return result


def _only(drawn: list[str], masks):
    """The masks of the layers drawn from, and True everywhere else."""
    named, treedef = by_name(masks), jax.tree.structure(masks)
    return treedef.unflatten([m if name in drawn else np.ones(m.shape, bool) for name, m in named.items()])


def _random(run, params, opt_state, masks, drawn: list[str]):
    """As many groups of each layer as the ticket has, drawn at random."""
    random = np.random.default_rng([run.config.seed, 1])
    lot = jax.tree.map(lambda x: random.random(x.shape), pm.group_norms(opt_state))
    parts, treedef = {}, jax.tree.structure(masks)
    names = penalised(opt_state)
    sizes = {row.name: row.all_weights / (row.all_groups or 1) for row in pm.sparsity_summary(opt_state)}
    for name, mask in by_name(masks).items():
        parts[name] = np.ones(mask.shape, bool)
        if name in drawn:  # half a group more than are removed: whole groups go while they fit
            share = (mask.size - int(mask.sum()) + sizes[name] / 2) / mask.size
            protect = others(names, (f"^{name}$",))
            chosen = pm.select(params, opt_state, min(share, 1 - 0.5 / mask.size), order=lot, protect=protect)
            parts[name] = by_name(chosen)[name]
    return treedef.unflatten(list(parts.values()))
