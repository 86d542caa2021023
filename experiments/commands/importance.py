"""Criteria of importance for the units of trained networks: each cut by each, without and with fine-tuning."""

import dataclasses
import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import tyro

import parsimony as pm

from ..metrics import metric_named
from ..plots.text import aligned, spread
from ..runs.digest import environment
from ..runs.files import free_file, write_json
from ..runs.load import Run, load_run
from ..training import importance as scores_by
from ..training.fit import make_fine_tune
from ..training.network import merge_variables, split_variables
from ..training.recalibration import without
from ..training.step import make_metric, validation_and_test
from ..training.unit_paths import UnitPath, gate_path, weight_path
from .compact import left
from .fine_tuning import FineTuneOptions

Criterion = Literal["magnitude", "activation", "taylor", "gates", "weights", "random"]
PATHS = {"gates": gate_path, "weights": weight_path}
OF_PATH = "of the path"


@dataclasses.dataclass(frozen=True)
class ImportanceOptions(FineTuneOptions):
    """Cuts trained networks by several criteria, whole units, and fine-tunes each cut alike; written to
    RUN/importance.json (importance-2.json, ...), with several runs also their mean and deviation."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of trained runs, such as those of lenet_dense with several seeds."""
    sparsity: tuple[float, ...] = (0.3, 0.5, 0.7)
    """Shares of the units to remove, in (0, 1)."""
    scope: Literal["global", "layer"] = "global"
    """One order of all units (parsimony.structure.choose, with its floor), or an equal share of each layer; of a path,
    also that of its sparsity."""
    criteria: tuple[Criterion, ...] = ("magnitude", "activation", "taylor", "gates", "random")
    """magnitude: of what makes a unit. activation: weights that read it, times the norm of what they read. taylor:
    gradient times gate, squared, a batch at a time. gates, weights: by V of a path on gates, or on the weights."""
    fine_tune: int = 2
    """Epochs after the cut; of a path, those that it has taken are not left for it. The step falls along a cosine."""
    path_epochs: int = 1
    """Epochs of a path."""
    path_sparsity: float = 0.7
    """Share of the units that is outside at the end of a path. Its order serves every cut of the trained weights; cuts
    of at least that share are made of the weights of the path, too."""
    gates_rate: float = 0.05
    """α of the gates, and of the path on the weights."""
    weights_rate: float | None = None
    """α of the weights beside the gates; 0 leaves them as they are. None: a tenth of the run's."""
    pull: float = 2.0
    """How far a unit that the loss does not hold fades until the path is open, e⁻ᵖ."""

    def __post_init__(self):
        super().__post_init__()
        if not self.runs:
            raise ValueError("importance: expected at least one run folder.")
        wrong = [share for share in self.sparsity if not 0 < share < 1]
        if wrong or not self.sparsity:
            raise ValueError(f"--sparsity: expected shares of the units in (0, 1), got {wrong or 'none'}.")
        if not (0 < self.path_sparsity < 1 and self.gates_rate > 0 and (self.weights_rate or 0) >= 0 and self.pull > 0):
            raise ValueError("--path-sparsity must be in (0, 1), --gates-rate and --pull > 0, --weights-rate ≥ 0.")
        if self.fine_tune < 0:
            raise ValueError("--fine-tune must be ≥ 0.")
        if self.path_epochs < 1 or (self.fine_tune < self.path_epochs and self.fine_tune and self._has_path()):
            raise ValueError(
                f"--path-epochs {self.path_epochs}: expected at least 1, and at most the {self.fine_tune} epochs of "
                "--fine-tune, which include them."
            )

    def _has_path(self) -> bool:
        return bool(set(PATHS) & set(self.criteria))


def importance(arguments: ImportanceOptions) -> list[dict]:
    """Makes the cuts of each run; prints and writes them."""
    runs = [load_run(directory, arguments.data_dir) for directory in arguments.runs]
    results = []
    for run in runs:
        result = _of_run(run, arguments)
        file = free_file(run.directory, "importance")
        write_json(file, result)
        results.append(result)
        print(f"written: {file}", flush=True)
    print(table(results))
    return results


