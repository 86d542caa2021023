"""What a run folder holds beside the training: its record, and the results of the commands on it."""

from pathlib import Path

from ..growth.config import Grow
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
GROWN = {"final": {"parameters": int, "test": {"grown": NUMBER, "W̃": NUMBER}, "seconds": NUMBER}}
ACCURACY = {"validation": NUMBER, "test": NUMBER}
SIZE = dict.fromkeys(("parameters", "macs", "bytes on disk"), NUMBER)
MEASURED = {"size": {**SIZE, "bytes": NUMBER}, "latency": {"1": NUMBER, "128": NUMBER}}
SHAPES = {
    "prune": {
        "layers": [str], "sparsity": [NUMBER], "orders": [str], "scope": str, "level": str, "fine_tune": int,
        "learning_rate": NUMBER, "checkpoint": int, "dense": ACCURACY,
        "rows": [{"order": str, "sparsity": NUMBER, "fine_tune": int, **ACCURACY}],
    },
    "importance": {
        "sparsity": [NUMBER], "criteria": [str], "scope": str, "fine_tune": int, "dense": ACCURACY, "units": {str: int},
        "rows": [{
            "criterion": str, "weights": str, "sparsity": NUMBER, "fine_tune": int, "kept": {str: int}, **ACCURACY,
        }],
    },
    "ticket": {
        "at_epoch": int, "masked_sparsity": NUMBER, "kept": dict, "rewind": str, "epochs": int,
        "dense": ACCURACY, "ticket": ACCURACY, "random": ACCURACY,
    },
    "compact": {
        "accuracy": {"whole": ACCURACY, "cut": ACCURACY, "sparse W̃": ACCURACY}, "route": str,
        "units": {str: [int, int]}, "size": {"whole": SIZE, "cut": SIZE},
        "latency": {str: {"whole": NUMBER, "cut": NUMBER, "speed": [NUMBER, NUMBER, NUMBER]}},
        "equality": {"relative error": NUMBER, "same answers": NUMBER},
    },
    "family": {
        "target": str, "fine_tune": int, "whole": {**MEASURED, "accuracy": ACCURACY}, "chosen": (*NUMBER, type(None)),
        "members": [{"budget": NUMBER, **MEASURED, "accuracy": {str: ACCURACY}}],
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


def of(directory: Path, command: str) -> list[dict]:
    """The results of a command on a run, COMMAND.json, COMMAND-2.json, …, in the order in which they were made."""
    found = [path for path in directory.glob(f"{command}*.json") if _number(path, command)]
    return [read_json(path, SHAPES[command]) for path in sorted(found, key=lambda path: _number(path, command))]


def _number(path: Path, command: str) -> int:
    """1 for COMMAND.json, 2 for COMMAND-2.json; 0 for the file of something else."""
    rest = path.stem.removeprefix(command)
    return 1 if not rest else int(rest[1:]) if rest[0] == "-" and rest[1:].isdigit() else 0


def record(run: Run) -> dict | None:
    """What a finished run has recorded."""
    file = run.directory / "record.json"
    return read_json(file, GROWN if isinstance(run.config, Grow) else TRAINED) if file.exists() else None
