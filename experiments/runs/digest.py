"""What identifies a result: a digest of all arrays, and where it was computed."""

import hashlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import jax
import numpy as np

import parsimony as pm


def digest(tree) -> str:
    """SHA-256 over all arrays, with their names, dtypes and shapes."""
    sha = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        array = np.asarray(leaf)
        sha.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()


def environment() -> dict:
    """Where the run took place: commit, versions, devices, processor."""
    packages = ("jax", "jaxlib", "optax", "flax", "numpy")
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {
        "commit": _commit(),
        "versions": {"parsimony": pm.__version__, **versions},  # of the checkout, whatever is installed
        "python": platform.python_version(),
        "devices": [f"{device.platform}:{device.device_kind}" for device in jax.devices()],
        "cpu_count": os.cpu_count(),
    }


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
