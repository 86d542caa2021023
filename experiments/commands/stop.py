"""Where a stopping rule ends a recorded path."""

import dataclasses
from pathlib import Path
from typing import Literal

import tyro

from ..errors import RunError
from ..metrics import metric_in
from ..runs import snapshots, stopping
from ..runs.files import free_file, write_json
from ..runs.load import read_config


@dataclasses.dataclass(frozen=True)
class StopOptions:
    """Applies a rule to the snapshots of a run, as if it had been given to the training; the point goes to
    RUN/stop.json (stop-2.json, ...)."""

    run: tyro.conf.Positional[Path]
    """Folder of a run, finished or not."""
    rule: Literal["one_se", "sparsity", "stable"] = "one_se"
    """one_se: the sparsest point within one standard error of the best; sparsity; stable: see `train --help`."""
    sparsity: float = 0.9
    """For the rule sparsity, in [0, 1)."""
    patience: int | None = None
    """Epochs that must have followed. None: for one_se the whole path is looked at; for stable 5."""

    def __post_init__(self):
        if not 0 <= self.sparsity < 1:
            raise ValueError(f"--sparsity: expected a share of the weights in [0, 1), got {self.sparsity}.")
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"--patience: expected at least 1, got {self.patience}.")


def stop(arguments: StopOptions) -> dict:
    """Prints and writes the point, and returns its line."""
    config = read_config(arguments.run)
    curve = [line for line in snapshots.curve(arguments.run) if line["epoch_end"]]
    if not curve:
        raise RunError(f"{arguments.run} has no snapshot yet; let it train until the end of an epoch.")
    metric = metric_in(curve[-1])
    if arguments.rule == "one_se" and not stopping.has_error(curve[-1]):
        raise RunError(f"one_se: needs the error of the {metric.name}, which does not follow from it; take sparsity.")
    if arguments.rule == "one_se" and arguments.patience is None:
        line = stopping.sparsest_within_one_error(curve, config.validation)
    else:
        patience = arguments.patience or 5
        line = stopping.point(arguments.rule, curve, config.validation, arguments.sparsity, patience)
    if line is None:
        last = curve[-1]
        raise RunError(
            f"the rule {arguments.rule} does not end this path: after epoch {last['epoch']} it has density "
            f"{last['total_density']:.1%}, validation {metric.of_pair(last)}."
        )
    print(
        f"{arguments.rule}: epoch {line['epoch']}, t = {line['time']:.4g}, density {line['total_density']:.1%}, "
        f"validation {metric.of_pair(line)}; groups "
        + ", ".join(f"{name} {count}" for name, count in line["groups"].items())
    )
    path = free_file(arguments.run, "stop")
    options = {name: getattr(arguments, name) for name in ("rule", "sparsity", "patience")}
    write_json(path, {"run": str(arguments.run), **options, "point": line})
    print(f"written: {path}")
    return line
