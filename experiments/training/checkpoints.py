"""Checkpoints by Orbax: weights, batch statistics, optimizer state, where the training was, and a digest of all that.

A checkpoint cut off while it was written does not count. One whose bytes have changed since is found by its digest.
"""

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from ..errors import RunError
from ..runs.digest import digest
from ..runs.files import free


def open_checkpoints(directory: Path, writing: bool = False) -> ocp.CheckpointManager:
    """Those in the folder of a run. None is dropped by itself: the training decides which are kept."""
    alone = ocp.options.MultiprocessingOptions()
    if jax.process_count() > 1:  # only this process has to do with files, and waits for no other
        mine = jax.process_index()
        alone = ocp.options.MultiprocessingOptions(
            primary_host=mine, active_processes={mine}, barrier_sync_key_prefix=f"process{mine}"
        )
    folder = (directory / "checkpoints").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    options = ocp.CheckpointManagerOptions(
        max_to_keep=None, create=False, cleanup_tmp_directories=writing, multiprocessing_options=alone
    )
    return ocp.CheckpointManager(folder, options=options)


def save(checkpoints: ocp.CheckpointManager, number: int, weights, position: dict[str, Any] | None = None) -> None:
    """Writes weights = (params, stats, opt_state) and a position, JSON, and waits until they are there."""
    where = {"digest": _digest(weights, position), "position": position}
    args = ocp.args.Composite(state=ocp.args.StandardSave(_tree(*weights)), position=ocp.args.JsonSave(where))
    try:
        checkpoints.save(number, args=args)
        checkpoints.wait_until_finished()
    except Exception as error:  # a full disk has many names in Orbax and TensorStore
        kept = [step for step in sorted(checkpoints.all_steps()) if step != number]
        before = f"that of {kept[-1]} is as it was" if kept else "there was none before"
        raise RunError(
            f"checkpoint {number} could not be written to {checkpoints.directory} ({_short(error)}); {before}. Make "
            "room there, then start the run again with the same --run-dir."
        ) from error


def restore(checkpoints: ocp.CheckpointManager, number: int, like) -> tuple[tuple[dict, dict, Any], Any]:
    """((params, stats, opt_state), position) of a checkpoint, of the structure of `like`."""
    args = ocp.args.Composite(state=ocp.args.StandardRestore(_tree(*like)), position=ocp.args.JsonRestore())
    try:
        restored = checkpoints.restore(number, args=args)
        state, where = restored["state"], restored["position"]
        weights = state["params"], state.get("stats", {}), state["opt_state"]
        if _digest(weights, where["position"]) != where["digest"]:
            raise ValueError("its bytes have changed since it was written, or a version with another state wrote it")
    except Exception as error:  # damage has many names in Orbax, TensorStore and JSON
        raise RunError(f"checkpoint {number} in {checkpoints.directory} is damaged: {_short(error)}.") from error
    return weights, where["position"]


def latest(checkpoints: ocp.CheckpointManager, directory: Path, like: Callable[[int], Any]):
    """(number, weights, position) of the last checkpoint that is whole, or None where there has been none.

    `like(number)` has the structure of its weights. Damaged ones are put into DIRECTORY/damaged, with a warning.
    """
    numbers = sorted(checkpoints.all_steps(), reverse=True)
    for number in numbers:
        try:
            return number, *restore(checkpoints, number, like(number))
        except RunError as error:
            aside = directory / "damaged"
            aside.mkdir(exist_ok=True)
            (Path(checkpoints.directory) / str(number)).rename(free(aside, str(number)))
            print(f"WARNING: {error} It now lies in {aside}; the one before it is used.", file=sys.stderr, flush=True)
            checkpoints.reload()
    if numbers:
        raise RunError(f"no checkpoint of {directory} is intact; remove that folder to start from the beginning.")
    return None


def _digest(weights, position) -> str:
    """Of all arrays, and of the position, whose JSON has one form."""
    return hashlib.sha256((digest(weights) + json.dumps(position, sort_keys=True)).encode()).hexdigest()


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _tree(params, stats, opt_state) -> dict:
    tree = {"params": params, "opt_state": opt_state} | ({"stats": stats} if stats else {})
    # With several processes Orbax rejects JAX arrays that only one of them holds.
    return tree if jax.process_count() == 1 else jax.tree.map(np.asarray, tree)
