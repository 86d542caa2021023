"""Between two rounds: what goes, which layers widen and by how much, or why growing ends; and the next network."""

import itertools
import re
from typing import Any

import jax
import numpy as np
import optax

import parsimony as pm

from ..data.dataset import Dataset
from ..errors import RunError
from ..training.network import merge_variables, split_variables
from .stage import Stage, loss_gradient, make_stage


def check(stage: Stage) -> None:
    """Tells of a start that does not fit the rules and the budgets, before any training."""
    config, cost = stage.config, stage.cost({})
    for kind in ("parameters", "macs"):
        budget, size = getattr(config, kind), getattr(cost, kind)
        if budget is not None and size > budget:
            raise RunError(f"{kind}: the budget of {budget:,} is below the {size:,} that the network starts with.")
    if min(config.widths, default=2) < 2:
        raise RunError(f"widths: a layer of one unit cannot grow; start from 2 or more, not {config.widths}.")
    try:
        _wanted(stage, {})
        for pattern, cap in config.caps:
            wide = [name for name in stage.widths if _cap(stage, name) == cap < stage.widths[name]]
            if wide:
                start = stage.widths[wide[0]]
                raise ValueError(f"caps: {cap} for {pattern!r} is below the {start} units that {wide[0]} starts with.")
        more = {name: units.size + 1 for name, units in stage.units.sets.items() if not units.reduced}
        wider = pm.structure.grow(stage.units, more, merge_variables(stage.params, stage.stats), key=jax.random.key(0))
    except ValueError as error:
        raise RunError(str(error)) from None
    if wider.route != "module":
        raise RunError(f"model {config.model} does not run on wider arrays, so it cannot be trained after growing.")
    make_stage(config, stage.widths.values(), fresh=False)  # raises for a model that cannot be made at other widths


def after(stage: Stage, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What comes after the last of the rounds: the widths to grow to, `next`, or the `end`; and the round to take."""
    config, last, row = stage.config, len(rows), rows[-1]
    best = max(range(last), key=lambda i: (rows[i]["accuracy"], -i)) + 1
    ends = lambda why, take=last: {"next": {}, "end": why, "take": take}
    if last - best >= config.patience:
        return ends(f"held-out accuracy has not improved for {config.patience} rounds", best)
    if last == config.rounds:
        return ends("the rounds are used up")
    if config.minutes is not None and sum(row["seconds"] for row in rows) >= 60 * config.minutes:
        return ends("the time is used up")
    if _in_vain(rows):
        return ends("of the units that were added in two rounds none is used")
    without = make_stage(config, row["used"].values(), fresh=False)
    wanted = _wanted(without, row["saturation"])
    fitting = _fitting(without, wanted)
    if fitting or row["used"] != row["widths"]:  # what was full of use before is asked again without the others
        return {"next": fitting, "end": None, "take": last}
    return ends("the budget is used up" if wanted else "no layer below its cap saturates")


def _in_vain(rows: list[dict[str, Any]]) -> bool:
    """Whether in the last two rounds with new units none of these came into use."""
    pairs = [(before["used"], row) for before, row in itertools.pairwise(rows)]
    tried = [(used, row["used"]) for used, row in pairs if any(row["widths"][name] > used[name] for name in used)]
    return len(tried) >= 2 and all(now[name] <= used[name] for used, now in tried[-2:] for name in used)


def used(stage: Stage, params, stats) -> dict[str, np.ndarray]:
    """{set: which of its units are in use}; of the sets that say nothing of that, all."""
    found = pm.structure.used_units(stage.units, merge_variables(params, stats), least=stage.config.least)
    return {name: found.get(name, np.ones(size, bool)) for name, size in stage.widths.items()}


def cut(stage: Stage, weights) -> tuple[Stage, tuple[Any, Any, Any]]:
    """The stage of the units that are in use, and (params, stats, opt_state) without the others."""
    params, stats, opt_state = weights
    keep = used(stage, params, stats)
    if all(mask.all() for mask in keep.values()):
        return stage, weights
    small = pm.structure.compact(stage.units, keep, merge_variables(params, stats), opt_state)
    new = make_stage(stage.config, (int(mask.sum()) for mask in keep.values()), fresh=False)
    return new, (*split_variables(small.params, stats), small.opt_state)


def resized(stage: Stage, weights, row: dict[str, Any], tx_of, dataset: Dataset) -> tuple[Stage, tuple[Any, Any, Any]]:
    """The next stage, and (params, stats, opt_state): without what is not used, and with what is added.

    What is left keeps its weights and its momentum. V begins anew: each round asks again who is needed.

    `tx_of(stage)`: the transformation of a stage.
    """
    stage, (params, stats, opt_state) = cut(stage, weights)
    widths = row["used"] | row["next"]
    more = {name: width for name, width in widths.items() if width > stage.widths[name]}
    if more:
        key = jax.random.fold_in(jax.random.key(stage.config.seed), row["round"])
        chosen: Any = {"candidates": stage.config.candidates}
        if stage.config.candidates > 1:
            chosen["gradient"] = loss_gradient(stage, dataset)
        variables = merge_variables(params, stats)
        wider = pm.structure.grow(stage.units, more, variables, opt_state, key=key, **chosen)
        params, stats = split_variables(wider.params, stats)
        opt_state = wider.opt_state
        stage = make_stage(stage.config, widths.values(), fresh=False)
    fresh = tx_of(stage).init(params)
    momentum = optax.tree.get(opt_state, "trace")
    return stage, (params, stats, fresh if momentum is None else optax.tree.set(fresh, trace=momentum))


def _wanted(stage: Stage, shares: dict[str, float]) -> dict[str, int]:
    config = stage.config
    tau = [*config.tau_of, ("", config.tau)]
    how = {"step": config.step, "ratio": config.ratio, "round_to": config.round_to, "caps": config.caps}
    return pm.structure.next_widths(stage.units, shares, tau=tau, **how)


def _fitting(stage: Stage, wanted: dict[str, int]) -> dict[str, int]:
    """As much of the growth as the budgets hold: always a little more of the layer that is furthest behind."""
    config, start = stage.config, stage.widths
    budgets = {kind: getattr(config, kind) for kind in ("parameters", "macs") if getattr(config, kind) is not None}

    def fits(widths: dict[str, int]) -> bool:
        cost = stage.cost(widths)
        return all(getattr(cost, kind) <= budget for kind, budget in budgets.items())

    if fits(wanted):
        return wanted
    widths, waiting = {name: start[name] for name in wanted}, list(wanted)
    while waiting:
        name = min(waiting, key=lambda n: (widths[n] - start[n]) / (wanted[n] - start[n]))
        more = (widths[name] // config.round_to + 1) * config.round_to
        if more <= wanted[name] and fits(widths | {name: more}):
            widths[name] = more
        else:
            waiting.remove(name)
    return {name: width for name, width in widths.items() if width > start[name]}


def _cap(stage: Stage, name: str) -> int | None:
    return next((cap for pattern, cap in stage.config.caps if re.search(pattern, name)), None)
