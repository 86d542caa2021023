"""A run that was trained, back in memory: its configuration, data, network, and weights and state of an epoch."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import parsimony as pm

from ..config import Config
from ..data.dataset import Dataset
from ..data.sampler import Sampler
from ..data.text import source
from ..errors import RunError
from ..growth import rounds
from ..growth.config import Grow
from ..growth.stage import make_stage, transformation
from ..training.build import build_network, load_data, optimizer, penalties
from ..training.checkpoints import open_checkpoints, restore
from ..training.network import Network, by_name
from ..training.recalibration import Recalibrate, make_recalibrate
from .digest import check_files
from .files import read_json
from .folder import differences
from .start import read_start


@dataclasses.dataclass(frozen=True)
class Run:
    """A run folder, and what training started from."""

    directory: Path
    config: Config
    dataset: Dataset
    network: Network
    start: tuple[dict, dict]  # (params, stats) that the seed makes, or that were read from a folder
    tx: Any
    sampler: Sampler
    saved: list[int]  # the checkpoints: after which steps, or of a network that grows after which rounds

    def at(self, epoch: int | None = None):
        """(params, stats, opt_state) after an epoch; None: the last that is there."""
        step = self.saved[-1] if epoch is None else self.sampler.end(epoch)
        if epoch is not None and step not in self.saved:
            raise RunError(
                f"{self.directory} has no checkpoint of epoch {epoch}, only of {self.epochs}; train with "
                f"--keep {epoch / self.config.epochs:.4g} to keep it."
            )
        with open_checkpoints(self.directory) as checkpoints:
            return restore(checkpoints, step, (*self.start, self.tx.init(self.start[0])))[0]

    def recalibrate(self) -> Recalibrate:
        """What gives the batch statistics of its weights after a cut."""
        config = self.config
        drawn = {"batch_size": config.batch_size, "seed": config.seed, "augment": config.augment}
        return make_recalibrate(self.network, self.dataset, **drawn)

    @property
    def epochs(self) -> list[int]:
        """Those that have a checkpoint of their end."""
        return [epoch for epoch in range(1, self.config.epochs + 1) if self.sampler.end(epoch) in self.saved]


def load_run(directory: Path, data_dir: Path | None = None) -> Run:
    """Reads a run folder; a killed run has what it had at its last checkpoint.

    Of a network that has grown it is the last stage, with what the path had of it before the fine-tuning.
    """
    config = read_config(directory)
    if data_dir is not None:
        config = dataclasses.replace(config, data_dir=data_dir)
    with open_checkpoints(directory) as checkpoints:
        saved = sorted(checkpoints.all_steps())
    if not saved:
        raise RunError(f"{directory} has no checkpoint yet; let it train on, or lower --checkpoint-every.")
    dataset, sampler = load_data(config)
    if isinstance(config, Grow):
        return _grown(directory, config, dataset, sampler, saved[-1:])
    network, params, stats = build_network(config)
    if config.weights is not None:
        params, stats = read_start(directory, params, stats)
    tx = optimizer(config, sampler, penalties(config, sampler, network, params, stats))
    return Run(directory, config, dataset, network, (params, stats), tx, sampler, saved)


def _grown(directory: Path, config: Grow, dataset: Dataset, sampler: Sampler, saved: list[int]) -> Run:
    rows = rounds.rounds(directory)
    if not rows or rows[-1]["end"] is None or saved[-1] <= len(rows):
        raise RunError(f"{directory} has not finished growing; start it again with --run-dir {directory}.")
    stage = make_stage(config, rows[rows[-1]["take"] - 1]["used"].values())
    tx = transformation(stage, sampler)
    return Run(directory, config, dataset, stage.network, (stage.params, stage.stats), tx, sampler, saved)


def read_config(directory: Path) -> Config:
    """The configuration that a run was started with."""
    file = directory / "config.json"
    if not file.exists() or not (directory / "checkpoints").is_dir():
        files = sorted(path.name for path in directory.iterdir())[:8] if directory.is_dir() else None
        contents = "it does not exist" if files is None else f"it holds {', '.join(files) or 'nothing'}"
        raise RunError(
            f"{directory} is not a run folder ({contents}); expected what `python -m experiments train` leaves, "
            "such as runs/digits."
        )
    settings = read_json(file, dict, sealed=False)  # of another version is told first
    found = source(settings.get("dataset", ""))
    if detail := differences(settings, found, found):
        raise RunError(f"{directory} was trained on another text than this Python has ({detail}); take that Python.")
    settings = {name: value for name, value in settings.items() if name not in found}
    try:
        config = (Grow if "tau" in settings else Config).from_settings(settings)
    except (TypeError, ValueError) as error:
        raise RunError(f"{file} was written by another version of the experiments: {error}") from None
    read_json(file)
    check_files(directory)
    return config


def penalised(opt_state) -> list[str]:
    """Names of the parameters that have a penalty."""
    return list(by_name(pm.group_norms(opt_state)))


def others(names, patterns: tuple[str, ...]) -> list[str]:
    """Patterns for `select(protect=...)` that leave only the layers open in whose names one of `patterns` is found."""
    for pattern in patterns:
        if not any(re.search(pattern, name) for name in names):
            raise RunError(f"--layers {pattern}: matches no penalised parameter of {', '.join(names)}.")
    closed = [name for name in names if patterns and not any(re.search(pattern, name) for pattern in patterns)]
    return [f"^{re.escape(name)}$" for name in closed]
