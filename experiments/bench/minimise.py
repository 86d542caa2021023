"""`python -m experiments.bench minimise`: single zeros of a sparse training as a small dense network."""

import dataclasses
import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import parsimony as pm

from ..comparison.setup import make_setup
from ..configs import load
from ..training.network import merge_variables
from ..training.step import make_metric
from ..training.sweep import train
from .timing import in_turn, ratio


def minimise(
    sparsity: float = 0.99, seeds: int = 3, epochs: int = 12, rounds: int = 20, data_dir: Path | None = None
) -> None:
    """LeNet-300-100 on MNIST, trained by `linbreg` as `compare_lenet300_equal` did, and minimised.

    Args:
      sparsity: share of the kernels' weights that is zero.
      seeds: trainings.
      epochs: of each.
      rounds: timed rounds; in each, both networks take their turn.
      data_dir: where TFDS keeps its data.
    """
    name = "compare_lenet300_equal"
    record = json.loads((Path(__file__).parents[1] / "results" / name / "record.json").read_text())
    (setting,) = (row["setting"] for row in record["rows"] if row["method"] == "linbreg")
    config = dataclasses.replace(load("compare", name).config, methods=("linbreg",), epochs=epochs, data_dir=data_dir)
    setup = make_setup(config)
    image = jax.ShapeDtypeStruct((1, *setup.dataset.shape), "float32")
    images = jnp.asarray(setup.dataset.normalised(next(setup.dataset.test.parts(128)).inputs))
    print(f"{jax.devices()[0].device_kind}, JAX {jax.__version__}; linbreg at {sparsity:.1%} zeros, {setting}")
    for seed in range(seeds):
        numbers = {key: np.float32(value) for key, value in (setting | {"sparsity": sparsity}).items()}
        ((params, stats, _),) = train(
            setup.sweep_of("linbreg"), [numbers | {"seed": np.int32(seed)}], [setup.start(seed)]
        )
        variables = merge_variables(params, stats)
        small = pm.structure.minimise(setup.network.fn, variables, None, image)
        rows = {"sparse": (setup.network.fn, variables), "small": (small.fn, small.params)}
        counts = {row: pm.structure.count(*pair, image) for row, pair in rows.items()}
        accuracy = lambda fn, weights: make_metric(fn, setup.dataset)(weights, setup.dataset.test)
        scores = {row: accuracy(*pair) for row, pair in rows.items()}
        calls = {row: functools.partial(jax.jit(fn), weights, images) for row, (fn, weights) in rows.items()}
        speed, low, high = ratio(in_turn(calls, rounds), "sparse", "small")
        widths = ", ".join(f"{key} {int(mask.sum())}/{len(mask)}" for key, mask in small.keep.items())
        print(
            f"  seed {seed}: {widths}; bytes {counts['sparse'].bytes:,} → {counts['small'].bytes:,} "
            f"({counts['sparse'].bytes / counts['small'].bytes:.1f} × fewer), multiply-adds {counts['small'].macs:,} "
            f"({counts['sparse'].macs / counts['small'].macs:.1f} × fewer); test accuracy {scores['sparse']:.2%} → "
            f"{scores['small']:.2%}; batch 128: {speed:.2f} × as fast ({low:.2f}–{high:.2f})",
            flush=True,
        )
