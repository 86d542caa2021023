"""Snapshots of the path, streamed to disk while a run goes on.

runs/NAME/curve.jsonl            a line a snapshot: step, path time, accuracies, density and groups of each parameter
runs/NAME/snapshots/STEP.npz     norms by group, of Γ ("gamma conv1/kernel") and of W ("weight conv1/kernel")

A killed run keeps what it had; a resumed one drops what came after its checkpoint.
"""

import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

import parsimony as pm

from ..training.network import by_name
from .files import append_line, read_lines, whole_file, write_lines


def density(opt_state) -> dict:
    """Density and groups of each penalised parameter, and the density of all of them together."""
    rows = [row for row in pm.sparsity_summary(opt_state) if row.groups is not None]
    return {
        "density": {row.name: row.density for row in rows},
        "groups": {row.name: row.groups for row in rows},
        "total_density": sum(row.weights for row in rows) / sum(row.all_weights for row in rows),
    }


def append(directory: Path, line: dict, params, opt_state, most_groups: int) -> None:
    """Writes one snapshot: norms first, then the line that makes it count."""
    kinds = {"gamma": pm.group_norms(opt_state), "weight": pm.group_norms(opt_state, params)}
    arrays: Any = {
        f"{kind} {name}": np.asarray(norms, np.float32)
        for kind, tree in kinds.items()
        for name, norms in by_name(tree).items()
        if norms.size <= most_groups
    }
    folder = directory / "snapshots"
    folder.mkdir(exist_ok=True)
    with whole_file(folder / f"{line['step']:08d}.npz") as file:
        np.savez_compressed(file, **arrays)
    append_line(directory / "curve.jsonl", line)


def resume(directory: Path, step: int) -> list[dict]:
    """Keeps the snapshots up to a step and returns their lines; what was measured after the checkpoint is dropped."""
    lines = [line for line in curve(directory) if line["step"] <= step]
    write_lines(directory / "curve.jsonl", lines)
    kept = {f"{line['step']:08d}.npz" for line in lines}
    for path in (directory / "snapshots").glob("*.npz"):
        if path.name not in kept:
            path.unlink()
    return lines


def curve(directory: Path) -> list[dict]:
    """All lines of a run."""
    return read_lines(directory / "curve.jsonl")


def norms(directory: Path, kind: str) -> dict[str, np.ndarray]:
    """{parameter: norms by snapshot and group, [snapshots, groups]}, of "gamma" or "weight"; NaN if damaged."""
    found = [_arrays(directory / "snapshots" / f"{line['step']:08d}.npz", f"{kind} ") for line in curve(directory)]
    names = {name: norms for arrays in found for name, norms in arrays.items()}
    return {
        name: np.stack([arrays.get(name, np.full_like(norms, np.nan)) for arrays in found])
        for name, norms in names.items()
    }


def _arrays(path: Path, prefix: str) -> dict[str, np.ndarray]:
    """What a snapshot holds, by name; nothing, with a warning, where the file is damaged."""
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            return {key.removeprefix(prefix): arrays[key].ravel() for key in arrays.files if key.startswith(prefix)}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        print(f"WARNING: the snapshot {path} is damaged ({error}); pictures leave it out.", file=sys.stderr)
        return {}
