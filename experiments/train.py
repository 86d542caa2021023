"""Training along the path: Split LBI with momentum in a `pmap` data-parallel loop."""

import math
import time
from pathlib import Path

import flax.jax_utils
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import nnx
from tqdm import tqdm

import parsimony as pm

from . import data, models, pictures
from .config import Config
from .record import RunError, append_curve, digest, environment, open_run, read_curve, write_json


def train(name: str, config: Config) -> Path:
    """Trains, or resumes, a run; leaves its record, checkpoint and pictures in its folder and returns that."""
    start = time.perf_counter()
    devices = jax.local_device_count()
    if config.batch_size % devices:
        raise RunError(f"batch_size {config.batch_size} does not divide among {devices} devices.")
    dataset = data.load(config.dataset, config.validation, config.data_dir)
    steps = len(dataset.train) // config.batch_size
    if steps == 0:
        raise RunError(f"batch_size {config.batch_size} is more than the {len(dataset.train)} training images.")
    network = models.models[config.model]
    if dataset.train.images.shape[1] != network.image_size:
        raise RunError(f"model {config.model} takes images of another size than {config.dataset} has.")
    directory = open_run(name, config)

    graphdef, variables = nnx.split(network(rngs=nnx.Rngs(config.seed)), nnx.Param)
    params = nnx.to_pure_dict(variables)
    tx = optimizer(config, steps)
    opt_state = tx.init(params)
    checkpoints = ocp.CheckpointManager(
        (directory / "checkpoints").absolute(), options=ocp.CheckpointManagerOptions(max_to_keep=2)
    )
    done = checkpoints.latest_step() or 0
    if done:
        restored = checkpoints.restore(done, args=ocp.args.StandardRestore({"params": params, "opt_state": opt_state}))
        params, opt_state = restored["params"], restored["opt_state"]
        print(f"resuming {directory} after epoch {done}")
    curve = read_curve(directory, done)

    step = make_step(graphdef, tx, dataset.maximum)
    accuracy = make_accuracy(graphdef, dataset.maximum)
    images, labels = flax.jax_utils.replicate((dataset.train.images, dataset.train.labels))
    replicas = flax.jax_utils.replicate((params, opt_state))
    bar = tqdm(total=config.epochs * steps, initial=done * steps, unit="step", disable=None, dynamic_ncols=True)
    first_step = None
    for epoch in range(done, config.epochs):
        epoch_start = time.perf_counter()
        losses, previous = [], None
        for index in batches(config, len(dataset.train), epoch).reshape(steps, devices, -1):
            *replicas, loss = step(*replicas, images, labels, index)
            if first_step is None:
                jax.block_until_ready(loss)
                first_step = time.perf_counter() - start
            if previous is not None:  # one step late: the device is never left waiting for the host
                losses.append(_finite(previous, epoch * steps + len(losses), directory, done))
            previous = loss
            bar.update()
        losses.append(_finite(previous, epoch * steps + len(losses), directory, done))
        params, opt_state = flax.jax_utils.unreplicate(tuple(replicas))
        line = {"epoch": epoch + 1, "step": (epoch + 1) * steps, "loss": float(np.mean(losses))}
        line["seconds"] = time.perf_counter() - epoch_start
        line |= snapshot(params, opt_state, lambda p: accuracy(p, dataset.validation))
        append_curve(directory, line)
        curve.append(line)
        if (epoch + 1) % config.checkpoint_every == 0 or epoch + 1 == config.epochs:
            checkpoints.save(epoch + 1, args=ocp.args.StandardSave({"params": params, "opt_state": opt_state}))
            checkpoints.wait_until_finished()
            done = epoch + 1
        accuracies = f"validation W {line['accuracy']:.2%}, W̃ {line['sparse_accuracy']:.2%}"
        report = f"epoch {epoch + 1}/{config.epochs}: loss {line['loss']:.4f}, {accuracies}"
        if bar.disable:
            print(f"{report}, {line['seconds']:.1f} s", flush=True)
        else:
            bar.set_postfix_str(report)
    bar.close()
    checkpoints.close()

    # The test set decides nothing; it is read here, once.
    summary = pm.sparsity_summary(opt_state)
    final = {
        "test_accuracy": accuracy(params, dataset.test),
        "test_sparse_accuracy": accuracy(pm.sparse_params(params, opt_state), dataset.test),
        "seconds": time.perf_counter() - start,
        "seconds_to_first_step": first_step,
    }
    record = {"name": name, "configuration": config.settings(), "seed": config.seed, **environment()}
    record["images"] = {part: len(getattr(dataset, part)) for part in ("train", "validation", "test")}
    record |= {"curve": curve, "sparsity": [row.__dict__ for row in summary], "final": final}
    record["digest"] = digest((params, opt_state))
    for picture in (pictures.path(curve), pictures.accuracy_and_density(curve)):
        picture[1].savefig(directory / picture[0], dpi=110)
    write_json(directory / "record.json", record)
    print(f"\n{summary}\n")
    print(f"test accuracy: W {final['test_accuracy']:.2%}, W̃ {final['test_sparse_accuracy']:.2%}")
    print(f"record, checkpoint and pictures (path.png, accuracy.png): {directory}")
    return directory


