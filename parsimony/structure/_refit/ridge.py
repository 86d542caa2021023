"""Ridge regression towards weights that are there."""

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Fit:
    """Refitted weights, and what share of the squares of a reader's outputs was missing before and after."""

    weights: Any
    before: float
    after: float


def fitted(rows, weights, missing, outputs, gone: np.ndarray, ridge: float) -> Fit:
    """argmin_w' ‖missing − x·(w' − w)‖² + λ‖w' − w‖² over the entries that are left, λ = ridge·mean diag(xᵀx).

    Solved by the normal equations in float64.

    Args:
      rows: x, (places, inputs).
      weights: w, (inputs, outputs), zero where entries are gone.
      missing: what is to come on top of x·w, (places, outputs).
      outputs: what it is measured against, (places, outputs).
      gone: (inputs, outputs), True where an entry stays zero: whole rows and whole columns.
    """
    inputs, columns = ~gone.all(1), ~gone.all(0)
    square, both = np.zeros((inputs.sum(),) * 2), np.zeros((inputs.sum(), columns.sum()))
    before = total = 0.0
    for start in range(0, rows.shape[0], _BLOCK):
        part = slice(start, start + _BLOCK)
        x = np.asarray(rows[part], float)[:, inputs]
        r = np.asarray(missing[part], float)[:, columns]
        square += x.T @ x
        both += x.T @ r
        before += (r**2).sum()
        total += (np.asarray(outputs[part], float)[:, columns] ** 2).sum()
    scale = np.trace(square) / max(len(square), 1)
    if not np.isfinite(scale + before):
        raise ValueError("the activations are not finite")
    new = np.asarray(weights, float)
    if scale == 0 or total == 0:  # nothing is read
        share = before / total if total else 0.0
        return Fit(new, float(share), float(share))
    step = np.linalg.solve(square + ridge * scale * np.eye(len(square)), both)
    new = new.copy()
    new[np.ix_(inputs, columns)] += step
    after = before - 2 * (step * both).sum() + (step * (square @ step)).sum()
    return Fit(new, float(before / total), float(max(after, 0.0) / total))


_BLOCK = 1 << 14