def _of_run(run: Run, arguments: ImportanceOptions) -> dict[str, Any]:
    params, stats, _ = run.at()
    variables = merge_variables(params, stats)
    units = pm.structure.find_units(run.network.fn, variables, run.dataset.example)
    metric, measure = run.dataset.metric, make_metric(run.network.fn, run.dataset)
    cut, tune = _cutting(run, units), _tuning(run, arguments, variables)
    rows = []
    for criterion in arguments.criteria:
        order, starts, taken = _order(criterion, run, units, arguments)
        for sparsity in arguments.sparsity:
            keep = pm.structure.choose(units, variables, order=order, sparsity=sparsity, scope=arguments.scope)
            size = {name: number for name, (_, number) in left(units, keep).items()}
            for weights, start in starts.items():
                if weights == OF_PATH and sparsity < arguments.path_sparsity:
                    continue  # more units are out of them already
                masks, *state = cut(keep, *start)
                for epochs in sorted({0, arguments.fine_tune}):
                    if epochs:
                        state = tune(epochs - taken)(*state, masks)
                    found = validation_and_test(measure, merge_variables(*state), run.dataset)
                    row = {"criterion": criterion, "weights": weights, "sparsity": sparsity, "fine_tune": epochs}
                    rows.append(row | {"kept": size} | found)
                    print(
                        f"{run.directory.name}: {criterion}, weights {weights}, {sparsity:g}, fine-tuned {epochs}: "
                        f"validation {metric.text(found['validation'])}",
                        file=sys.stderr,
                    )
    result = {"run": str(run.directory), "checkpoint": run.saved[-1], "seed": run.config.seed}
    result |= {name: value for name, value in vars(arguments).items() if name not in ("runs", "data_dir")}
    result |= {"learning_rate": arguments.learning_rate or run.config.learning_rate, "metric": metric.name}
    result["units"] = {name: unit_set.size for name, unit_set in units.sets.items()}
    result |= {"dense": validation_and_test(measure, variables, run.dataset), "rows": rows}
    return result | environment()


def _order(criterion: Criterion, run: Run, units: pm.structure.Units, arguments: ImportanceOptions):
    """(order of the units, {whose weights: (params, stats)} to cut, epochs that it has taken)."""
    params, stats, _ = run.at()
    variables = merge_variables(params, stats)
    trained = {"trained": (params, stats)}
    if criterion in PATHS:
        rate = run.config.learning_rate / 10 if arguments.weights_rate is None else arguments.weights_rate
        options = UnitPath(
            arguments.path_epochs, arguments.gates_rate, arguments.pull, arguments.path_sparsity, arguments.scope, rate
        )
        order, *after = PATHS[criterion](run, units, params, stats, options)
        return order, trained | {OF_PATH: after}, arguments.path_epochs
    if criterion == "magnitude":
        return scores_by.magnitude(units, variables), trained, 0
    if criterion == "random":
        return scores_by.draw(units, run.config.seed), trained, 0
    return (
        {"activation": scores_by.activation, "taylor": scores_by.taylor}[criterion](run, units, variables),
        trained,
        0,
    )


def _cutting(run: Run, units: pm.structure.Units):
    """cut(keep, params, stats) → (masks of the params, params, stats of their own) without the other units."""
    recalibrated = run.recalibrate()

    def cut(keep, params, stats):
        variables, _ = without(units, keep, params, stats, recalibrated)
        zeroed, own = split_variables(variables, stats)
        ones = jax.tree.map(lambda leaf: np.ones(np.shape(leaf), np.float32), variables)
        masks = split_variables(units.zero(keep, ones), stats)[0]
        return jax.tree.map(lambda mask: np.asarray(mask) > 0, masks), zeroed, own

    return cut


def _tuning(run: Run, arguments: ImportanceOptions, variables) -> Callable[[int], Callable]:
    """tune(epochs): the fine-tuning of so many, compiled once."""
    network = arguments.student(run.network, run, variables)
    rate, compiled = arguments.learning_rate or run.config.learning_rate, {}

    def tune(epochs: int):
        if epochs not in compiled:
            compiled[epochs] = make_fine_tune(network, run.dataset, run.config, rate, epochs, run.config.seed + 1)
        return compiled[epochs]

    return tune


def table(results: Sequence[dict]) -> str:
    """The metric on the test examples: a row a criterion, a column a sparsity; of several runs mean ± deviation."""
    first, metric = results[0], metric_named(results[0])
    cell = functools.partial(spread, scale=metric.scale)
    kinds = list(dict.fromkeys((row["fine_tune"], row["criterion"], row["weights"]) for row in first["rows"]))
    dense = [result["dense"]["test"] for result in results]
    runs = f"{len(results)} run{'s' * (len(results) > 1)}"
    title = f"test {metric.label}, {first['scope']}, {runs}; dense {cell(dense)}"
    lines = [["criterion", *(f"{share:.0%}" for share in first["sparsity"])]]
    for epochs, criterion, weights in sorted(kinds, key=lambda kind: kind[0]):
        cells = []
        for share in first["sparsity"]:
            wanted = {"criterion": criterion, "weights": weights, "fine_tune": epochs, "sparsity": share}
            found = [row["test"] for result in results for row in result["rows"] if wanted.items() <= row.items()]
            cells.append(cell(found) if found else "")
        of_path = "" if weights == "trained" else f", weights {weights}"
        lines.append([f"{criterion}{of_path}{f', fine-tuned {epochs}' if epochs else ''}", *cells])
    return f"{title}\n{aligned(lines)}"
