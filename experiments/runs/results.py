"""What a run folder holds beside the training: its record, and the results of the commands on it."""

from pathlib import Path
from typing import Any

from ..growth.config import Grow
from ..metrics import ACCURACY, Metric
from .files import read_json
from .load import Run

NUMBER = (int, float)
WHERE = ("commit", "versions", "python", "devices", "cpu_count", "digest")
"""Keys of a record that say where a run took place, and what came of it."""
TRAINED = {
    "final": {"test_accuracy": NUMBER, "test_sparse_accuracy": NUMBER, "seconds": NUMBER},
    "curve": [{"total_density": NUMBER}],
    **dict.fromkeys(WHERE, object),
}
GROWN = {"final": {"parameters": int, "test": {"grown": NUMBER, "fine-tuned": NUMBER}, "seconds": NUMBER}}
SCORES = {"validation": NUMBER, "test": NUMBER}
SIZE = dict.fromkeys(("parameters", "macs", "bytes on disk"), NUMBER)
MEASURED = {"size": {**SIZE, "bytes": NUMBER}, "latency": {"1": NUMBER, "128": NUMBER}}
SHAPES = {
    "prune": {
        "layers": [str], "sparsity": [NUMBER], "orders": [str], "scope": str, "level": str, "fine_tune": int,
        "learning_rate": NUMBER, "checkpoint": int, "dense": SCORES,
        "rows": [{"order": str, "sparsity": NUMBER, "fine_tune": int, **SCORES}],
    },
    "importance": {
        "sparsity": [NUMBER], "criteria": [str], "scope": str, "fine_tune": int, "dense": SCORES, "units": {str: int},
        "rows": [{
            "criterion": str, "weights": str, "sparsity": NUMBER, "fine_tune": int, "kept": {str: int}, **SCORES,
        }],
    },
    "ticket": {
        "at_epoch": int, "masked_sparsity": NUMBER, "kept": dict, "rewind": str, "epochs": int,
        "dense": SCORES, "ticket": SCORES, "random": SCORES,
    },
    "compact": {
        "accuracy": {"whole": SCORES, "cut": SCORES, "sparse W̃": SCORES}, "route": str,
        "units": {str: [int, int]}, "size": {"whole": SIZE, "cut": SIZE},
        "latency": {str: {"whole": NUMBER, "cut": NUMBER, "speed": [NUMBER, NUMBER, NUMBER]}},
        "equality": {"relative error": NUMBER, "same answers": NUMBER},
    },
    "family": {
        "target": str, "fine_tune": int, "tuning": str, "chosen": (*NUMBER, type(None)),
        "whole": {**MEASURED, "accuracy": SCORES},
        "members": [{"budget": NUMBER, **MEASURED, "accuracy": {str: SCORES}}],
        "cost": {str: {"steps": NUMBER, "seconds": NUMBER, "compile_seconds": NUMBER}},
    },
    "stop": {
        "rule": str, "sparsity": NUMBER,
        "point": {
            "epoch": int, "time": NUMBER, "total_density": NUMBER, "accuracy": NUMBER, "sparse_accuracy": NUMBER,
            "groups": dict,
        },
    },
}  # fmt: skip


def of(directory: Path, command: str, metric: Metric = ACCURACY) -> list[dict]:
    """The results of a command on a run, COMMAND.json, COMMAND-2.json, …, in the order in which they were made."""
    found = [path for path in directory.glob(f"{command}*.json") if _number(path, command)]
    shape = _by_name(SHAPES[command], metric)
    return [read_json(path, shape) for path in sorted(found, key=lambda path: _number(path, command))]


def _by_name(shape: Any, metric: Metric) -> Any:
    """A shape with the name of the metric in its keys, in the place of the accuracy's."""
    if isinstance(shape, dict):
        name = lambda key: key.replace(ACCURACY.name, metric.name) if isinstance(key, str) else key
        return {name(key): _by_name(part, metric) for key, part in shape.items()}
    return [_by_name(part, metric) for part in shape] if isinstance(shape, list) else shape


def _number(path: Path, command: str) -> int:
    """1 for COMMAND.json, 2 for COMMAND-2.json; 0 for the file of something else."""
    rest = path.stem.removeprefix(command)
    return 1 if not rest else int(rest[1:]) if rest[0] == "-" and rest[1:].isdigit() else 0


def record(run: Run) -> dict | None:
    """What a finished run has recorded."""
    file = run.directory / "record.json"
    shape = GROWN if isinstance(run.config, Grow) else _by_name(TRAINED, run.dataset.metric)
    return read_json(file, shape) if file.exists() else None
