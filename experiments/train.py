"""Training along the path: Split LBI with momentum, snapshots, checkpoints, and the record at the end."""

import dataclasses
import math
import time
from pathlib import Path
from typing import Any

import flax.jax_utils
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from tqdm import tqdm

import parsimony as pm

from . import data, models, pictures, snapshots, stopping
from .checkpoints import open_checkpoints, restore, save
from .config import Config
from .loop import advance, batches, make_accuracy, make_step
from .network import Network, merged, parts_of
from .record import RunError, digest, environment, open_run, write_json


def train(name: str, config: Config) -> Path:
    """Trains, or resumes, a run; leaves its record, checkpoints and pictures in its folder and returns that."""
    start, where = time.perf_counter(), environment()  # now: the checkout may change while a run goes on
    dataset, steps = load_data(config)
    directory = open_run(name, config)
    network, params, stats = initial(config)
    tx = optimizer(config, steps, penalties(config, steps, network, params, stats))
    opt_state = tx.init(params)
    checkpoints = open_checkpoints(directory)
    done = checkpoints.latest_step() or 0
    if done:
        params, stats, opt_state = restore(checkpoints, done, params, stats, opt_state)
        print(f"resuming {directory} after epoch {done}")
    snapshots.resume(directory, done)

    accuracy = make_accuracy(network.fn, dataset)
    step = make_step(network, tx, dataset, seed=config.seed, augment=config.augment)
    images, labels = flax.jax_utils.replicate((dataset.train.images, dataset.train.labels))
    replicas = flax.jax_utils.replicate((params, stats, opt_state))
    bar = tqdm(total=config.epochs * steps, initial=done * steps, unit="step", disable=None, dynamic_ncols=True)
    first_step, chosen = None, None
    for epoch in range(done, config.epochs):
        epoch_start, count = time.perf_counter(), epoch * steps
        index = batches(config.seed, epoch, len(dataset.train), config.batch_size)
        for part in np.array_split(index, config.snapshots):
            losses = []
            for latest, more in advance(step, replicas, images, labels, part, count):
                replicas = latest
                if first_step is None:
                    first_step = time.perf_counter() - start
                for loss in more:
                    losses.append(_finite(loss, count + len(losses), directory, done))
                bar.update(len(more))
            count += len(part)
            params, stats, opt_state = flax.jax_utils.unreplicate(tuple(replicas))
            line = {"epoch": epoch + 1, "epoch_end": count == (epoch + 1) * steps, "step": count}
            line |= {"loss": float(np.mean(losses)), "seconds": time.perf_counter() - epoch_start}
            line |= {"time": float(np.asarray(lbi_state(opt_state).time))} | snapshots.density(opt_state)
            line["accuracy"] = accuracy(merged(params, stats), dataset.validation)
            sparse = merged(pm.sparse_params(params, opt_state), stats)
            line["sparse_accuracy"] = accuracy(sparse, dataset.validation)
            snapshots.append(directory, line, params, opt_state, config.snapshot_groups)
        report = (
            f"epoch {epoch + 1}/{config.epochs}: loss {line['loss']:.4f}, validation W {line['accuracy']:.2%}, "
            f"W̃ {line['sparse_accuracy']:.2%}, density {line['total_density']:.1%}"
        )
        if bar.disable:
            print(f"{report}, {line['seconds']:.1f} s", flush=True)
        else:
            bar.set_postfix_str(report)
        curve = [line for line in snapshots.curve(directory) if line["epoch_end"]]
        chosen = stopping.point(config.stop, curve, config.validation, config.stop_sparsity, config.patience)
        last = chosen is not None or epoch + 1 == config.epochs
        if _saves(config, epoch + 1) or last:
            save(checkpoints, epoch + 1, params, stats, opt_state)
            done = epoch + 1
            _drop_checkpoints(checkpoints, config, curve)
        if last:
            break
    bar.close()

    # The test set decides nothing; it is read here, once.
    curve = snapshots.curve(directory)
    final = {"epochs": curve[-1]["epoch"], "seconds": time.perf_counter() - start, "seconds_to_first_step": first_step}
    final["test_accuracy"] = accuracy(merged(params, stats), dataset.test)
    final["test_sparse_accuracy"] = accuracy(merged(pm.sparse_params(params, opt_state), stats), dataset.test)
    if chosen is not None:
        own, own_stats, own_state = restore(checkpoints, chosen["epoch"], params, stats, opt_state)
        stopped = accuracy(merged(pm.sparse_params(own, own_state), own_stats), dataset.test)
        final["stopped"] = {"rule": config.stop, **chosen, "test_sparse_accuracy": stopped}
    checkpoints.close()
    summary = pm.sparsity_summary(opt_state)
    record = {"name": name, "configuration": config.settings(), "seed": config.seed, **where}
    record["images"] = {part: len(getattr(dataset, part)) for part in ("train", "validation", "test")}
    record["penalties"] = {pattern: repr(own) for pattern, own in lbi_state(opt_state).penalty.rules}
    record |= {"curve": curve, "sparsity": [row.__dict__ for row in summary], "final": final}
    record["digest"] = digest((params, stats, opt_state) if stats else (params, opt_state))
    for name, figure in (pictures.path(directory), pictures.accuracy_and_density(curve)):
        figure.savefig(directory / name, dpi=110)
    write_json(directory / "record.json", record)
    print(f"\n{summary}\n")
    if chosen is not None:
        print(
            f"stopped by the rule {config.stop}: the model of epoch {chosen['epoch']} has density "
            f"{chosen['total_density']:.1%}, test accuracy W̃ {final['stopped']['test_sparse_accuracy']:.2%}"
        )
    print(f"test accuracy: W {final['test_accuracy']:.2%}, W̃ {final['test_sparse_accuracy']:.2%}")
    print(f"record, checkpoint and pictures (path.png, accuracy.png): {directory}")
    print(f"a page with everything: python -m experiments report {directory}")
    return directory


