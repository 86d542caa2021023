"""`bench step`: a training step on a CPU beside PyTorch's, and the update of the weights alone.

In each round all take as many steps as the training loop gives to one call, on batches of the same shape: SGD with
momentum in PyTorch, the same in the compiled step of the experiments, and Split LBI with and without a record of its
path; then their updates alone, donated. Without PyTorch (the extra `torch`) ours alone are timed.
"""

import importlib.util
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

import parsimony as pm

from ..data.loader import DeviceLoader, steps_per_call
from ..data.placement import replicate
from ..data.sampler import Sampler
from ..training.build import build_model
from ..training.step import make_step
from .loop import bare, made_up
from .timing import in_turn, ratio
from .update import update_step

TORCH = "SGD in PyTorch"
OPTIMIZERS = {
    "SGD": optax.sgd(0.01, momentum=0.9),
    "Split LBI": pm.split_lbi(0.01, momentum=0.9),
    "Split LBI, recorded": pm.record_path(pm.split_lbi(0.01, momentum=0.9)),
}
Model = Literal["lenet", "resnet20", "vgg16", "lenet300"]


def step(
    models: tuple[Model, ...] = ("lenet", "resnet20", "vgg16", "lenet300"), batch_size: int = 128, rounds: int = 12
) -> None:
    """Time a step and an update, as ratios to PyTorch's with their quartiles.

    Args:
      models: some of these four.
      batch_size: images a step.
      rounds: in each of which all take their turn.
    """
    installed = importlib.util.find_spec("torch") is not None
    device = jax.devices()[0]
    print(f"{jax.device_count()} × {device.device_kind}, JAX {jax.__version__}, batch {batch_size};")
    print(f"medians of {rounds} rounds in which all take their turn; in brackets the quartiles of the ratio")
    for model in models:
        steps, updates = _ours(model, batch_size)
        if installed:
            theirs = _of_torch(model, batch_size)
            steps, updates = {TORCH: _repeated(theirs.step)} | steps, {TORCH: theirs.update} | updates
        for part, turns, number in [("step", steps, steps_per_call()), ("update alone", updates, 1)]:
            print(f"{model}, {part}")
            _show(in_turn(turns, rounds), number)
    if not installed:
        print("Without PyTorch there is nothing to compare with: pip install 'parsimony-lbi[torch]'")


def _ours(model: str, batch_size: int) -> tuple[dict[str, Callable], dict[str, Callable]]:
    """(steps, updates) of SGD and of Split LBI, each a function to time."""
    dataset = made_up(model, batch_size)
    network, params, stats = build_model(model, 0)
    loader = DeviceLoader(dataset.train, Sampler(0, batch_size, batch_size))
    steps, updates = {}, {}
    for name, tx in OPTIMIZERS.items():
        replicas = list(replicate((params, stats, tx.init(params))))
        steps[name] = bare(make_step(network, tx, dataset), replicas, loader, steps_per_call())
        updates[name] = _update(tx, params)
    return steps, updates


def _update(tx: optax.GradientTransformation, params) -> Callable:
    grads = jax.tree.map(lambda leaf: 1e-3 * leaf, params)
    compiled = jax.jit(update_step(tx), donate_argnums=(0, 1))
    carry = [jax.tree.map(jnp.copy, params), tx.init(params)]

    def turn():
        carry[:] = compiled(*carry, grads)
        return carry

    return turn


def _of_torch(model: str, batch_size: int):
    """Training on images of the same kind, after one step, so that there are gradients to update with."""
    from .torch_networks import Training  # here: PyTorch is optional

    dataset = made_up(model, batch_size)
    training = Training(model, dataset.normalised(dataset.train.inputs), dataset.train.labels)
    training.step()
    return training


def _repeated(step: Callable[[], object]) -> Callable[[], list]:
    return lambda: [step() for _ in range(steps_per_call())]


def _show(times: dict[str, list[float]], steps: int) -> None:
    for name, seconds in times.items():
        line = f"  {name:20s} {1e3 * float(np.median(seconds)) / steps:10.3f} ms"
        if TORCH in times:
            speed, low, high = ratio(times, TORCH, name)
            line += f"  {speed:5.2f} × as fast as PyTorch ({low:.2f}–{high:.2f})"
        print(line, flush=True)
