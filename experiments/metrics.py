"""What is measured of a network: the accuracy of its answers, or the perplexity of the next token.

Its name is the key under which records hold it: "accuracy", "sparse_accuracy", "test_accuracy".
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import optax

from .config import TEXTS


@dataclasses.dataclass(frozen=True)
class Metric:
    """A function of a mean over labels.

    Attributes:
      name: of the metric.
      values: values(logits, labels): a number for each label, 0 where a label is −1, which is none.
      of_mean: the metric, of the mean of these.
      scale, unit: what it is multiplied by and followed by in words and tables.
    """

    name: str
    values: Callable[[Any, Any], Any]
    of_mean: Callable[[float], float]
    scale: int = 1
    unit: str = ""

    @property
    def label(self) -> str:
        """Of an axis or a table.

        Examples:
          >>> ACCURACY.label, PERPLEXITY.label
          ('accuracy (%)', 'perplexity')
        """
        return f"{self.name} ({self.unit})" if self.unit else self.name

    def text(self, value: float, digits: int = 2) -> str:
        """As it is written in a sentence.

        Examples:
          >>> ACCURACY.text(0.98611), PERPLEXITY.text(4.2163)
          ('98.61%', '4.22')
        """
        return f"{self.scale * value:.{digits}f}{self.unit}"

    def of_pair(self, results: Mapping[str, float], kind: str = "") -> str:
        """What W and W̃ have, in a sentence; `kind`: the beginning of the keys.

        Examples:
          >>> ACCURACY.of_pair({"test_accuracy": 0.99, "test_sparse_accuracy": 0.975}, "test_")
          'accuracy W 99.00%, W̃ 97.50%'
        """
        dense, sparse = (self.text(results[f"{kind}{which}{self.name}"]) for which in ("", "sparse_"))
        return f"{self.name} W {dense}, W̃ {sparse}"


def _right(logits, labels):
    return (jnp.argmax(logits, -1) == labels).astype(jnp.float32)


def _surprise(logits, labels):
    nats = optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), jnp.maximum(labels, 0))
    return jnp.where(labels < 0, 0.0, nats)


ACCURACY = Metric("accuracy", _right, float, 100, "%")
PERPLEXITY = Metric("perplexity", _surprise, math.exp)  # of the next token: exp of the mean of −log p


def metric_of(dataset: str) -> Metric:
    """Of a data set by name."""
    return PERPLEXITY if dataset in TEXTS else ACCURACY


def metric_in(line: Mapping[str, Any]) -> Metric:
    """The metric that a line of a curve was measured by."""
    return next(metric for metric in (ACCURACY, PERPLEXITY) if metric.name in line)


def metric_named(result: Mapping[str, Any]) -> Metric:
    """The metric that the result of a command names; of the older ones, which name none, it is the accuracy."""
    return PERPLEXITY if result.get("metric") == PERPLEXITY.name else ACCURACY
