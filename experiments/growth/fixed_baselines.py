"""Networks that do not grow, next to one that has grown: SGD from the start, the same cost in multiply-adds."""

from typing import Any

from .. import models
from ..data.dataset import Dataset
from ..training.network import merge_variables
from ..training.step import make_metric
from .stage import Stage, make_stage, trained_without_path


def compared(grown: Stage, rows: list[dict[str, Any]], dataset: Dataset) -> list[dict[str, Any]]:
    """A row for the widths that have grown, and one for the published widths scaled to the same size.

    Cost counts forward passes: epochs × multiply-adds of one image, over all rounds and the fine-tuning.
    """
    config = grown.config
    cost = sum(row["epochs"] * row["macs"] for row in rows) + config.fine_tune * grown.cost({}).macs
    baselines = []
    for kind, widths in (("the same widths", grown.widths.values()), ("published proportions", _scaled(grown))):
        stage = make_stage(config, widths)
        size = stage.cost({})
        epochs = max(1, round(cost / size.macs))
        trained = merge_variables(*trained_without_path(stage, stage.params, stage.stats, dataset, epochs, config.seed))
        test = make_metric(stage.network.fn, dataset)(trained, dataset.test)
        row = {"kind": kind, "widths": list(stage.widths.values()), "parameters": size.parameters, "macs": size.macs}
        baselines.append(row | {"epochs": epochs, "test": test})
    return baselines


def _scaled(grown: Stage) -> list[int]:
    """The published widths times the largest factor with which the network is no larger than the grown one."""
    measure = grown.config.compare
    published = models.published_widths(grown.config.model)
    most, names = getattr(grown.cost({}), measure), list(grown.widths)
    at = lambda factor: [max(2, round(factor * width)) for width in published]
    fits = lambda factor: getattr(grown.cost(dict(zip(names, at(factor), strict=True))), measure) <= most
    low, high = 0.0, 1.0
    while fits(high) and high < 64:
        low, high = high, 2 * high
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return at(low)
