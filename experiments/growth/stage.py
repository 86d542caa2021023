"""The stages of a growing network: what it is at given widths, and the lines in which its rounds are kept.

runs/NAME/rounds.jsonl    a line a round: widths, cost, saturation, held-out accuracy, seconds, and what came next
"""

import dataclasses
import re
from typing import Any

import jax
import optax

import parsimony as pm

from .. import models
from ..config import Grow
from ..data.dataset import Dataset
from ..data.sampler import Sampler
from ..runs.snapshots import by_name
from ..training.build import cosine_sgd, initial, optimizer, paced
from ..training.fit import fit
from ..training.network import Network, merged
from ..training.step import make_step


@dataclasses.dataclass(frozen=True)
class Stage:
    """A network at some widths, with fresh weights, and its units."""

    config: Grow
    network: Network
    params: dict
    stats: dict
    units: pm.structure.Units

    @property
    def widths(self) -> dict[str, int]:
        """{set: number of units}."""
        return {name: own.size for name, own in self.units.sets.items()}

    def cost(self, widths: dict[str, int]) -> pm.structure.Counts:
        """Of the network with other widths, for one image; batch statistics count as parameters."""
        return pm.structure.count_at(self.units, widths, merged(self.params, self.stats))


def stage(config: Grow, widths=None, fresh: bool = True) -> Stage:
    """The network of a configuration, at its own widths or at others: one number for each set, in their order.

    Without `fresh` it has only shapes in the place of weights: to make some for every new width takes seconds.
    """
    if widths is not None:
        config = dataclasses.replace(config, widths=tuple(widths))
    network, params, stats = initial(config, fresh)
    image = jax.ShapeDtypeStruct((1, *models.image_shape(config.model)), "float32")
    return Stage(config, network, params, stats, pm.structure.find_units(network.fn, merged(params, stats), image))


def strengths(now: Stage, sampler: Sampler) -> dict[str, float]:
    """For each set the λ for which half of its units would enter within `share` of a round, had W stayed fresh."""
    rules: Any = paced(now.config, sampler, now.params, _rules(now, dict.fromkeys(now.units.sets, 1.0))).rules
    return {own.sets[0][0]: float(own.strength) for _, own in rules}  # each penalty is that of one set


def transformation(now: Stage, sampler: Sampler, strength: dict[str, float]) -> optax.GradientTransformationExtraArgs:
    """What trains a round: Split LBI with a penalty for each set, so that none fills because its norms are larger."""
    return optimizer(now.config, sampler, _rules(now, strength))


def _rules(now: Stage, strength: dict[str, float]) -> pm.Rules:
    rules, trained = [], by_name(now.params)
    for name, own in strength.items():
        makers = sorted({re.escape(parameter) for parameter, _ in now.units.sets[name].makers if parameter in trained})
        penalty = pm.structure.unit_penalty(now.units, own, now.config.filter_scale, sets=[name])
        rules.append((f"^({'|'.join(makers)})$", penalty))
    return pm.Rules(rules)


def plainly_trained(now: Stage, params, stats, dataset: Dataset, epochs: int, seed: int) -> tuple[dict, dict]:
    """(params, stats) after epochs of SGD without Γ, whose step falls to zero from `fine_tune_rate`."""
    if epochs == 0:
        return params, stats
    config = now.config
    tx = cosine_sgd(config, config.fine_tune_rate, Sampler(seed, len(dataset.train), config.batch_size).end(epochs))
    step = make_step(now.network, tx, dataset, seed=seed, augment=config.augment)
    return fit(step, params, stats, tx.init(params), dataset, epochs, config.batch_size, seed)[:2]
