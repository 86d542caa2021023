"""What all runs of a comparison share, checked before anything is written."""

import dataclasses
import functools
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
from ..training.step import make_accuracy
from ..training.sweep import Sweep
from .config import Comparison
from .methods import METHODS, Plan, fine_tuning, unit_strengths


@dataclasses.dataclass(frozen=True, eq=False)
class Setup:
    """Data, network and compiled steps.

    Attributes:
      together: runs that are trained as one.
      variables, units: of the network before training; its multiply-adds are counted at other widths.
      sweep_of: method → its compiled step.
      tuner: the compiled step of the fine-tuning.
      accuracy: (variables, split) → share of right answers.
    """

    config: Comparison
    together: int
    dataset: Dataset
    network: Network
    variables: dict
    units: pm.structure.Units
    parameters: int
    sweep_of: Callable[[str], Sweep]
    tuner: Sweep
    accuracy: Callable[[Any, Any], float]


def make_setup(config: Comparison) -> Setup:
    """Loads the data and builds the network.

    Raises:
      RunError: for what does not fit together.
    """
    check(config)
    dataset = load(config.dataset, config.validation, config.data_dir, config.images)
    sampler = checked_sampler(dataset, config.dataset, config.model, 0, config.batch_size)
    steps = sampler.end(config.epochs)
    network, params, stats = build_model(config.model, config.tune_seed, **class_option(config.model, config.dataset))
    if not any(baselines.prunable(w, config.level) for w in jax.tree.leaves(params)):
        raise RunError(f"model {config.model} has no {config.level}s to prune; choose another --level.")
    penalty = unit_strengths(params, config.level)
    interval = max(1, round(config.mask_interval * steps))
    plan = Plan(steps, config.drops, config.clip_norm, config.level, penalty, interval)
    tuning = dataclasses.replace(plan, steps=sampler.end(max(1, config.fine_tune)))
    sweep = lambda epochs, tx: Sweep(network, dataset, epochs, config.batch_size, tx, config.augment)
    variables = merge_variables(params, stats)
    image = jax.ShapeDtypeStruct((1, *models.image_shape(config.model)), "float32")
    return Setup(
        config=config,
        together=config.together or (1 if jax.default_backend() == "cpu" else 32),
        dataset=dataset,
        network=network,
        variables=variables,
        units=pm.structure.find_units(network.fn, variables, image),
        parameters=sum(w.size for w in jax.tree.leaves(params)),
        sweep_of=functools.cache(lambda name: sweep(config.epochs, functools.partial(METHODS[name].make, plan))),
        tuner=sweep(config.fine_tune, functools.partial(fine_tuning, tuning)),
        accuracy=make_accuracy(network.fn, dataset),
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
    if config.level == "filter" and "rigl" in config.methods:
        raise RunError("rigl rewires single weights: leave it out of --methods, or choose --level weight.")
