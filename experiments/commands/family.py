"""From a trained run to networks of several sizes, each inside the next: cut, tuned, exported, measured."""

import dataclasses
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import tyro

import parsimony as pm

from ..errors import RunError
from ..metrics import ACCURACY, metric_named
from ..plots import run as run_plots
from ..plots.run import TUNINGS
from ..plots.text import aligned
from ..runs import stopping
from ..runs.digest import environment
from ..runs.files import free_file, write_json
from ..runs.load import Run, load_run, penalised
from ..training import compile_time
from ..training.family import in_turn
from ..training.fit import make_fine_tune
from ..training.network import Network, by_name, equal_arrays, merge_variables, split_variables, trainable
from ..training.step import make_metric, validation_and_test
from .compact import latency, left, size
from .cut_options import CutOptions


@dataclasses.dataclass(frozen=True)
class FamilyOptions(CutOptions):
    """Cuts a run to several sizes along one order of its units and tunes them, as one network with shared weights or
    one from the next; the result goes to RUN/family.json and family.png, a folder for each size to RUN/family
    (family-2, ...)."""

    run: tyro.conf.Positional[Path]
    """Folder of a trained run; one of --no-finish has weights outside of its support, too."""
    budgets: tuple[float, ...] = (0.5, 0.35, 0.25, 0.15, 0.1)
    """What each network may have of the target: a share in (0, 1), or a number."""
    target: Literal["units", "parameters", "macs", "bytes", "ms"] = "macs"
    """Units, parameters, their bytes, multiply-adds for one image, or milliseconds here for a batch of --images."""
    fine_tune: int = 10
    """Epochs of SGD, for all of them in sum; its step falls to zero along a cosine."""
    tuning: Literal["together", "chain"] = "together"
    """One training of shared weights, a step for one network after the other; or the largest first, and each of the
    others from the tuned weights of the larger one, an equal part of the epochs for each."""
    alone: bool = False
    """Also tune each network by itself, for comparison: for as many epochs each."""

    def __post_init__(self):
        if self.fine_tune < 0 or (self.alone and not self.fine_tune):
            raise ValueError(f"--fine-tune: expected a number of epochs ≥ 0, with --alone ≥ 1, got {self.fine_tune}.")
        if self.tuning == "chain" and self.fine_tune % max(1, len(self.budgets)):
            m, n = len(self.budgets), self.fine_tune
            raise ValueError(
                f"--fine-tune: with --tuning chain each of {m} networks has an equal part of the epochs; expected a "
                f"multiple of {m}, got {n}; take {n + m - n % m}."
            )
        super().__post_init__()


