"""Checkpoints by Orbax: weights, batch statistics and optimizer state after an epoch."""

from pathlib import Path

import orbax.checkpoint as ocp


def open_checkpoints(directory: Path) -> ocp.CheckpointManager:
    """Those in the folder of a run. None is dropped by itself: the training decides which are kept."""
    options = ocp.CheckpointManagerOptions(max_to_keep=None)
    return ocp.CheckpointManager((directory / "checkpoints").absolute(), options=options)


def save(checkpoints: ocp.CheckpointManager, epoch: int, params, stats, opt_state) -> None:
    """Writes a checkpoint and waits until it is there."""
    checkpoints.save(epoch, args=ocp.args.StandardSave(_tree(params, stats, opt_state)))
    checkpoints.wait_until_finished()


def restore(checkpoints: ocp.CheckpointManager, epoch: int, params, stats, opt_state):
    """(params, stats, opt_state) after an epoch, of the structure of those given."""
    args = ocp.args.StandardRestore(_tree(params, stats, opt_state))
    restored = checkpoints.restore(epoch, args=args)
    return restored["params"], restored.get("stats", {}), restored["opt_state"]


def _tree(params, stats, opt_state) -> dict:
    return {"params": params, "opt_state": opt_state} | ({"stats": stats} if stats else {})
