"""Training along the path: Split LBI with momentum, snapshots, checkpoints, and the record at the end."""

import contextlib
import dataclasses
import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

import parsimony as pm

from ..config import Config
from ..data.loader import make_loader
from ..data.sampler import Sampler
from ..errors import RunError, StoppedError
from ..metrics import Metric, metric_in
from ..progress import Progress, announce
from ..runs import snapshots, stopping
from ..runs.digest import digest, environment, files_digest
from ..runs.files import write_json
from ..runs.folder import open_run
from ..runs.start import keep_start
from ..runs.tensorboard import Events
from ..training import distributed, forecast, signals
from ..training.build import build_network, load_data, optimizer, penalties
from ..training.checkpoints import latest, open_checkpoints, restore, save
from ..training.evaluation import measured, tested
from ..training.parallel import parallel
from ..training.recalibration import make_recalibrate
from ..training.step import advance
from ..training.weights import start_weights


def train(name: str, config: Config) -> Path:
    """Trains, or resumes, a run; leaves its record, checkpoints and pictures in its folder and returns that."""
    start = time.perf_counter()
    distributed.join(config)
    where, first = environment(), distributed.first()  # now: the checkout may change while a run goes on
    say = announce if first else lambda what: None
    say(f"reading {config.dataset} and building {config.model}")
    dataset, sampler = load_data(config)
    network, params, stats = build_network(config)
    params, stats = start_weights(config, network, params, stats)
    tx = optimizer(config, sampler, penalties(config, sampler, network, params, stats))
    devices = parallel(config.parallel)
    metric = devices.metric(network.fn, dataset)
    drawn: Any = {"seed": config.seed, "augment": config.augment}
    step = devices.step(network, tx, dataset, **drawn)
    recalibrated = make_recalibrate(network, dataset, batch_size=config.batch_size, **drawn)
    with contextlib.ExitStack() as stack:
        asked = stack.enter_context(signals.noticed())
        directory = Path(distributed.on_first(lambda: str(stack.enter_context(open_run(name, config)))))
        if first and config.weights is not None:
            keep_start(directory, params, stats)
        checkpoints = stack.enter_context(open_checkpoints(directory, writing=True)) if first else None
        loader = make_loader(dataset.train, sampler, config.epochs, devices.placement)
        stack.enter_context(contextlib.closing(loader))
        weights, count, losses = _resumed(directory, checkpoints, (params, stats, tx.init(params)), loader)
        curve = distributed.on_first(lambda: snapshots.resume(directory, count))
        events = stack.enter_context(contextlib.closing(Events(directory, count))) if first else None

        due, state = sampler.snapshot_points(config.epochs, config.snapshots), devices.place(weights)
        total, first_step = due[-1].step, None
        progress = stack.enter_context(Progress(total, count, shown=first))
        agreed, ending, chosen, kept = distributed.agreement(), False, _chosen(config, curve), count
        epoch_start = saved_at = time.perf_counter()

        def pause() -> bool:
            nonlocal ending
            ending = agreed(asked() is not None)
            return ending or time.perf_counter() - saved_at > 60 * config.checkpoint_minutes

        look = max(1, total // 10)  # when a path that stays empty or fills at once is told
        say("compiling the training step")
        while count < total and chosen is None:
            point = next(point for point in due if point.step > count)
            begin = count - len(losses)  # where the part began, of which a resume may have had some steps
            chunks = _until(pause, loader.chunks(count, point.step))
            for latest_state, taken, more in advance(step, state, chunks):
                state = latest_state
                first_step = first_step or time.perf_counter() - start
                for loss in more:
                    losses.append(_finite(loss, begin + len(losses), directory, kept))
                before, count = count, count + taken
                progress.advance(taken)
                if before < look <= count and (warning := forecast.warning(config, sampler, devices.whole(state))):
                    say(warning)
            weights = devices.whole(state)
            if count == point.step:
                seen = {"loss": float(np.mean(losses)), "seconds": time.perf_counter() - epoch_start}
                line = dataclasses.asdict(point) | seen | measured(weights, recalibrated, metric, dataset)
                curve, losses = [*curve, line], []
                if events is not None:
                    snapshots.append(directory, line, weights[0], weights[2], config.snapshot_groups)
                    events.append(line)
                    progress.tell(_report(line, config))
                if point.epoch_end:
                    epoch_start = time.perf_counter()
                chosen = _chosen(config, curve)
            over = ending or chosen or count == total
            if over or count < point.step or (point.epoch_end and _saves(config, point.epoch)):
                if checkpoints is not None:
                    _check_finite(weights[0], count, directory, kept)
                    save(checkpoints, count, weights, {"step": count, "losses": losses, "feed": loader.position(count)})
                    _drop_checkpoints(checkpoints, config, sampler, curve)
                kept, saved_at = count, time.perf_counter()
            if ending:
                distributed.wait("saved")
                raise StoppedError(
                    f"saved after step {count} of {total}; go on with --run-dir {directory}",
                    asked() or signal.SIGTERM,
                )

        params, stats, opt_state = weights
        final = {"epochs": curve[-1]["epoch"], "seconds": time.perf_counter() - start}
        final |= {"seconds_to_first_step": first_step} | tested(weights, recalibrated, metric, dataset)
        if chosen is not None:
            chosen_weights = weights if checkpoints is None else restore(checkpoints, chosen["step"], weights)[0]
            stopped = tested(distributed.from_first(chosen_weights), recalibrated, metric, dataset)
            final["stopped"] = {"rule": config.stop, **chosen, **stopped}
        if first:
            record = {"name": name, "configuration": config.settings(), "seed": config.seed, **where}
            record |= _described(dataset, opt_state) | {"curve": curve, "final": final}
            record["digest"] = digest((params, stats, opt_state) if stats else (params, opt_state))
            record["files"] = files_digest(directory)
            from ..plots import run as run_plots  # here, at the end: Matplotlib takes a second to import

            for file, figure in (run_plots.path(directory), run_plots.metric_and_density(curve)):
                figure.savefig(directory / file, dpi=110)
            write_json(directory / "record.json", record)
            _tell_end(directory, final, opt_state, dataset.metric)
        distributed.wait("finished")
    return directory


def _resumed(directory: Path, checkpoints, start, loader):
    """(weights, step, losses since the last snapshot) where the run was; of a new run its start."""
    saved = []

    def position() -> dict:
        saved.extend(latest(checkpoints, directory, lambda _: start) or ())
        return saved[2] if saved else {}

    at = distributed.on_first(position)
    if not at:
        return start, 0, []
    loader.check(at["feed"])
    if saved:
        print(f"resuming {directory} after step {at['step']}")
    weights = distributed.from_first(saved[1] if saved else start)
    return weights, at["step"], at["losses"]


def _until(pause: Callable[[], bool], chunks: Iterable) -> Iterator:
    """The chunks up to the one after which there is to be a pause."""
    for chunk in chunks:
        yield chunk
        if pause():
            return


def _chosen(config: Config, curve: list[dict]) -> dict | None:
    """The line at which the stopping rule ends the run, or None."""
    ends = [line for line in curve if line["epoch_end"]]
    return stopping.point(config.stop, ends, config.validation, config.stop_sparsity, config.patience)


def _saves(config: Config, epoch: int) -> bool:
    # The rules may choose an epoch that lies behind.
    return epoch % config.checkpoint_every == 0 or epoch in config.kept_epochs or config.stop in ("one_se", "sparsity")


def _drop_checkpoints(checkpoints, config: Config, sampler: Sampler, curve: list[dict]) -> None:
    """Keeps the latest two, those kept for good, and those that the rule one_se may still choose."""
    saved = sorted(checkpoints.all_steps())
    keep = {*saved[-2:], *map(sampler.end, config.kept_epochs)}
    if config.stop == "one_se":
        ends = [line for line in curve if line["epoch_end"]]
        keep |= {line["step"] for line in stopping.within_one_error(ends, config.validation)}
    for step in set(saved) - keep:
        checkpoints.delete(step)


def _finite(loss: float, step: int, directory: Path, kept: int) -> float:
    if not math.isfinite(loss):
        _diverged(f"the loss is {loss}", step, directory, kept)
    return loss


def _check_finite(params, step: int, directory: Path, kept: int) -> None:
    if not all(np.isfinite(np.asarray(leaf, np.float32)).all() for leaf in jax.tree.leaves(params)):
        _diverged("a weight is not finite", step, directory, kept)


def _diverged(what: str, step: int, directory: Path, kept: int) -> None:
    checkpoint = f"the checkpoint of step {kept} is kept" if kept else "there was no checkpoint yet"
    raise RunError(
        f"{what} at step {step} of {directory}; {checkpoint}. "
        "Try a smaller --learning-rate, --clip-norm 1, or --nu above twice kappa·learning_rate."
    )


def _described(dataset, opt_state) -> dict:
    """What a record says of the data, of who was penalised how, and of the sparsity at the end."""
    images = {part: len(getattr(dataset, part)) for part in ("train", "validation", "test")}
    rules = {pattern: repr(rule) for pattern, rule in optax.tree.get(opt_state, "SplitLBIState").penalty.rules}
    rows = [row.__dict__ for row in pm.sparsity_summary(opt_state)]
    return {"images": images, "held_out": dataset.held_out, "penalties": rules, "sparsity": rows}


def _report(line: dict, config: Config) -> str:
    """The state of a run in 60 columns."""
    metric = metric_in(line)
    dense, sparse = (metric.text(line[f"{kind}{metric.name}"], 1) for kind in ("", "sparse_"))
    return (
        f"epoch {line['epoch']}/{config.epochs} loss {line['loss']:.3f} W {dense} W̃ {sparse} "
        f"density {line['total_density']:.0%}"
    )


def _tell_end(directory: Path, final: dict, opt_state, metric: Metric) -> None:
    print(f"\n{pm.sparsity_summary(opt_state)}\n")
    told = lambda results, kind="": metric.text(results[f"test_{kind}{metric.name}"])
    if "stopped" in final:
        stopped = final["stopped"]
        print(
            f"stopped by the rule {stopped['rule']}: the model of epoch {stopped['epoch']} has density "
            f"{stopped['total_density']:.1%}, test {metric.name} W̃ {told(stopped, 'sparse_')}"
        )
    if "finished" in final:
        print(f"test {metric.name}: W {told(final)}; W is W̃: what is outside the support is zero")
    else:
        old = final.get(f"test_sparse_{metric.name}_statistics_of_W")
        print(
            f"test {metric.of_pair(final, 'test_')}"
            + ("" if old is None else f" (with the batch statistics of W {metric.text(old)})")
        )
    print(f"record, checkpoint and pictures (path.png, {metric.name}.png): {directory}")
    print(f"a page with everything: python -m experiments report {directory}")
