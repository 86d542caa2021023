"""A growing network at given widths: its units, its cost, and what trains it."""

import dataclasses

import jax
import optax

import parsimony as pm

from .. import models
from ..data.dataset import Dataset
from ..data.sampler import Sampler
from ..training.build import build_network, clip
from ..training.fit import make_fine_tune
from ..training.network import Network, merge_variables, split_variables
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
    example = models.example(config.model, config.image_size)
    units = pm.structure.find_units(network.fn, merge_variables(params, stats), example)
    return Stage(config, network, params, stats, units)


def transformation(stage: Stage, sampler: Sampler, first: bool = False) -> optax.GradientTransformationExtraArgs:
    """What trains a round: a path on what reads the units, on which all have entered by `open_by` of the round.

    In the `first` round all are in from its start: a small network that is pulled before it has learnt anything falls
    to zero, and stays there.
    """
    config, steps = stage.config, sampler.end(stage.config.epochs)
    alpha = optax.cosine_decay_schedule(config.learning_rate, steps, alpha=0.02)
    pace = pm.pace(alpha, steps, 0.0, open_by=config.open_by, pull=config.pull, finish=False)
    if first:
        pace["sparsity"] = lambda count: 0.0
    split_lbi = pm.split_lbi(
        alpha,
        config.kappa,
        penalty=pm.Rules([("", pm.structure.unit_penalty(stage.units, of="readers"))]),
        **pace,
        momentum=config.momentum,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay or None,
    )
    return pm.record_path(optax.chain(clip(config), split_lbi))


def loss_gradient(stage: Stage, dataset: Dataset):
    """gradient(fn, variables) of the loss in training mode, on training images, for arrays of any widths.

    Batch statistics that a network has seen belong to the units that it had; those of a batch are its own.
    """
    part = next(iter(dataset.train.parts(512, (0, 1))))
    images, labels = dataset.normalised(part.inputs), part.labels

    def loss(variables):
        params, stats = split_variables(variables, stage.stats)
        logits, _ = stage.network.forward(params, stats, images, jax.random.key(stage.config.seed))
        return stage.network.loss(logits, labels).mean()

    return lambda fn, variables: jax.jit(jax.grad(loss))(variables)


def trained_without_path(stage: Stage, params, stats, dataset: Dataset, epochs: int, seed: int) -> tuple[dict, dict]:
    """(params, stats) after epochs of SGD without Γ, from `fine_tune_rate` on."""
    fine_tune = make_fine_tune(stage.network, dataset, stage.config, stage.config.fine_tune_rate, epochs, seed)
    return fine_tune(params, stats)