def load_data(config: Config) -> tuple[data.Dataset, int]:
    """The data of a run and its steps an epoch, checked against the model, the batch and the devices."""
    devices = jax.local_device_count()
    if config.batch_size % devices:
        raise RunError(f"batch_size {config.batch_size} does not divide among {devices} devices.")
    dataset = data.load(config.dataset, config.validation, config.data_dir, config.images)
    steps = len(dataset.train) // config.batch_size
    if steps == 0:
        raise RunError(f"batch_size {config.batch_size} is more than the {len(dataset.train)} training images.")
    if dataset.train.images.shape[1:] != models.image_shape(config.model):
        raise RunError(f"model {config.model} takes images of another size than {config.dataset} has.")
    if config.snapshots > steps:
        raise RunError(f"snapshots {config.snapshots} are more than the {steps} steps of an epoch.")
    return dataset, steps


def initial(config: Config, fresh: bool = True) -> tuple[Network, dict, dict]:
    """(network, params, stats), as the seed makes them; without `fresh` only their shapes and dtypes."""
    options: dict[str, Any] = {"classes": 100} if config.dataset == "cifar100" else {}
    if config.dtype != "float32":
        options["dtype"] = config.dtype
    if config.widths:
        options["widths"] = config.widths
    model = models.models[config.model]
    unknown = set(options) - set(models.options(config.model))
    if unknown:
        raise RunError(f"model {config.model} has no choice of {' and '.join(sorted(unknown))}; leave it as it is.")
    try:
        make = lambda: model(rngs=nnx.Rngs(config.seed), **options)
        return parts_of(make() if fresh else nnx.eval_shape(make))
    except ValueError as error:
        raise RunError(f"model {config.model}: {error}") from None


def rate(config: Config, steps: int) -> optax.Schedule:
    """α: falls by 0.1 at the start of each of `drop_epochs`, of `steps` steps each."""
    return optax.piecewise_constant_schedule(config.learning_rate, {e * steps: 0.1 for e in config.drop_epochs})


