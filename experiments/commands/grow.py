"""Growing: rounds of training by Split LBI; after each, unused units go, and layers that use all they have get more.

    saturation of a set = share of its units that are in use;   it reaches τ ⇒ the set grows by max(step, ratio·size)

What has grown computes what it did before, and goes on with its momentum.

References:
  ArXiv 1905.09449, on growing networks; what counts as used, the budgets and the growth that keeps the function are
  ours.
"""

import dataclasses
import functools
import time
from pathlib import Path
from typing import Any

from ..data.dataset import Dataset
from ..growth import fixed_baselines, policy, rounds
from ..growth.config import Grow
from ..growth.stage import Stage, make_stage, trained_without_path, transformation
from ..plots import run as run_plots
from ..progress import announce
from ..runs.digest import digest, environment, files_digest
from ..runs.files import write_json
from ..runs.folder import open_run
from ..training import compile_time
from ..training.build import load_data
from ..training.checkpoints import latest, open_checkpoints, restore, save
from ..training.fit import fit
from ..training.network import merge_variables
from ..training.step import make_metric, make_step


def grow(name: str, config: Grow) -> Path:
    """Grows a network, or goes on with it; leaves rounds, checkpoints, record and picture in its folder, returned."""
    compile_time.listen()
    where = environment()
    announce(f"reading {config.dataset} and building {config.model}")
    dataset, sampler = load_data(config)
    stage = make_stage(config)
    policy.check(stage)
    with open_run(name, config) as directory, open_checkpoints(directory, writing=True) as checkpoints:
        rows = rounds.rounds(directory)
        tx_of = functools.partial(transformation, sampler=sampler)
        for number in set(checkpoints.all_steps()) - {row["round"] for row in rows}:
            checkpoints.delete(number)  # of a round that was not finished: it is done again
        stage_of = functools.cache(lambda number: make_stage(config, rows[number - 1]["widths"].values()))
        saved = latest(checkpoints, directory, lambda number: _start(stage_of(number), tx_of))
        rows = rounds.resume(directory, saved[0] if saved else 0)
        if saved:
            stage, weights = stage_of(saved[0]), saved[1]
            print(f"resuming {directory} after round {len(rows)}")
        else:
            weights = _start(stage, tx_of)
            print(rounds.table([]))
        while not rows or rows[-1]["end"] is None:
            begin, compiled = time.perf_counter(), compile_time.seconds()
            if rows:
                stage, weights = policy.resized(stage, weights, rows[-1], tx_of, dataset)
            weights, row = _round(stage, tx_of(stage, first=not rows), weights, dataset, len(rows) + 1)
            row |= {"seconds": time.perf_counter() - begin, "compile_seconds": compile_time.seconds() - compiled}
            row |= policy.after(stage, [*rows, row])
            save(checkpoints, row["round"], weights)
            rounds.append(directory, row)
            rows.append(row)
            print(rounds.table([row]).splitlines()[1], flush=True)
        print(f"growing ends after round {len(rows)}, with the network of round {rows[-1]['take']}: {rows[-1]['end']}")
        if rows[-1]["take"] < len(rows):
            stage, weights = _restored(checkpoints, config, rows[rows[-1]["take"] - 1], tx_of)
        begin, compiled = time.perf_counter(), compile_time.seconds()
        stage, weights = policy.cut(stage, weights)
        params, stats, opt_state = weights
        tuned = trained_without_path(stage, params, stats, dataset, config.fine_tune, config.seed + 1)
        spent = {"seconds": time.perf_counter() - begin, "compile_seconds": compile_time.seconds() - compiled}
        save(checkpoints, len(rows) + 1, (*tuned, opt_state))
        record = {"name": name, "configuration": config.settings(), "seed": config.seed, **where}
        record |= {
            "rounds": rows,
            "final": _final(stage, weights, tuned, dataset, [*rows, spent]),
            "digest": digest(tuned),
        }
        record["fixed"] = fixed_baselines.compared(stage, rows, dataset) if config.compare != "never" else []
        run_plots.widths(rows)[1].savefig(directory / "widths.png", dpi=110)
        record["files"] = files_digest(directory)
        write_json(directory / "record.json", record)
        print(format_record(record), f"record, checkpoint and picture (widths.png): {directory}", sep="\n")
        print(f"a smaller one of it: python -m experiments compact {directory} --order dual --macs 0.8")
    return directory


def _round(stage: Stage, tx, weights, dataset: Dataset, number: int):
    """A round's training; (params, stats, opt_state) after it, and what was seen."""
    config = stage.config
    step = make_step(stage.network, tx, dataset, seed=config.seed, augment=config.augment)
    first = (number - 1) * config.epochs
    weights = fit(step, *weights, dataset, config.epochs, config.batch_size, config.seed, first)
    cost, (params, stats, _) = stage.cost({}), weights
    accuracy = make_metric(stage.network.fn, dataset)
    row: dict[str, Any] = {"round": number, "epochs": config.epochs, "widths": stage.widths}
    row |= {"parameters": cost.parameters, "macs": cost.macs}
    keep = policy.used(stage, params, stats)
    row["saturation"] = {name: float(mask.mean()) for name, mask in keep.items()}
    row["used"] = {name: int(mask.sum()) for name, mask in keep.items()}
    row["accuracy"] = accuracy(merge_variables(params, stats), dataset.validation)
    return weights, row


def _restored(checkpoints, config: Grow, row: dict[str, Any], tx_of):
    """The stage of a round, and its weights as they were at its end."""
    stage = make_stage(config, row["widths"].values())
    return stage, restore(checkpoints, row["round"], _start(stage, tx_of))[0]


def _start(stage: Stage, tx_of):
    """(params, stats, opt_state) of a stage."""
    return stage.params, stage.stats, tx_of(stage).init(stage.params)


def _final(stage: Stage, weights, tuned, dataset: Dataset, spent: list[dict[str, Any]]) -> dict[str, Any]:
    """The network at the end. The test set decides nothing; it is read here, once."""
    params, stats, _ = weights
    accuracy, cost = make_metric(stage.network.fn, dataset), stage.cost({})
    of = {"grown": merge_variables(params, stats), "fine-tuned": merge_variables(*tuned)}
    total, compiled = (sum(part[key] for part in spent) for key in ("seconds", "compile_seconds"))
    final: dict[str, Any] = {"widths": stage.widths, **dataclasses.asdict(cost)}
    final |= {"validation": {kind: accuracy(variables, dataset.validation) for kind, variables in of.items()}}
    final |= {"test": {kind: accuracy(variables, dataset.test) for kind, variables in of.items()}}
    return final | {"seconds": total, "compile_seconds": compiled, "compile_share": compiled / total}


def format_record(record: dict[str, Any]) -> str:
    """Size, accuracy and cost, for the terminal."""
    final = record["final"]
    lines = [
        f"\n{final['parameters']:,} parameters, {final['macs']:,} multiply-adds; test accuracy "
        + ", ".join(f"{kind} {value:.2%}" for kind, value in final["test"].items()),
        f"{final['seconds']:.0f} s, of which {final['compile_share']:.0%} for tracing and compiling",
    ]
    for row in record["fixed"]:
        lines.append(
            f"fixed, {row['kind']} ({'-'.join(map(str, row['widths']))}): {row['parameters']:,} parameters, "
            f"{row['macs']:,} multiply-adds, {row['epochs']} epochs, test accuracy {row['test']:.2%}"
        )
    return "\n".join(lines)
