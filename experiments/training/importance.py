"""How important each unit of a trained network is, by several criteria: {set: a number for each unit, smallest first}.

    magnitude     the root mean square of all that makes the unit
    activation    √(Σ_ij W_ij²·E[x_j²]) over the weights that read the unit, x their inputs; of a feature f of queries
                  and keys, which read each other, √(Σ_h E[q_hf²]·E[k_hf²]/d) over the heads h, d features of a head
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
    """Minus the norm of what reads each unit, each part times the root mean square of its input.

    Raises:
      RunError: a set that no product reads.
    """
    powers, scores_of = input_powers(run, variables)
    weights, scores = by_name(variables), {}
    for name, unit_set in units.sets.items():
        readers = [
            (parameter, axis)
            for parameter, axes in unit_set.members.items()
            for axis in axes
            if (parameter, axis) not in unit_set.makers and parameter in powers
        ]
        products = lambda at: np.square(np.asarray(weights[at], np.float64)) * powers[at]
        squares = [unit_set.each(np.add, *place, products(place[0]), 0.0) for place in readers]
        if not readers:
            queries = [place for place in unit_set.makers if place[0] in scores_of]
            squares = [unit_set.each(np.add, *place, scores_of[place[0]], 0.0) for place in queries]
        if not squares:
            raise RunError(f"the criterion activation has no product that reads the units of {name}; leave it out.")
        scores[name] = -np.sqrt(np.sum(squares, axis=0))
    return scores


def input_powers(run: Run, variables) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """({kernel: E[x²] of what it is multiplied by}, {kernel of queries: E[q²]·E[k²]/d of its outputs}).

    Of the kernel's number of axes, 1 long where they are no inputs, or no outputs. The layers hand their products to a
    function of theirs, in whose place one is put that looks at the inputs too.
    """
    found: dict[str, list[np.ndarray]] = {}
    pairs: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    network = nnx.merge(run.network.graphdef, variables)
    for path, module in nnx.iter_modules(network):
        name = "/".join(map(str, (*path, "kernel")))
        if isinstance(module, nnx.Linear | nnx.LinearGeneral):
            module.dot_general = _watched_product(found.setdefault(name, []), module.dot_general)
        elif isinstance(module, nnx.Conv) and module.feature_group_count == 1:
            module.conv_general_dilated = _watched_convolution(found.setdefault(name, []), module.conv_general_dilated)
        elif isinstance(module, nnx.MultiHeadAttention):
            query = "/".join(map(str, (*path, "query", "kernel")))
            module.attention_fn = _watched_attention(pairs.setdefault(query, []), module.attention_fn)
    for images, _ in _batches(run):
        network(jnp.asarray(run.dataset.normalised(images)))
    means = {name: np.mean(each, axis=0) for name, each in pairs.items() if each}  # [2, heads, features]
    of_scores = {name: np.prod(both, axis=0)[None] / both.shape[-1] for name, both in means.items()}
    return {name: np.mean(each, axis=0) for name, each in found.items() if each}, of_scores


def _watched_attention(found: list[tuple[np.ndarray, np.ndarray]], attention):
    power = lambda x: np.asarray(jnp.mean(jnp.square(x.astype(jnp.float32)), range(x.ndim - 2)), np.float64)

    def watched(query, key, *arguments, **options):
        found.append((power(query), power(key)))
        return attention(query, key, *arguments, **options)

    return watched


def _watched_product(found: list[np.ndarray], product):
    def watched(x, kernel, dimensions, **options):
        inputs, taken = dimensions[0]
        others = tuple(axis for axis in range(x.ndim) if axis not in {i % x.ndim for i in inputs})
        power = np.asarray(jnp.mean(jnp.square(x.astype(jnp.float32)), others), np.float64)
        found.append(np.expand_dims(power, [axis for axis in range(kernel.ndim) if axis not in taken]))
        return (product or jax.lax.dot_general)(x, kernel, dimensions, **options)

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
