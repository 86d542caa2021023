"""How good W and W̃ are: along the path on the held-out examples, at the end on the test examples."""

from typing import Any

import numpy as np
import optax

import parsimony as pm

from ..data.dataset import Dataset
from ..runs import snapshots
from .network import equal_arrays, merge_variables
from .recalibration import Recalibrate


def measured(weights, recalibrated: Recalibrate, metric, dataset: Dataset) -> dict[str, Any]:
    """Where the path is, and how good W and W̃ are on the held-out examples."""
    params, stats, opt_state = weights
    sparse = pm.sparse_params(params, opt_state)
    own = recalibrated(sparse, params, stats)
    line = {"time": float(np.asarray(optax.tree.get(opt_state, "time")))} | snapshots.density(opt_state)
    line[dataset.metric.name] = metric(merge_variables(params, stats), dataset.validation)
    return line | {f"sparse_{dataset.metric.name}": metric(merge_variables(sparse, own), dataset.validation)}


def tested(weights, recalibrated: Recalibrate, metric, dataset: Dataset) -> dict[str, Any]:
    """The test set decides nothing; it is read here alone, at the end.

    W̃ has batch statistics of its own; what it would have with those of W stands beside that.
    """
    params, stats, opt_state = weights
    sparse = pm.sparse_params(params, opt_state)
    own = recalibrated(sparse, params, stats)
    name = dataset.metric.name
    found: dict[str, Any] = {
        f"test_{name}": metric(merge_variables(params, stats), dataset.test),
        f"test_sparse_{name}": metric(merge_variables(sparse, own), dataset.test),
    }
    if equal_arrays(params, sparse):
        found["finished"] = True
    if own is not stats:
        found[f"test_sparse_{name}_statistics_of_W"] = metric(merge_variables(sparse, stats), dataset.test)
    return found
