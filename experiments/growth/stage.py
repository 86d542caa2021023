"""A growing network at given widths: its units, its cost, and what trains it."""

import dataclasses
import re
from typing import Any

import optax

import parsimony as pm

from .. import models
from ..data.dataset import Dataset
from ..data.sampler import Sampler
from ..training.build import build_network, optimizer, with_path_speed
from ..training.fit import make_fine_tune
from ..training.network import Network, by_name, merge_variables
from .config import Grow


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
        return {name: unit_set.size for name, unit_set in self.units.sets.items()}

    def cost(self, widths: dict[str, int]) -> pm.structure.Counts:
        """Of the network with other widths, for one image; batch statistics count as parameters."""
        return pm.structure.count_at(self.units, widths, merge_variables(self.params, self.stats))


def make_stage(config: Grow, widths=None, fresh: bool = True) -> Stage:
    """The network of a configuration, at its own widths or at others: one number for each set, in their order.

    Without `fresh` it has only shapes in the place of weights: to make some for every new width takes seconds.
    """
    if widths is not None:
        config = dataclasses.replace(config, widths=tuple(widths))
    network, params, stats = build_network(config, fresh)
    units = pm.structure.find_units(network.fn, merge_variables(params, stats), models.example(config.model))
    return Stage(config, network, params, stats, units)


def strengths(stage: Stage, sampler: Sampler) -> dict[str, float]:
    """For each set the λ for which half of its units would enter within `share` of a round, had W stayed fresh."""
    penalty = _rules(stage, dict.fromkeys(stage.units.sets, 1.0))
    rules: Any = with_path_speed(stage.config, sampler, stage.params, penalty).rules
    return {rule.sets[0][0]: float(rule.strength) for _, rule in rules}  # each rule is that of one set


def transformation(stage: Stage, sampler: Sampler, strength: dict[str, float]) -> optax.GradientTransformationExtraArgs:
    """What trains a round: Split LBI with a penalty for each set, so that none fills because its norms are larger."""
    return optimizer(stage.config, sampler, _rules(stage, strength))


def _rules(stage: Stage, strength: dict[str, float]) -> pm.Rules:
    rules, trained = [], by_name(stage.params)
    for name, lam in strength.items():
        makers = sorted({re.escape(made) for made, _ in stage.units.sets[name].makers if made in trained})
        penalty = pm.structure.unit_penalty(stage.units, lam, stage.config.filter_scale, sets=[name])
        rules.append((f"^({'|'.join(makers)})$", penalty))
    return pm.Rules(rules)


def trained_without_path(stage: Stage, params, stats, dataset: Dataset, epochs: int, seed: int) -> tuple[dict, dict]:
    """(params, stats) after epochs of SGD without Γ, from `fine_tune_rate` on."""
    fine_tune = make_fine_tune(stage.network, dataset, stage.config, stage.config.fine_tune_rate, epochs, seed)
    return fine_tune(params, stats)
