"""Networks that do not grow, next to one that has grown: SGD from the start, the same cost in multiply-adds."""

from typing import Any

from . import models
from .data import Dataset
from .loop import fit, make_accuracy, make_step
from .network import merged
from .stages import Stage, stage
from .train import cosine_sgd


def compared(grown: Stage, rows: list[dict[str, Any]], dataset: Dataset, steps: int) -> list[dict[str, Any]]:
    """A row for the widths that have grown, and one for the published widths scaled to the same size.

    Cost counts forward passes: epochs × multiply-adds of one image, over all rounds and the fine-tuning.
    """
    config = grown.config
    cost = sum(row["epochs"] * row["macs"] for row in rows) + config.fine_tune * grown.cost({}).macs
    found = []
    for kind, widths in (("the same widths", grown.widths.values()), ("published proportions", _scaled(grown))):
        now = stage(config, widths)
        own = now.cost({})
        epochs = max(1, round(cost / own.macs))
        test = _trained(now, dataset, epochs, steps)
        row = {"kind": kind, "widths": list(now.widths.values()), "parameters": own.parameters, "macs": own.macs}
        found.append(row | {"epochs": epochs, "test": test})
    return found


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


def _trained(now: Stage, dataset: Dataset, epochs: int, steps: int) -> float:
    """Test accuracy after the training."""
    config = now.config
    tx = cosine_sgd(config, config.fine_tune_rate, epochs * steps)
    step = make_step(now.network, tx, dataset, seed=config.seed, augment=config.augment)
    start = now.params, now.stats, tx.init(now.params)
    params, stats, _ = fit(step, *start, dataset, epochs, config.batch_size, config.seed)
    return make_accuracy(now.network.fn, dataset)(merged(params, stats), dataset.test)
