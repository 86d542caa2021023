"""Between two rounds: which layers widen and by how much, or why growing ends; and the wider network."""

import re
from typing import Any

import jax

import parsimony as pm

from ..errors import RunError
from ..training.network import merge_variables, split_variables
from .stage import Stage, make_stage


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
    """What comes after the last of the rounds: the widths that are `next`, or the `end`; and the round to take."""
    config, last = stage.config, len(rows)
    best = max(range(last), key=lambda i: (rows[i]["accuracy"], -i)) + 1
    ends = lambda why, take=last: {"next": {}, "end": why, "take": take}
    if last - best >= config.patience:
        return ends(f"held-out accuracy has not improved for {config.patience} rounds", best)
    wanted = _wanted(stage, rows[-1]["saturation"])
    if not wanted:
        return ends("no layer below its cap saturates")
    if last == config.rounds:
        return ends("the rounds are used up")
    if config.minutes is not None and sum(row["seconds"] for row in rows) >= 60 * config.minutes:
        return ends("the time is used up")
    fitting = _fitting(stage, wanted)
    return {"next": fitting, "end": None, "take": last} if fitting else ends("the budget is used up")


def widened(stage: Stage, weights, row: dict[str, Any], tx_of) -> tuple[Stage, tuple[Any, Any, Any]]:
    """The next stage, and (params, stats, opt_state) that compute what those of this one did.

    `tx_of(stage)`: the transformation of a stage.
    """
    params, stats, opt_state = weights
    key = jax.random.fold_in(jax.random.key(stage.config.seed), row["round"])
    wider = pm.structure.grow(stage.units, row["next"], merge_variables(params, stats), opt_state, key=key)
    new = make_stage(stage.config, (row["next"].get(name, size) for name, size in stage.widths.items()), fresh=False)
    params, stats = split_variables(wider.params, stats)
    like = jax.eval_shape(tx_of(new).init, params)  # its penalties are those of the new stage's units
    return new, (params, stats, jax.tree.unflatten(jax.tree.structure(like), jax.tree.leaves(wider.opt_state)))


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
