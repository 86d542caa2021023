"""How important each unit of a trained network is, by several criteria: {set: a number for each unit, smallest first}.

    magnitude     the root mean square of all that makes the unit
    activation    √(Σ_ij W_ij²·E[x_j²]) over the weights that read the unit, x their inputs
    taylor        Σ over batches of (∂L/∂g_u)², at g = 1
    random        a draw

References:
  Weight times norm of activation: Wanda (arXiv 2306.11695), for single weights; here its root mean square over a unit.
  Gradient times weight, per batch, squared and summed, on gates: Molchanov et al. (arXiv 1906.10771).
"""

import itertools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import parsimony as pm

from ..errors import RunError
from ..runs.load import Run
from .network import by_name

IMAGES = 2048
"""How many training images the criteria of data look at, in whole batches."""

Scores = dict[str, np.ndarray]


def magnitude(units: pm.structure.Units, variables) -> Scores:
    """Minus the root mean square of what makes each unit."""
    return pm.structure.rank_units(units, variables, order="magnitude")


def draw(units: pm.structure.Units, seed: int) -> Scores:
    """A random order."""
    random = np.random.default_rng([2, seed])
    return {name: random.random(unit_set.size) for name, unit_set in units.sets.items()}


def taylor(run: Run, units: pm.structure.Units, variables) -> Scores:
    """Minus the sum of the squared derivatives of the batches' losses by the gates."""
    gated = pm.structure.gates(units, run.network.fn, variables)

    @jax.jit
    def squares(images, labels):
        def loss(gates):
            logits = gated.fn({"gates": gates, "params": variables}, run.dataset.normalised(images))
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        return jax.tree.map(jnp.square, jax.grad(loss)(gated.params["gates"]))

    each = [squares(images, labels) for images, labels in _batches(run)]
    return {name: -np.asarray([one[name] for one in each], np.float64).sum(0) for name in each[0]}


def activation(run: Run, units: pm.structure.Units, variables) -> Scores:
    """Minus the norm of the weights that read each unit, each times the root mean square of its input.

    Raises:
      RunError: a set that no layer reads by a product, such as the features of queries and keys.
    """
    powers = input_powers(run, variables)
    weights, scores = by_name(variables), {}
    for name, unit_set in units.sets.items():
        readers = [
            (parameter, axis)
            for parameter, axes in unit_set.members.items()
            for axis in axes
            if (parameter, axis) not in unit_set.makers and parameter in powers
        ]
        if not readers:
            raise RunError(f"the criterion activation has no layer that reads the units of {name}; leave it out.")
        products = lambda at: np.square(np.asarray(weights[at], np.float64)) * powers[at]
        squares = [unit_set.each(np.add, *place, products(place[0]), 0.0) for place in readers]
        scores[name] = -np.sqrt(np.sum(squares, axis=0))
    return scores


def input_powers(run: Run, variables) -> dict[str, np.ndarray]:
    """{kernel: E[x²] of what it is multiplied by, of its number of axes, 1 long where they are no inputs}.

    The layers hand their products to a function of theirs, in whose place one is put that looks at the inputs too.
    """
    found: dict[str, list[np.ndarray]] = {}
    network = nnx.merge(run.network.graphdef, variables)
    for path, module in nnx.iter_modules(network):
        name = "/".join(map(str, (*path, "kernel")))
        if isinstance(module, nnx.Linear | nnx.LinearGeneral):
            module.dot_general = _watched_product(found.setdefault(name, []), module.dot_general)
        elif isinstance(module, nnx.Conv) and module.feature_group_count == 1:
            module.conv_general_dilated = _watched_convolution(found.setdefault(name, []), module.conv_general_dilated)
    for images, _ in _batches(run):
        network(jnp.asarray(run.dataset.normalised(images)))
    return {name: np.mean(each, axis=0) for name, each in found.items() if each}


def _watched_product(found: list[np.ndarray], product):
    def watched(x, kernel, dimensions, **options):
        inputs, taken = dimensions[0]
        others = tuple(axis for axis in range(x.ndim) if axis not in {i % x.ndim for i in inputs})
        power = np.asarray(jnp.mean(jnp.square(x.astype(jnp.float32)), others), np.float64)
        found.append(np.expand_dims(power, [axis for axis in range(kernel.ndim) if axis not in taken]))
        return product(x, kernel, dimensions, **options)

    return watched


def _watched_convolution(found: list[np.ndarray], convolution):
    def watched(x, kernel, *arguments, **options):
        power = np.asarray(jnp.mean(jnp.square(x.astype(jnp.float32)), range(x.ndim - 1)), np.float64)
        found.append(power[:, None])
        return convolution(x, kernel, *arguments, **options)

    return watched


def _batches(run: Run) -> Iterator[tuple[Any, Any]]:
    """(images, labels) of the first training images."""
    size = run.config.batch_size
    for part in itertools.islice(run.dataset.train.parts(size), max(1, IMAGES // size)):
        yield part.inputs, part.labels