def optimizer(config: Config, steps: int) -> optax.GradientTransformationExtraArgs:
    """Split LBI with momentum; α falls by 0.1 at the start of each of `drop_epochs`, of `steps` steps each."""
    schedule = optax.piecewise_constant_schedule(config.learning_rate, {e * steps: 0.1 for e in config.drop_epochs})
    penalty = pm.Rules(
        [
            (r"conv.*kernel", pm.GroupLasso(-1, config.filter_strength, config.filter_scale)),
            (r"dense.*kernel", pm.Lasso(config.weight_strength)),
        ]
    )
    split_lbi = pm.split_lbi(
        schedule,
        config.kappa,
        config.nu,
        penalty,
        momentum=config.momentum,
        weight_decay=config.weight_decay or None,
        dual_learning_rate=lambda count: config.dual_ratio * schedule(count),
    )
    clip = optax.identity() if config.clip_norm == math.inf else optax.clip_by_global_norm(config.clip_norm)
    return optax.chain(clip, split_lbi)


def make_step(graphdef, tx, maximum: int):
    """The compiled data-parallel step: each device takes its share of the batch, and all take the same update."""

    def loss_of(params, images, labels):
        logits = nnx.merge(graphdef, params)(images.astype(jnp.float32) / maximum)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def step(params, opt_state, images, labels, index):
        loss, grads = jax.value_and_grad(loss_of)(params, images[index], labels[index])
        loss, grads = jax.lax.pmean((loss, grads), "devices")
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    # Outputs in the order of the donated inputs: JAX pairs buffers of one shape in order, and a wrong pair is a copy.
    return jax.pmap(step, axis_name="devices", donate_argnums=(0, 1))


def make_accuracy(graphdef, maximum: int, chunk: int = 500):
    """accuracy(params, split): share of a split's images that the network names right, in [0, 1]."""

    @jax.jit
    def correct(params, images, labels):
        logits = nnx.merge(graphdef, params)(images.astype(jnp.float32) / maximum)
        return jnp.sum(jnp.argmax(logits, -1) == labels)

    def accuracy(params, split: data.Split) -> float:
        parts = [slice(i, i + chunk) for i in range(0, len(split), chunk)]
        return sum(int(correct(params, split.images[part], split.labels[part])) for part in parts) / len(split)

    return accuracy


def batches(config: Config, size: int, epoch: int) -> np.ndarray:
    """Indices of an epoch's batches, [steps, batch]: a new order each epoch, the same for the same seed."""
    steps = size // config.batch_size
    order = np.random.default_rng([config.seed, epoch]).permutation(size)
    return order[: steps * config.batch_size].astype(np.int32).reshape(steps, -1)


def snapshot(params, opt_state, accuracy) -> dict:
    """Where the path is: accuracy of W and W̃, density of each penalised parameter, norms of Γ by filter."""
    rows = [row for row in pm.sparsity_summary(opt_state) if row.groups is not None]
    filters = {row.name for row in rows if (row.all_groups or 0) < row.all_weights}
    norms = {name: values for name, values in by_name(pm.group_norms(opt_state)).items() if name in filters}
    return {
        "time": float(opt_state[1][-1].time),  # of the last link of the chain in the chain of `optimizer`
        "accuracy": accuracy(params),
        "sparse_accuracy": accuracy(pm.sparse_params(params, opt_state)),
        "density": {row.name: row.density for row in rows},
        "groups": {row.name: row.groups for row in rows},
        "gamma_norms": {name: [round(float(x), 5) for x in np.ravel(values)] for name, values in norms.items()},
    }


def by_name(tree) -> dict:
    """{"conv1/kernel": leaf, ...} of a tree of parameters."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _finite(loss, step: int, directory: Path, checkpoint: int) -> float:
    value = float(np.asarray(loss)[0])
    if not math.isfinite(value):
        kept = f"the checkpoint of epoch {checkpoint} is kept" if checkpoint else "there was no checkpoint yet"
        raise RunError(
            f"the loss is {value} at step {step} of {directory}; {kept}. "
            "Try a smaller --learning-rate, or --nu above twice kappa·learning_rate."
        )
    return value
