"""Between two rounds: which layers widen and by how much, or why growing ends; and the wider network."""

import re
from typing import Any

import jax

import parsimony as pm

from ..errors import RunError
from ..training.network import merged, parted
from .stage import Stage, stage


def check(now: Stage) -> None:
    """Tells of a start that does not fit the rules and the budgets, before any training."""
    config, cost = now.config, now.cost({})
    for kind in ("parameters", "macs"):
        budget, own = getattr(config, kind), getattr(cost, kind)
        if budget is not None and own > budget:
            raise RunError(f"{kind}: the budget of {budget:,} is below the {own:,} that the network starts with.")
    if min(config.widths, default=2) < 2:
        raise RunError(f"widths: a layer of one unit cannot grow; start from 2 or more, not {config.widths}.")
    try:
        _wanted(now, {})
        for pattern, cap in config.caps:
            wide = [name for name in now.widths if _cap(now, name) == cap < now.widths[name]]
            if wide:
                raise ValueError(
                    f"caps: {cap} for {pattern!r} is below the {now.widths[wide[0]]} units that {wide[0]} starts with."
                )
        more = {name: own.size + 1 for name, own in now.units.sets.items() if not own.reduced}
        wider = pm.structure.grow(now.units, more, merged(now.params, now.stats), key=jax.random.key(0))
    except ValueError as error:
        raise RunError(str(error)) from None
    if wider.route != "module":
        raise RunError(f"model {config.model} does not run on wider arrays, so that it cannot be trained grown.")
    stage(config, now.widths.values(), fresh=False)  # refuses a model that cannot be made at other widths


def after(now: Stage, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What comes after the last of the rounds: the widths that are `next`, or the `end`; and the round to take."""
    config, last = now.config, len(rows)
    best = max(range(last), key=lambda i: (rows[i]["accuracy"], -i)) + 1
    ends = lambda why, take=last: {"next": {}, "end": why, "take": take}
    if last - best >= config.patience:
        return ends(f"held-out accuracy has not improved for {config.patience} rounds", best)
    wanted = _wanted(now, rows[-1]["saturation"])
    if not wanted:
        return ends("no layer below its cap saturates")
    if last == config.rounds:
        return ends("the rounds are used up")
    if config.minutes is not None and sum(row["seconds"] for row in rows) >= 60 * config.minutes:
        return ends("the time is used up")
    fitting = _fitting(now, wanted)
    return {"next": fitting, "end": None, "take": last} if fitting else ends("the budget is used up")


def widened(now: Stage, weights, row: dict[str, Any], tx_of) -> tuple[Stage, tuple[Any, Any, Any]]:
    """The next stage, and (params, stats, opt_state) that compute what those of this one did.

    `tx_of(stage)`: the transformation of a stage.
    """
    params, stats, opt_state = weights
    key = jax.random.fold_in(jax.random.key(now.config.seed), row["round"])
    wider = pm.structure.grow(now.units, row["next"], merged(params, stats), opt_state, key=key)
    new = stage(now.config, (row["next"].get(name, size) for name, size in now.widths.items()), fresh=False)
    params, stats = parted(wider.params, stats)
    like = jax.eval_shape(tx_of(new).init, params)  # its penalties are those of the new stage's units
    return new, (params, stats, jax.tree.unflatten(jax.tree.structure(like), jax.tree.leaves(wider.opt_state)))


def _wanted(now: Stage, shares: dict[str, float]) -> dict[str, int]:
    config = now.config
    tau = [*config.tau_of, ("", config.tau)]
    how = {"step": config.step, "ratio": config.ratio, "round_to": config.round_to, "caps": config.caps}
    return pm.structure.next_widths(now.units, shares, tau=tau, **how)


def _fitting(now: Stage, wanted: dict[str, int]) -> dict[str, int]:
    """As much of the growth as the budgets hold: always a little more of the layer that is furthest behind."""
    config, start = now.config, now.widths
    budgets = {kind: getattr(config, kind) for kind in ("parameters", "macs") if getattr(config, kind) is not None}

    def fits(widths: dict[str, int]) -> bool:
        cost = now.cost(widths)
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


def _cap(now: Stage, name: str) -> int | None:
    return next((cap for pattern, cap in now.config.caps if re.search(pattern, name)), None)