def family(arguments: FamilyOptions) -> dict[str, Any]:
    """Cuts, tunes, measures, exports and draws; prints the table."""
    compile_time.listen()
    run = load_run(arguments.run, arguments.data_dir)
    params, stats, opt_state = run.at()
    variables = merge_variables(params, stats)
    example, metric = run.dataset.example, run.dataset.metric
    units = arguments.units(run, variables, arguments.target)
    how: Any = {"budgets": arguments.budgets, "target": arguments.target, "recalibrate": _statistics(run, stats)}
    try:
        cut = pm.structure.family(units, variables, opt_state, **how, **arguments.choice)
    except ValueError as error:
        raise RunError(str(error)) from None
    warn_of_zeros(cut, params, opt_state)
    measures = [make_metric(member.fn, run.dataset) for member in cut.members]
    tested = lambda trees: [validation_and_test(m, x, run.dataset) for m, x in zip(measures, trees, strict=True)]
    dense = make_metric(run.network.fn, run.dataset)
    scores, cost = {"cut": tested([member.params for member in cut.members])}, {}
    small = cut
    if arguments.fine_tune:
        tune = {"together": _together, "chain": _chain}[arguments.tuning]
        small, cost["tuned"] = _measured(lambda: tune(arguments, run, cut, stats, variables), run, arguments.fine_tune)
        scores["tuned"] = tested([member.params for member in small.members])
    if arguments.alone:
        epochs = arguments.fine_tune * len(cut.members)
        trained, cost["alone"] = _measured(lambda: _alone(arguments, run, cut, stats, variables), run, epochs)
        scores["alone"] = tested(trained)

    file = free_file(arguments.run, "family")
    rows = {name: (m.fn, m.params) for name, m in zip(map(repr, small.budgets), small.members, strict=True)}
    rows = {"whole": (run.network.fn, variables), **rows}
    times = latency(rows, run.dataset, arguments.rounds)
    of = lambda name: {
        "size": size(rows[name], example),
        "latency": {batch: float(np.median(seconds[name])) for batch, seconds in times.items()},
    }
    result: dict[str, Any] = {"run": str(arguments.run), "checkpoint": run.saved[-1]}
    result |= {name: value for name, value in dataclasses.asdict(arguments).items() if name not in ("run", "data_dir")}
    result["learning_rate"] = arguments.learning_rate or run.config.learning_rate
    result["whole"] = of("whole") | {metric.name: validation_and_test(dense, variables, run.dataset)}
    result |= {"members": [], "cost": cost, "metric": metric.name}
    for place, (budget, member) in enumerate(zip(small.budgets, small.members, strict=True)):
        folder = pm.structure.export(member, file.with_suffix("") / f"{arguments.target}-{budget:g}", example)
        shares = {kind: scores_of[place] for kind, scores_of in scores.items()}
        row = {
            "budget": budget,
            "route": member.route,
            "folder": str(folder),
            "units": left(member.units, member.keep),
            **of(repr(budget)),
        }
        result["members"].append(row | {metric.name: shares})
    result["chosen"] = choose(result, run.config.validation) if metric is ACCURACY else None  # whose error is known
    result |= environment()
    write_json(file, result)
    run_plots.family(result)[1].savefig(file.with_suffix(".png"), dpi=110)
    print(table(result), f"\nmodels: {file.with_suffix('')}\nwritten: {file}, {file.with_suffix('.png')}", sep="")
    return result


def _statistics(run: Run, stats):
    """What gives a cut network batch statistics of its own, as `structure.family` takes it."""
    if not jax.tree.leaves(stats):
        return None
    again = run.recalibrate()

    def recalibrate(variables):
        weights, _ = split_variables(variables, stats)
        return merge_variables(weights, again(weights, None, stats))

    return recalibrate


def warn_of_zeros(cut: pm.structure.Family, params, opt_state) -> None:
    """Of a W that was finished inside its support, what lies outside is zero, and adds nothing to a larger network."""
    if not equal_arrays(params, pm.sparse_params(params, opt_state)):
        return
    support = {name: mask for name, mask in by_name(pm.support(opt_state)).items() if name in penalised(opt_state)}
    for budget, member in zip(cut.budgets, cut.members, strict=True):
        outside = 0
        for name, units in member.units.sets.items():
            makers = [place for place in units.makers if place[0] in support]
            if makers:
                inside = np.any([units.each(np.logical_or, *place, support[place[0]], False) for place in makers], 0)
                outside += int((member.keep.get(name, True) & ~inside).sum())
        if outside:
            print(
                f"WARNING: {outside} units of the network of {budget:g} are outside of the support, within which W was "
                "finished: they start from zeros. Train with --no-finish, or take smaller --budgets.",
                file=sys.stderr,
            )


def _measured(training: Callable[[], Any], run: Run, epochs: int) -> tuple[Any, dict[str, float]]:
    """(what a training gives, its cost)."""
    begin, compiled = time.perf_counter(), compile_time.seconds()
    trained = jax.block_until_ready(training())
    seconds = {"seconds": time.perf_counter() - begin, "compile_seconds": compile_time.seconds() - compiled}
    return trained, {"steps": run.sampler.end(epochs), **seconds}


