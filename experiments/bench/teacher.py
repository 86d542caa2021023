"""`python -m experiments.bench teacher`: the widths that growth finds for tasks whose right widths are known.

A teacher network of three hidden layers, all of whose units count, makes the targets: orthogonal kernels, and each unit
rectified and standardised. A student starts with four units a layer and grows, without a normalisation or with one
before each activation.
"""

import dataclasses
import functools
import math
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

import parsimony as pm

INPUTS, OUTPUTS, EXAMPLES = 16, 6, 4096
LAYERS = ("layer1", "layer2", "layer3")


@dataclasses.dataclass(frozen=True)
class Round:
    """How a student is trained between two growths."""

    steps: int = 800
    batch: int = 256
    rate: float = 0.05
    pull: float = 3.0
    open_by: float = 0.8


def teacher(widths: tuple[int, ...] = (12, 4, 8), seeds: int = 2, rounds: int = 16, noise: float = 0.1) -> None:
    """Prints, for each seed with and without normalisation, the units in use after every round.

    Args:
      widths: of the teacher's three layers.
      seeds: of teacher, data and student.
      rounds: at most.
      noise: standard deviation of what is added to the targets, whose own is 1.
    """
    print(f"{jax.devices()[0].device_kind}, JAX {jax.__version__}; the teacher has {'-'.join(map(str, widths))} units")
    for normalised in (False, True):
        for seed in range(seeds):
            begin = time.perf_counter()
            found, loss = _grown(task(widths, seed, noise), normalised, seed, rounds)
            kind = "normalised" if normalised else "plain"
            print(f"{kind:10s} seed {seed}: {found}, loss {loss:.4f}, {time.perf_counter() - begin:.0f} s", flush=True)


def task(widths: tuple[int, ...], seed: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """(inputs, targets) of a teacher of these widths."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(EXAMPLES, INPUTS))
    h = x
    for number, size in enumerate((*widths, OUTPUTS)):
        h = h @ np.linalg.qr(rng.normal(size=(max(h.shape[1], size),) * 2))[0][: h.shape[1], :size]
        h = (h - h.mean(0)) / h.std(0)
        h = np.maximum(h, 0) if number < len(widths) else h
    return x.astype(np.float32), (h + noise * rng.normal(size=h.shape)).astype(np.float32)


def student(params, x, normalised: bool):
    """The outputs of a student."""
    for name in LAYERS:
        x = x @ params[name]["kernel"]
        if normalised:
            x = params[name]["scale"][None] * (x - x.mean(0, keepdims=True)) / jnp.sqrt(x.var(0, keepdims=True) + 1e-5)
        x = jax.nn.relu(x + params[name]["bias"][None])
    return x @ params["out"]["kernel"] + params["out"]["bias"][None]


def start(key, width: int, normalised: bool):
    """Parameters of a student."""
    sizes, params = [INPUTS, *[width] * len(LAYERS), OUTPUTS], {}
    names = (*LAYERS, "out")
    for name, inputs, outputs, each in zip(names, sizes, sizes[1:], jax.random.split(key, len(names)), strict=False):
        kernel = jax.random.normal(each, (inputs, outputs)) * math.sqrt(2 / inputs)
        params[name] = {"kernel": kernel, "bias": jnp.zeros(outputs)}
        if normalised and name != "out":
            params[name]["scale"] = jnp.ones(outputs)
    return params


def _grown(data, normalised: bool, seed: int, rounds: int) -> tuple[str, float]:
    """The widths in use at the end, and the loss on all examples."""
    x, y = data
    fn = functools.partial(student, normalised=normalised)
    loss = lambda params, x, y: jnp.mean(jnp.square(fn(params, x) - y))
    gradient = lambda fn, params: jax.jit(jax.grad(loss))(params, x, y)
    params, widths, history = start(jax.random.key(seed), 4, normalised), {}, []
    for number in range(rounds):
        units = pm.structure.find_units(fn, params, x[:2])
        if widths:
            key = jax.random.fold_in(jax.random.key(seed), number)
            params = pm.structure.grow(units, widths, params, key=key, gradient=gradient).params
            units = pm.structure.find_units(fn, params, x[:2])
        params = _trained(units, params, data, loss, np.random.default_rng([seed, number]), number == 0)
        used = pm.structure.used_units(units, params)
        history.append("-".join(f"{mask.sum()}/{len(mask)}" for mask in used.values()))
        print(f"  {history[-1]}, loss {float(loss(params, x, y)):.4f}", flush=True)
        params = pm.structure.compact(units, used, params).params
        without = pm.structure.find_units(fn, params, x[:2])
        shares = {name: float(mask.mean()) for name, mask in used.items()}
        widths = pm.structure.next_widths(without, shares, step=2, ratio=0.25)
    return "-".join(str(own.size) for own in without.sets.values()), float(loss(params, x, y))


def _trained(units, params, data, loss, rng, first: bool, how: Round = Round()):
    """Parameters after a path on what reads the units; at `first` all of them are in from its start."""
    x, y = data
    alpha = optax.cosine_decay_schedule(how.rate, how.steps, alpha=0.02)
    pace = pm.pace(alpha, how.steps, 0.0, open_by=how.open_by, pull=how.pull, finish=False)
    if first:
        pace["sparsity"] = lambda count: 0.0
    penalty = pm.structure.unit_penalty(units, of="readers")
    tx = pm.split_lbi(alpha, penalty=pm.Rules([("", penalty)]), momentum=0.9, weight_decay=1e-4, **pace)

    @jax.jit
    def step(params, state, x, y):
        updates, state = tx.update(jax.grad(loss)(params, x, y), state, params)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for _ in range(how.steps):
        batch = rng.integers(0, len(x), how.batch)
        params, state = step(params, state, x[batch], y[batch])
    return params
