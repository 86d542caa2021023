"""What identifies a result: a digest of all arrays, and where it was computed."""

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np

import parsimony as pm

from ..errors import RunError
from .files import read_json


def digest(tree) -> str:
    """SHA-256 over all arrays, with their names, dtypes and shapes."""
    sha = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        array = np.asarray(leaf)
        sha.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()


def files_digest(directory: Path) -> dict[str, str]:
    """{file: SHA-256} of what a finished run is read from beside its record: settings, lines, snapshots, start."""
    names = ["config.json", "curve.jsonl", "rounds.jsonl", "start.safetensors"]
    names = [name for name in names if (directory / name).exists()]
    names += sorted(f"snapshots/{path.name}" for path in (directory / "snapshots").glob("*.npz"))
    return {name: hashlib.sha256((directory / name).read_bytes()).hexdigest() for name in names}


def check_files(directory: Path) -> None:
    """Compares the files of a finished run with its record.

    Raises:
      RunError: settings, lines or a start that are not those of the record. (Of a snapshot only the picture suffers.)
    """
    file = directory / "record.json"
    if not file.exists():  # not finished: there is nothing to compare with
        return
    recorded = read_json(file, {"files": dict})["files"] if "files" in read_json(file, dict) else {}
    found = files_digest(directory)
    changed = [name for name, digest in recorded.items() if found.get(name) != digest]
    if wrong := [name for name in changed if name.endswith((".json", ".jsonl", ".safetensors"))]:
        raise RunError(
            f"{directory}: {' and '.join(wrong)} changed or went missing after the run was finished (SHA-256 in "
            "record.json); restore the folder from a copy, or train anew."
        )
    if changed:
        names = ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
        print(f"WARNING: {directory}: {names} changed after the run was finished; see its picture.", file=sys.stderr)


def code_digest() -> str:
    """SHA-256 over the source of the library and of the experiments, and the versions of what they use."""
    sha = hashlib.sha256(json.dumps(_versions()).encode())
    for root in (Path(pm.__file__).parent, Path(__file__).parents[1]):
        for path in sorted(root.rglob("*.py")):
            sha.update(f"{path.relative_to(root.parent)} ".encode() + path.read_bytes())
    return sha.hexdigest()


def environment() -> dict:
    """Where the run took place: commit, versions, devices, processor."""
    return {
        "commit": _commit(),
        "versions": _versions(),
        "python": platform.python_version(),
        "devices": [f"{device.platform}:{device.device_kind}" for device in jax.devices()],
        "cpu_count": os.cpu_count(),
    }


def machine() -> str:
    """What a number was measured on, in a few words: "2 × AMD EPYC, JAX 0.10.2"."""
    device, number = jax.devices()[0], jax.device_count()
    name = device.device_kind
    if device.platform == "cpu":
        listed = Path("/proc/cpuinfo")  # Linux; elsewhere the kind of processor has to do
        lines = listed.read_text().splitlines() if listed.exists() else []
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        name, number = (models or [platform.processor() or platform.machine()])[0], os.cpu_count() or 1
    return f"{number} × {name}, JAX {jax.__version__}"


def _versions() -> dict[str, str]:
    packages = ("jax", "jaxlib", "optax", "flax", "numpy")
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {"parsimony": pm.__version__, **versions}  # of the checkout, whatever is installed


def _commit() -> str | None:
    """Commit of the checkout, with a + where it has changes; None outside a checkout."""
    git = lambda *words: subprocess.run(
        ["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
    )
    try:
        return git("rev-parse", "HEAD").stdout.strip() + (
            "+" if git("status", "--porcelain", "--untracked-files=no").stdout else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return None
