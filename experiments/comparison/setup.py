"""What all runs of a comparison share, checked before anything is written."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax

import parsimony as pm

from .. import baselines, models
from ..data.dataset import Dataset
from ..data.load import load
from ..errors import RunError, unknown
from ..training.build import build_model, checked_sampler, class_option
from ..training.network import Network, merge_variables
from ..training.recalibration import Recalibrate, make_recalibrate
from ..training.step import make_metric
from ..training.sweep import Sweep
from .config import Comparison
from .methods import METHODS, fine_tuning
from .plan import Plan, filters_of, groups_of, unit_strengths


@dataclasses.dataclass(frozen=True, eq=False)
class Setup:
    """Data, network and compiled steps.

    Attributes:
      together: runs that are trained as one.
      start: seed → (params, stats).
      variables, units: of the network before training; its multiply-adds are counted at other widths.
      parameters, prunable: how many there are in the network as published, of all and of those that are pruned.
      sweep_of: method → its compiled step.
      tuner: the compiled step of the fine-tuning.
      recalibrated: (params, None, stats) → batch statistics of these weights.
      accuracy: (variables, split) → share of right answers.
      narrowed: sparsity → the same for a network without that share of its units.
    """

    config: Comparison
    together: int
    dataset: Dataset
    network: Network
    start: Callable[[int], tuple[dict, dict]]
    variables: dict
    units: pm.structure.Units
    parameters: int
    prunable: int
    sweep_of: Callable[[str], Sweep]
    tuner: Sweep
    recalibrated: Recalibrate
    accuracy: Callable[[Any, Any], float]
    narrowed: Callable[[float], "Setup"]


def make_setup(config: Comparison) -> Setup:
    """Loads the data and builds the network.

    Raises:
      RunError: for what does not fit together.
    """
    check(config)
    dataset = load(config.dataset, config.validation, config.data_dir, config.images, image_size=config.image_size)
    whole = _built(config, dataset)
    narrowed = functools.cache(lambda sparsity: _narrowed(whole, kept_widths(config.model, sparsity)))
    return dataclasses.replace(whole, narrowed=narrowed)


def kept_widths(model: str, sparsity: float) -> tuple[int, ...]:
    """Units of each layer without a share of them, rounded down, at least one.

    Examples:
      >>> kept_widths("resnet8", 0.7)
      (4, 4, 9, 9, 19, 19)
    """
    return tuple(max(1, math.floor((1 - sparsity) * width + 1e-6)) for width in models.published_widths(model))


def _narrowed(whole: Setup, widths: tuple[int, ...]) -> Setup:
    """Shares of zeros are those of the whole network."""
    own = _built(whole.config, whole.dataset, widths=widths)
    return dataclasses.replace(own, parameters=whole.parameters, prunable=whole.prunable)


def _built(config: Comparison, dataset: Dataset, **widths: Any) -> Setup:
    options = class_option(config.model, config.dataset) | widths
    sampler = checked_sampler(dataset, config.dataset, config.model, 0, config.batch_size)
    steps = sampler.end(config.epochs)
    network, params, stats = build_model(config.model, config.tune_seed, **options)
    prunable = [w.size for w in jax.tree.leaves(params) if baselines.prunable(w, config.level)]
    if not prunable:
        counted = baselines.LEVELS[config.level]
        raise RunError(f"model {config.model} has no {counted} to prune; choose another --level.")
    variables = merge_variables(params, stats)
    image = jax.ShapeDtypeStruct((1, *dataset.shape), "float32")
    units = pm.structure.find_units(network.fn, variables, image)
    paced = any(method.startswith("split_lbi_paced") for method in config.methods)
    interval = max(1, round(config.mask_interval * steps))
    plan = Plan(
        steps, config.drops, config.clip_norm, config.level, unit_strengths(params, config.level), interval,
        filters_of(params), groups_of(params, units, config.level) if paced else None,
    )  # fmt: skip
    if "slimming" in config.methods and any(len(names) < 3 for names in plan.filters):
        raise RunError(f"slimming cuts by the scales of normalisations, which {config.model} lacks: choose another.")
    tuning = dataclasses.replace(plan, steps=sampler.end(max(1, config.fine_tune)))
    sweep = lambda epochs, tx: Sweep(network, dataset, epochs, config.batch_size, tx, config.augment)

    def narrowed(sparsity: float) -> Setup:
        raise ValueError(f"this network is narrow already, so it cannot lose {sparsity:.0%} of its units.")

    return Setup(
        config=config,
        together=config.together or (1 if jax.default_backend() == "cpu" else 32),
        dataset=dataset,
        network=network,
        start=lambda seed: build_model(config.model, seed, **options)[1:],
        variables=variables,
        units=units,
        parameters=sum(w.size for w in jax.tree.leaves(params)),
        prunable=sum(prunable),
        sweep_of=functools.cache(lambda name: sweep(config.epochs, functools.partial(METHODS[name].make, plan))),
        tuner=sweep(config.fine_tune, functools.partial(fine_tuning, tuning)),
        recalibrated=make_recalibrate(
            network, dataset, batch_size=config.batch_size, seed=config.tune_seed, augment=config.augment
        ),
        accuracy=make_metric(network.fn, dataset),
        narrowed=narrowed,
    )


def check(config: Comparison) -> None:
    """Raises a RunError for methods, numbers and models that are not there."""
    for method in (*config.methods, *(name.split(".")[0] for name, _ in config.ranges)):
        if method not in METHODS:
            raise RunError(unknown("method", method, METHODS))
        known = [*METHODS[method].search, *METHODS[method].fixed]
        for number in config.ranges_of(method):
            if number not in known:
                raise RunError(f"ranges: {unknown(f'number of {method}', number, known)}")
        if not config.sparsity and not METHODS[method].cuts and method in config.methods:
            raise RunError(f"{method} trains for a sparsity: give --sparsity, or leave it out of --methods.")
    if config.model not in models.models:
        raise RunError(unknown("model", config.model, models.models))
    for method in config.methods:
        if config.level not in METHODS[method].levels:
            level = METHODS[method].levels[0]
            counted = baselines.LEVELS[level]
            raise RunError(f"{method} makes {counted} zero: leave it out of --methods, or choose --level {level}.")
        if METHODS[method].narrow and "widths" not in models.options(config.model):
            raise RunError(f"{method} trains {config.model} of other widths, which it cannot have: leave it out.")
