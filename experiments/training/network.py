"""A network as pure functions of arrays: what is trained, and the running statistics of its normalisations."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx

import parsimony as pm


@dataclasses.dataclass(frozen=True)
class Network:
    """At inference fn(variables, images): logits. In training forward(params, stats, images, key): (logits, new stats).

    loss(logits, labels): of each image; where `forward` gives more than logits, `loss` takes that.

    `params` holds what is trained and `stats` the batch statistics; `variables` is both in one tree
    (`merge_variables`), which the tools of `parsimony.structure` take: a unit has entries in both. All are dicts of
    arrays.
    """

    fn: Callable[..., Any]
    forward: Callable[..., Any]
    graphdef: Any = None
    loss: Callable[..., Any] = optax.softmax_cross_entropy_with_integer_labels


def parts_of(module: nnx.Module) -> tuple[Network, dict, dict]:
    """(network, params, stats) of an NNX module; arrays of other widths run as well."""
    module.eval()
    inference, params, stats = nnx.split(module, nnx.Param, nnx.BatchStat)
    module.train()
    training = nnx.graphdef(module)

    def fn(variables, images):
        return nnx.merge(inference, variables)(images)

    def forward(params, stats, images, key):
        network = nnx.merge(training, merge_variables(params, stats))
        network.set_attributes(nnx.Dropout, rngs=nnx.Rngs(dropout=key), raise_if_not_found=False)
        logits = network(images)
        return logits, nnx.to_pure_dict(nnx.state(network, nnx.BatchStat))

    return Network(fn, forward, inference), nnx.to_pure_dict(params), nnx.to_pure_dict(stats)


def frozen(fn: Callable[..., Any]) -> Network:
    """A function as a network whose statistics stay as they are, in training too: a rewritten program has no others."""
    return Network(fn, lambda params, stats, images, key: (fn(merge_variables(params, stats), images), stats))


def distilled(network: Network, teacher: Callable[[Any], Any], temperature: float, weight: float) -> Network:
    """The network, learning from another one beside the labels (`pm.distillation_loss`); teacher(images): its logits.

    A teacher sees the images that the student sees, as they are augmented.
    """

    def forward(params, stats, images, key):
        logits, stats = network.forward(params, stats, images, key)
        return (logits, teacher(images)), stats

    def loss(answers, labels):
        logits, its_logits = answers
        return pm.distillation_loss(logits, its_logits, labels, temperature, weight)

    return dataclasses.replace(network, forward=forward, loss=loss)


def trainable(network: Network, small: pm.structure.Compact) -> Network:
    """What trains a compact network: the module on its arrays, which goes on averaging its statistics, or its program.

    A rewritten program has the statistics that it was traced with.
    """
    if small.route == "module":
        return network
    assert small.fn is not None  # its units were found in a function
    return frozen(small.fn)


def by_name(tree) -> dict[str, Any]:
    """{"conv1/kernel": leaf, ...} of a tree of parameters."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def equal_arrays(a, b) -> bool:
    """Whether two trees of one structure hold the same numbers."""
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def merge_variables(params: dict, stats: dict) -> dict:
    """One tree of both.

    Examples:
      >>> merge_variables({"norm": {"scale": 1}, "head": 2}, {"norm": {"mean": 0}})
      {'norm': {'scale': 1, 'mean': 0}, 'head': 2}
    """
    both = dict(params)
    for name, part in stats.items():
        both[name] = merge_variables(both.get(name, {}), part) if isinstance(part, dict) else part
    return both


def split_variables(variables: dict, stats: dict) -> tuple[dict, dict]:
    """(params, stats) of a merged tree; `stats` says by its names which is which.

    Examples:
      >>> split_variables({"norm": {"scale": 1, "mean": 0}, "head": 2}, {"norm": {"mean": None}})
      ({'norm': {'scale': 1}, 'head': 2}, {'norm': {'mean': 0}})
    """
    params, statistics = {}, {}
    for name, part in variables.items():
        if name not in stats:
            params[name] = part
        elif not isinstance(part, dict):
            statistics[name] = part
        else:
            inner, statistics[name] = split_variables(part, stats[name])
            if inner:
                params[name] = inner
    return params, statistics
