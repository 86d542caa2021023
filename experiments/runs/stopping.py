"""When to stop along a path: rules on the lines of a curve, the same during a training and afterwards.

The sparsest point within one standard error of the best: with n held-out images and the best accuracy a seen so far
(of W or W̃), SE = √(a(1 − a)/n); of the snapshots whose W̃ has at least a − SE, the one of least density. Differences
below one SE cannot be distinguished with n images, so the simpler model is taken.

References:
  Breiman, Friedman, Olshen and Stone, "Classification and Regression Trees" (1984), section 3.4.3.
"""

import math

from ..metrics import ACCURACY, metric_in


def standard_error(accuracy: float, images: int) -> float:
    """Of an accuracy in [0, 1] measured on so many images."""
    return math.sqrt(accuracy * (1 - accuracy) / images)


def has_error(line: dict) -> bool:
    """Whether the error of the metric of a line follows from it: of an accuracy, but of no perplexity."""
    return metric_in(line) is ACCURACY


def within_one_error(curve: list[dict], images: int) -> list[dict]:
    """The lines whose W̃ is within one standard error of the best accuracy of W or W̃."""
    best = max((max(line["accuracy"], line["sparse_accuracy"]) for line in curve), default=0.0)
    return [line for line in curve if line["sparse_accuracy"] >= best - standard_error(best, images)]


def sparsest_within_one_error(curve: list[dict], images: int) -> dict | None:
    """The point of the rule; None while W̃ has not come near W, and of a metric whose error is not known."""
    if not all(map(has_error, curve)):
        return None
    return min(within_one_error(curve, images), key=lambda line: (line["total_density"], line["step"]), default=None)


def point(rule: str, curve: list[dict], images: int, sparsity: float = 0.9, patience: int = 5) -> dict | None:
    """Where a rule ends the path: the line whose model it takes, or None if it has not come to that.

    Args:
      rule: "one_se", "sparsity" or "stable".
      curve: the lines so far, or of a whole run.
      images: held-out images, for "one_se".
      sparsity: for "sparsity": the last line whose W̃ has at least this share of zeros, once the path went past it.
      patience: for "one_se" and "stable": lines that must have followed without a change.
    """
    if rule == "never":
        return None
    for seen in range(1, len(curve) + 1):
        lines = curve[:seen]
        beyond = lines[-1]["total_density"] - (1 - sparsity)
        if rule == "sparsity" and beyond > -1e-9:
            return lines[-2] if seen > 1 and beyond > 1e-9 else lines[-1]
        if rule == "stable" and seen > patience and lines[-1]["total_density"] > 0:
            counts = [line["groups"] for line in lines[-patience - 1 :]]
            if all(count == counts[0] for count in counts):
                return lines[-1]
        if rule == "one_se":
            chosen = sparsest_within_one_error(lines, images)
            if chosen is not None and seen - lines.index(chosen) > patience:
                return chosen
    return None
