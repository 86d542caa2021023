"""Paths from a network that is trained already, and the order of its units that they give.

A path is a training of a few epochs, with the run's momentum and clipping. Its sparsity falls to what is asked for over
the first half of it, and what is then outside is taken out in the second half (`pm.pace`).
"""

import dataclasses
from typing import Any, Literal

import optax

import parsimony as pm

from ..progress import announce
from ..runs.load import Run
from .build import clip, direction
from .fit import fit
from .importance import Scores
from .network import Network, by_name, merge_variables
from .step import make_step


@dataclasses.dataclass(frozen=True)
class UnitPath:
    """A path of so many epochs: α of what is penalised, the pull, the sparsity at the end and whose it is."""

    epochs: int
    learning_rate: float
    pull: float
    sparsity: float
    scope: Literal["layer", "global"]
    weights_rate: float = 0.0
    """α of the weights beside the gates; 0: they stay as they are."""


def gate_path(run: Run, units: pm.structure.Units, params, stats, options: UnitPath) -> tuple[Scores, Any, Any]:
    """(order, params, stats) by V of a path on one gate a unit; the gates are folded into the weights at its end."""
    config = run.config
    gated = pm.structure.gates(units, run.network.forward, params)
    split_lbi = _split_lbi(run, options, gated.penalty())
    step = optax.scale_by_learning_rate(options.weights_rate)
    weights = optax.chain(clip(config), direction(config), step) if options.weights_rate else optax.set_to_zero()
    both: Any = {"gates": split_lbi, "params": weights}
    tx = optax.partition(both, {"gates": "gates", "params": "params"})
    network = Network(run.network.fn, gated.fn)
    theta, stats, state = _trained(run, network, gated.params, stats, tx, options)
    _tell_emptied(pm.support(state)["gates"], options)
    return pm.rank(theta, state)["gates"], gated.fold(theta), stats


def weight_path(run: Run, units: pm.structure.Units, params, stats, options: UnitPath) -> tuple[Scores, Any, Any]:
    """(order, params, stats) by V of a path on the weights, with the units as groups."""
    tx = optax.chain(clip(run.config), _split_lbi(run, options, pm.structure.unit_penalty(units)))
    params, stats, state = _trained(run, run.network, params, stats, tx, options)
    inside = by_name(pm.support(state))
    makers = {name: [place[0] for place in units.sets[name].makers if place[0] in inside] for name in units.sets}
    _tell_emptied({name: inside[of[0]] for name, of in makers.items() if of}, options)
    return pm.structure.rank_units(units, merge_variables(params, stats), state), params, stats


def _tell_emptied(inside: dict[str, Any], options: UnitPath) -> None:
    """Where it is so: a normalisation undoes a factor of all that it reads, and the loss does not hold such a layer."""
    emptied = [name for name, mask in inside.items() if not mask.any()]
    if emptied:
        announce(
            f"WARNING: the path left no unit of {', '.join(emptied)} at a sparsity of {options.sparsity:g}, and its "
            "weights are of no use; give --scope layer, in which the units of a layer compete with each other alone"
        )


def _split_lbi(run: Run, options: UnitPath, penalty) -> optax.GradientTransformation:
    steps = run.sampler.end(options.epochs)
    pace = pm.pace(options.learning_rate, steps, options.sparsity, pull=options.pull, scope=options.scope)
    return pm.split_lbi(options.learning_rate, penalty=penalty, momentum=run.config.momentum, **pace)


def _trained(run: Run, network: Network, params, stats, tx, options: UnitPath):
    config, seed = run.config, run.config.seed + 1
    step = make_step(network, tx, run.dataset, seed=seed, augment=config.augment)
    start = params, stats, tx.init(params)
    return fit(step, *start, run.dataset, options.epochs, config.batch_size, seed)
