"""What a configuration trains: data and sampler, network, penalties, and Split LBI."""

import collections
import dataclasses
import math
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import parsimony as pm

from .. import models
from ..config import Config
from ..data.dataset import Dataset, classes_of
from ..data.load import load
from ..data.sampler import Sampler
from ..errors import RunError
from .network import Network, by_name, merge_variables, parts_of


def load_data(config: Config) -> tuple[Dataset, Sampler]:
    """The data of a run and the sampler of its batches, checked against the model, the batch and the devices."""
    devices, shape = jax.device_count(), models.input_shape(config.model)
    if config.batch_size % devices:
        raise RunError(f"batch_size {config.batch_size} does not divide among {devices} devices.")
    dataset = load(
        config.dataset,
        config.validation,
        config.data_dir,
        config.images,
        shape[0],
        config.workers,
        image_size=config.image_size,
    )
    sampler = checked_sampler(dataset, config.dataset, config.model, config.seed, config.batch_size)
    steps = sampler.size // sampler.batch_size
    if config.snapshots > steps:
        raise RunError(f"snapshots {config.snapshots} are more than the {steps} whole batches of an epoch.")
    return dataset, sampler


def checked_sampler(dataset: Dataset, name: str, model: str, seed: int, batch_size: int) -> Sampler:
    """The sampler of the batches of a data set, whose images the model takes."""
    sampler = Sampler(seed, len(dataset.train), batch_size)
    if sampler.size < sampler.batch_size:
        raise RunError(f"batch_size {sampler.batch_size} is more than the {sampler.size} training examples.")
    if not models.takes(model, dataset.shape):
        raise RunError(f"model {model} takes inputs of another size than {name} has.")
    return sampler


def build_network(config: Config, fresh: bool = True) -> tuple[Network, dict, dict]:
    """(network, params, stats), as the seed makes them; without `fresh` only their shapes and dtypes."""
    options = class_option(config.model, config.dataset)
    if config.dtype != "float32":
        options["dtype"] = config.dtype
    if config.widths:
        options["widths"] = config.widths
    try:
        return build_model(config.model, config.seed, fresh, **options)
    except ValueError as error:
        raise RunError(f"model {config.model}: {error}") from None


def class_option(model: str, dataset: str) -> dict[str, Any]:
    """What makes a model have as many outputs as a data set has classes; nothing where it has them anyway."""
    classes = classes_of(dataset)
    return {} if models.default_classes(model) == classes else {"classes": classes}


def build_model(model: str, seed: int, fresh: bool = True, **options) -> tuple[Network, dict, dict]:
    """(network, params, stats) of a model by name, with options of its own.

    Raises:
      RunError: an option that the model does not have.
    """
    if unknown := set(options) - set(models.options(model)):
        raise RunError(f"model {model} cannot change {' and '.join(sorted(unknown))}; leave it as it is.")
    make = lambda: models.models[model](rngs=nnx.Rngs(seed), **options)
    return parts_of(make() if fresh else nnx.eval_shape(make))


def lr_schedule(config: Config, sampler: Sampler) -> optax.Schedule:
    """α: falls by 0.1 after each share of the training in `drops`."""
    steps = collections.Counter(sampler.at(share, config.epochs) for share in config.drops)
    scales = {step: 0.1**drops for step, drops in steps.items()}  # of a short run several may come at one step
    return optax.piecewise_constant_schedule(config.learning_rate, scales)


def dual_rate(config: Config, sampler: Sampler) -> optax.Schedule:
    """The step of V: a multiple of α, or from the first drop on of the α of the start."""
    alpha, finish = lr_schedule(config, sampler), config.dual_finish
    if finish is None:
        return lambda count: config.dual_ratio * alpha(count)
    drop = sampler.at(min(config.drops), config.epochs)
    return lambda count: jnp.where(
        jnp.asarray(count) < drop, config.dual_ratio * alpha(count), finish * config.learning_rate
    )


def penalties(config: Config, sampler: Sampler, network: Network, params, stats) -> pm.Rules:
    """Of filters, of all weights one by one, or of whole units; with the speed that a share asks for."""
    groups = config.groups or ("units" if jax.tree.leaves(stats) else "layers")
    of_filters, of_weights = config.filter_strength or 1.0, config.weight_strength or 1.0
    if groups == "units":
        variables, example = merge_variables(params, stats), models.example(config.model, config.image_size)
        units = pm.structure.penalty_of(network.fn, variables, example, strength=of_filters, scale=config.filter_scale)
        penalty = pm.Rules([("", units)])
    else:
        filters, weights = pm.GroupLasso(-1, of_filters, config.filter_scale), pm.Lasso(of_weights)
        of_rank = {4: weights if groups == "weights" else filters, 2: weights}
        kernels = {name: leaf.ndim for name, leaf in by_name(params).items() if name.endswith("kernel")}
        penalty = pm.Rules([(f"^{name}$", of_rank[rank]) for name, rank in kernels.items() if rank in of_rank])
    return with_path_speed(config, sampler, params, penalty)


def with_path_speed(config: Config, sampler: Sampler, params, penalty: pm.Rules) -> pm.Rules:
    """The penalty of strengths that open the path over the training, where a share of it is given.

    Under one sparsity of all layers together it sets how filters and single weights compare.
    """
    share = 0.5 if config.sparsity is not None and config.scope == "global" else config.share
    if share is None:
        return penalty
    # The pace is that of the path before its finish, which comes after W has found its place.
    speed = dual_rate(dataclasses.replace(config, dual_finish=None), sampler)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a normalisation; the training looks whether the path opens
        return pm.path_speed(params, sampler.end(config.epochs), speed, nu(config), penalty, share=share)


def nu(config: Config) -> float:
    """ν of a path that no sparsity paces."""
    return 10.0 if config.nu is None else config.nu


def paced(config: Config, sampler: Sampler) -> dict[str, Any]:
    """What makes the path open by itself, where a sparsity is asked for; else ν alone."""
    if config.sparsity is None:
        return {"nu": nu(config)}
    options: Any = {"open_by": config.open_by, "pull": config.pull, "finish": config.finish, "scope": config.scope}
    try:
        pace = pm.pace(lr_schedule(config, sampler), sampler.end(config.epochs), config.sparsity, **options)
    except ValueError as error:  # of a training of very few steps
        raise RunError(str(error)) from None
    return {**pace} if config.nu is None else {**pace, "nu": config.nu}


def optimizer(config: Config, sampler: Sampler, penalty: pm.Rules) -> optax.GradientTransformationExtraArgs:
    """Split LBI, with momentum or after Adam, its path recorded."""
    alpha, pace = lr_schedule(config, sampler), paced(config, sampler)
    dual = dual_rate(config, sampler)
    last = pm.inverse_scale_space(alpha, config.kappa, penalty=penalty, **pace, dual_learning_rate=dual)
    return pm.record_path(optax.chain(clip(config), decay(config), direction(config), last))


def direction(config: Config) -> optax.GradientTransformation:
    """What a configuration makes of the loss gradient, before the step of length α."""
    if config.optimizer == "adam":
        return optax.scale_by_adam(b1=config.momentum, b2=0.99, nesterov=config.nesterov)
    return optax.trace(config.momentum, config.nesterov)


def decay(config: Config) -> optax.GradientTransformation:
    return optax.add_decayed_weights(config.weight_decay) if config.weight_decay else optax.identity()


def clip(config: Config) -> optax.GradientTransformation:
    return optax.identity() if config.clip_norm == math.inf else pm.clip_by_support_norm(config.clip_norm)