def dual_rate(config: Config, steps: int) -> optax.Schedule:
    """The step of V: a multiple of α, or from the first drop on of the α of the start."""
    alpha, finish = rate(config, steps), config.dual_finish
    if finish is None:
        return lambda count: config.dual_ratio * alpha(count)
    drop = min(config.drop_epochs) * steps
    return lambda count: jnp.where(
        jnp.asarray(count) < drop, config.dual_ratio * alpha(count), finish * config.learning_rate
    )


def penalties(config: Config, steps: int, network: Network, params, stats) -> pm.Rules:
    """Filters as groups and the weights of dense layers one by one, or whole units; paced where a share is given."""
    if config.groups == "units":
        images = jax.ShapeDtypeStruct((1, *models.image_shape(config.model)), "float32")
        units = pm.structure.find_units(network.fn, merged(params, stats), images)
        penalty = pm.Rules([("", pm.structure.unit_penalty(units, config.filter_strength, config.filter_scale))])
    else:
        filters = pm.GroupLasso(-1, config.filter_strength, config.filter_scale)
        of_rank = {4: filters, 2: pm.Lasso(config.weight_strength)}
        kernels = {name: leaf.ndim for name, leaf in snapshots.by_name(params).items() if name.endswith("kernel")}
        penalty = pm.Rules([(f"^{name}$", of_rank[rank]) for name, rank in kernels.items() if rank in of_rank])
    return paced(config, steps, params, penalty)


def paced(config: Config, steps: int, params, penalty: pm.Rules) -> pm.Rules:
    """The penalty of strengths that open the path over the training, where a share of it is given."""
    if config.share is None:
        return penalty
    # The pace is that of the path before its finish, which comes after W has found its place.
    speed = dual_rate(dataclasses.replace(config, dual_finish=None), steps)
    return pm.path_speed(params, config.epochs * steps, speed, config.nu, penalty, share=config.share)


def optimizer(config: Config, steps: int, penalty: pm.Rules) -> optax.GradientTransformationExtraArgs:
    """Split LBI with momentum, its path recorded."""
    split_lbi = pm.split_lbi(
        rate(config, steps),
        config.kappa,
        config.nu,
        penalty,
        momentum=config.momentum,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay or None,
        dual_learning_rate=dual_rate(config, steps),
    )
    return pm.record_path(optax.chain(clip(config), split_lbi))


def clip(config: Config) -> optax.GradientTransformation:
    return optax.identity() if config.clip_norm == math.inf else optax.clip_by_global_norm(config.clip_norm)


def cosine_sgd(config: Config, alpha: float, steps: int) -> optax.GradientTransformation:
    """Momentum and decay of a configuration, a step that falls from α to zero along a cosine, and no Γ."""
    rate = optax.cosine_decay_schedule(alpha, steps)
    decay = optax.add_decayed_weights(config.weight_decay)
    return optax.chain(clip(config), decay, optax.sgd(rate, momentum=config.momentum, nesterov=config.nesterov))


def lbi_state(opt_state) -> pm.SplitLBIState:
    """The last link of the chain in the chain of `optimizer`."""
    return opt_state.inner_state[1][-1]


def _saves(config: Config, epoch: int) -> bool:
    # The rules may choose an epoch that lies behind.
    return epoch % config.checkpoint_every == 0 or epoch in config.keep_epochs or config.stop in ("one_se", "sparsity")


def _drop_checkpoints(checkpoints, config: Config, curve: list[dict]) -> None:
    """Keeps the latest two, those kept for good, and those that the rule one_se may still choose."""
    saved = sorted(checkpoints.all_steps())
    keep = {*saved[-2:], *config.keep_epochs}
    if config.stop == "one_se":
        keep |= {line["epoch"] for line in stopping.within_one_error(curve, config.validation)}
    for epoch in set(saved) - keep:
        checkpoints.delete(epoch)


def _finite(loss: float, step: int, directory: Path, checkpoint: int) -> float:
    if not math.isfinite(loss):
        kept = f"the checkpoint of epoch {checkpoint} is kept" if checkpoint else "there was no checkpoint yet"
        raise RunError(
            f"the loss is {loss} at step {step} of {directory}; {kept}. "
            "Try a smaller --learning-rate, or --nu above twice kappa·learning_rate."
        )
    return loss