def _together(arguments: FamilyOptions, run: Run, cut: pm.structure.Family, stats, variables) -> pm.structure.Family:
    """The family after one training of all its members."""
    network, params, state = in_turn(run.network, cut, stats)
    fine_tune = _fine_tune(arguments, run, network, variables, "all together", arguments.fine_tune)
    params, state = fine_tune(params, state)
    return cut.with_params(merge_variables(params, state["members"][0]))


def _chain(arguments: FamilyOptions, run: Run, cut: pm.structure.Family, stats, variables) -> pm.structure.Family:
    """The family after a training of each member, which begins with what the larger one has learnt."""
    epochs, tuned, (member, *others) = arguments.fine_tune // len(cut.members), [], cut.members
    for budget in cut.budgets:
        network, what = trainable(run.network, member), f"the network of {budget:g}"
        fine_tune = _fine_tune(arguments, run, network, variables, what, epochs)
        learnt = merge_variables(*fine_tune(*split_variables(member.params, stats)))
        its = dataclasses.replace(cut, members=(member, *others[:1])).with_params(learnt)
        tuned.append(its.members[0])
        member, others = its.members[-1], others[1:]
    return dataclasses.replace(cut, members=tuple(tuned))


def _alone(arguments: FamilyOptions, run: Run, cut: pm.structure.Family, stats, variables) -> list[dict]:
    """The variables of each member after a training of its own."""
    trained = []
    for budget, member in zip(cut.budgets, cut.members, strict=True):
        network, what = trainable(run.network, member), f"the network of {budget:g} alone"
        fine_tune = _fine_tune(arguments, run, network, variables, what, arguments.fine_tune)
        trained.append(merge_variables(*fine_tune(*split_variables(member.params, stats))))
    return trained


def _fine_tune(arguments: FamilyOptions, run: Run, network: Network, variables, what: str, epochs: int):
    print(f"fine-tuning {what} for {epochs} epochs", file=sys.stderr)
    rate = arguments.learning_rate or run.config.learning_rate
    network = arguments.student(network, run, variables)
    return make_fine_tune(network, run.dataset, run.config, rate, epochs, run.config.seed + 1)


def choose(result: dict[str, Any], images: int) -> float | None:
    """The budget of the smallest network that validation cannot tell from the whole one: within one SE."""
    dense = result["whole"]["accuracy"]["validation"]
    bound = dense - stopping.standard_error(dense, images)
    good = [row["budget"] for row in result["members"] if final(row)["validation"] >= bound]
    return good[-1] if good else None


def final(row: dict[str, Any]) -> dict[str, float]:
    """The accuracy of what was exported."""
    return row["accuracy"].get("tuned", row["accuracy"]["cut"])


def table(result: dict[str, Any]) -> str:
    """A line a network."""
    metric = metric_named(result)
    kinds = list(result["members"][0][metric.name])
    lines = [[result["target"], "parameters", "multiply-adds", "bytes", "ms, 1", "ms, 128", *kinds]]
    for name, row in [("whole", result["whole"]), *((f"{row['budget']:g}", row) for row in result["members"])]:
        counted = [f"{row['size'][key]:,}" for key in ("parameters", "macs", "bytes on disk")]
        seconds = [f"{1e3 * row['latency'][batch]:.3f}" for batch in ("1", "128")]
        found = row[metric.name] if "budget" in row else {"cut": row[metric.name]}
        scores = [metric.text(found[kind]["test"]) if kind in found else "" for kind in kinds]
        lines.append([name, *counted, *seconds, *scores])
    how = TUNINGS[result["tuning"]]
    text = f"test {metric.name} of each network, {how} for {result['fine_tune']} epochs in all\n{aligned(lines)}"
    for kind, spent in result["cost"].items():
        seconds = f"{spent['seconds']:.1f} s, of which {spent['compile_seconds']:.1f} for tracing and compiling"
        text += f"\n{kind}: {spent['steps']:,} steps, {seconds}"
    if metric is not ACCURACY:
        return text
    if result["chosen"] is None:
        return f"{text}\nnone of them is within one standard error of the whole network on validation"
    return f"{text}\nchosen on validation: {result['chosen']:g}"
