"""From a trained run to a smaller, faster network with the same outputs: units removed, saved, exported, measured."""

import dataclasses
import functools
import importlib.util
import sys
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
import tyro

import parsimony as pm

from ..bench.timing import in_turn, ratio
from ..data.dataset import Dataset
from ..errors import RunError
from ..metrics import metric_named
from ..plots.text import aligned
from ..runs.digest import environment
from ..runs.files import free_file, write_json
from ..runs.load import Run, load_run
from ..training.fit import make_fine_tune
from ..training.network import by_name, merge_variables, split_variables, trainable
from ..training.recalibration import without
from ..training.step import make_metric, validation_and_test
from .cut_options import CutOptions


@dataclasses.dataclass(frozen=True)
class CompactOptions(CutOptions):
    """Removes the units of a run that the path leaves behind; the result goes to RUN/compact.json, the model to
    RUN/compact (compact-2, ...). One of --sparsity, --parameters, --macs, --ms gives the size; none: the support."""

    run: tyro.conf.Positional[Path]
    """Folder of a trained run."""
    sparsity: float | None = None
    """Share of the units (filters, neurons) to remove, in [0, 1)."""
    parameters: float | None = None
    """Parameters that may be left: a share in (0, 1), or a number."""
    macs: float | None = None
    """Multiply-adds that may be left: a share in (0, 1), or a number for one image."""
    ms: float | None = None
    """Milliseconds on this device that a batch of --images may take: a share in (0, 1), or a number."""
    refit: int = 0
    """Training images by which what reads the removed units is fitted to what it gave, before any fine-tuning."""
    int8: bool = False
    """Also the small network with weights and activations of 8 bits (the extra `int8`), to a folder beside it."""
    fine_tune: int = 0
    """Epochs of SGD on the small network; the step falls to zero along a cosine."""

    def __post_init__(self):
        given = [n for n in ("sparsity", "parameters", "macs", "ms") if getattr(self, n) is not None]
        if len(given) > 1:
            raise ValueError(f"expected one of --sparsity, --parameters, --macs, --ms, got {' and '.join(given)}.")
        if self.sparsity is not None and not 0 <= self.sparsity < 1:
            raise ValueError(f"--sparsity: expected a share of the units in [0, 1), got {self.sparsity}.")
        if self.fine_tune < 0:
            raise ValueError(f"--fine-tune: expected a number of epochs ≥ 0, got {self.fine_tune}.")
        if self.int8 and importlib.util.find_spec("qwix") is None:
            raise ValueError("--int8: needs qwix: pip install 'parsimony-lbi[int8]'.")
        if self.refit < 0:
            raise ValueError(f"--refit: expected a number of images ≥ 0, got {self.refit}.")
        super().__post_init__()


def compact(arguments: CompactOptions) -> dict[str, Any]:
    """Cuts, checks, tunes, writes and times the network; prints the table."""
    run = load_run(arguments.run, arguments.data_dir)
    params, stats, opt_state = run.at()
    variables = merge_variables(params, stats)
    example = run.dataset.example
    units = arguments.units(run, variables, "units" if arguments.ms is None else "ms")
    recalibrated = run.recalibrate()
    try:
        keep = _keep(arguments, units, variables, opt_state)
        zeroed, own = without(units, keep, params, stats, recalibrated)
        small = pm.structure.compact(units, keep, merge_variables(params, own), opt_state)
    except ValueError as error:
        raise RunError(str(error)) from None
    equality = _compare(run, zeroed, small)
    whole, cut = (
        functools.partial(validation_and_test, make_metric(fn, run.dataset), dataset=run.dataset)
        for fn in (run.network.fn, small.fn)
    )
    scores = {"whole": whole(variables), "cut": cut(small.params)}
    if own is not stats:
        scores["cut, statistics of W"] = whole(units.zero(keep, variables))
    if arguments.refit:
        own, small = _refitted(arguments, run, small, variables, stats)
        scores["refitted"] = cut(small.params)
    sparse = pm.sparse_params(params, opt_state)
    scores["sparse W̃"] = whole(merge_variables(sparse, recalibrated(sparse, params, stats)))
    if arguments.fine_tune:
        tuned = _tuned(arguments, run, small, own, variables)
        small = dataclasses.replace(small, params=tuned, opt_state=None)  # it belongs to the weights before
        scores["tuned"] = cut(tuned)

    file = free_file(arguments.run, "compact")
    folder = pm.structure.export(small, file.with_suffix(""), example)
    rows = {"whole": (run.network.fn, variables), "cut": (small.fn, small.params)}
    result: dict[str, Any] = {"run": str(arguments.run), "checkpoint": run.saved[-1], "route": small.route}
    result |= {name: value for name, value in dataclasses.asdict(arguments).items() if name not in ("run", "data_dir")}
    result["learning_rate"] = arguments.learning_rate or run.config.learning_rate
    result |= {"units": left(units, keep)}
    result |= {"equality": equality, "metric": run.dataset.metric.name, run.dataset.metric.name: scores}
    result |= {"size": {name: size(row, example) for name, row in rows.items()}, "latency": {}}
    rows["exported"] = pm.structure.load_compact(folder)
    if arguments.int8:
        rows["int8"] = _eight_bits(small, example, folder)
        measure = make_metric(rows["int8"][0], run.dataset)
        scores["int8"] = validation_and_test(measure, rows["int8"][1], run.dataset)
        result["size"]["int8"] = size(rows["int8"], example)
    for batch, times in latency(rows, run.dataset, arguments.rounds).items():
        result["latency"][batch] = {name: float(np.median(seconds)) for name, seconds in times.items()} | {
            "speed": ratio(times, "whole", "cut")
        }
    result |= environment()
    write_json(file, result)
    print(table(result), f"\nmodel: {folder}\nwritten: {file}", sep="")
    return result


def _eight_bits(small: pm.structure.Compact, example, folder: Path) -> tuple[Any, Any]:
    """(fn, variables) of the network with 8 bits, written beside the other."""
    try:
        quantised = pm.structure.quantise(small, example)
    except ValueError as error:
        raise RunError(f"--int8: {error}") from None
    pm.structure.export(quantised, folder.with_name(f"{folder.name}-int8"), example)
    return quantised.fn, quantised.params


def left(units: pm.structure.Units, keep) -> dict[str, list[int]]:
    """{set: [units of the whole network, units that are left]}."""
    return {name: [s.size, int(keep[name].sum()) if name in keep else s.size] for name, s in units.sets.items()}


def size(network: tuple[Any, Any], example) -> dict[str, int]:
    """What a network, (fn, variables), costs for one example, and the bytes of its safetensors."""
    fn, variables = network
    stored = len(safetensors.numpy.save({key: np.asarray(leaf) for key, leaf in by_name(variables).items()}))
    return dataclasses.asdict(pm.structure.count(fn, variables, example)) | {"bytes on disk": stored}


def latency(rows: dict[str, tuple], dataset: Dataset, rounds: int) -> dict[str, dict[str, list[float]]]:
    """{examples in a batch: {name: seconds of each round}} of networks {name: (fn, variables)}, timed in turn."""
    times = {}
    for batch in (1, 128):
        images = jnp.asarray(dataset.normalised(next(dataset.test.parts(batch)).inputs))
        calls = {name: functools.partial(jax.jit(fn), variables, images) for name, (fn, variables) in rows.items()}
        times[str(batch)] = in_turn(calls, rounds)
    return times


def _keep(arguments: CompactOptions, units: pm.structure.Units, params, opt_state) -> dict[str, np.ndarray]:
    wanted: list[tuple[Literal["units", "parameters", "macs", "ms"], float | None]] = [
        ("units", None if arguments.sparsity is None else 1 - arguments.sparsity),
        ("parameters", arguments.parameters),
        ("macs", arguments.macs),
        ("ms", arguments.ms),
    ]
    for target, at_most in wanted:
        if at_most == 1:  # --sparsity 0
            return {}
        if at_most is not None:
            return pm.structure.choose(units, params, opt_state, at_most=at_most, target=target, **arguments.choice)
    return pm.structure.keep_from_masks(units, pm.support(opt_state))


def _compare(run: Run, zeroed, small) -> dict[str, float]:
    """Outputs of the small network and of the whole one with the removed units at zero, on the test set."""
    whole_fn, small_fn = jax.jit(run.network.fn), jax.jit(small.fn)
    error, scale, agree, answers = 0.0, 0.0, 0, 0
    for part in run.dataset.test.parts(500):
        x = run.dataset.normalised(part.inputs)
        whole, narrow = np.asarray(whole_fn(zeroed, x)), np.asarray(small_fn(small.params, x))
        error = max(error, float(np.abs(whole - narrow).max()))
        scale = max(scale, float(np.abs(whole).max()))
        agree += int((whole.argmax(-1) == narrow.argmax(-1)).sum())
        answers += part.labels.size
    if error > 1e-4 * scale:
        raise RunError(f"the compact network differs from the zeroed one by {error / scale:.1e}; nothing was written.")
    return {"relative error": error / scale, "same answers": agree / answers}


def _refitted(arguments: CompactOptions, run: Run, small: pm.structure.Compact, variables, stats):
    """(batch statistics, the small network) once its readers make up for what was removed."""
    images = run.dataset.normalised(next(run.dataset.train.parts(arguments.refit)).inputs)
    weights, _ = split_variables(pm.structure.refit(small.units, small.keep, variables, images).params, stats)
    own = run.recalibrate()(weights, split_variables(variables, stats)[0], stats)
    params = pm.structure.compact(small.units, small.keep, merge_variables(weights, own)).params
    return own, dataclasses.replace(small, params=params, opt_state=None)  # it belongs to the weights before


def _tuned(arguments: CompactOptions, run: Run, small, stats, variables):
    """The variables of the small network after fine-tuning."""
    config, epochs = run.config, arguments.fine_tune
    rate = arguments.learning_rate or config.learning_rate
    network = arguments.student(trainable(run.network, small), run, variables)
    print(f"fine-tuning for {epochs} epochs", file=sys.stderr)
    fine_tune = make_fine_tune(network, run.dataset, config, rate, epochs, config.seed + 1)
    return merge_variables(*fine_tune(*split_variables(small.params, stats)))


def table(result: dict[str, Any]) -> str:
    """Before and after."""
    metric = metric_named(result)
    size, scores, latency = result["size"], result[metric.name], result["latency"]
    test = lambda kind: metric.text(scores[kind]["test"])
    lines = [("", "whole", "cut", "whole/cut")]
    lines.append((f"test {metric.name}", test("whole"), test("cut"), ""))
    for kind, label in (
        ("cut, statistics of W", "with the batch statistics of the whole"),
        ("refitted", "readers refitted"),
        ("tuned", "fine-tuned"),
    ):
        if kind in scores:
            lines.append((f"  {label}", "", test(kind), ""))
    for key, label in (("parameters", "parameters"), ("macs", "multiply-adds"), ("bytes on disk", "bytes on disk")):
        whole, cut = size["whole"][key], size["cut"][key]
        lines.append((label, f"{whole:,}", f"{cut:,}", f"{whole / cut:.2f}"))
    for batch, seconds in latency.items():
        middle, low, high = seconds["speed"]
        lines.append(
            (
                f"ms, batch {batch}",
                f"{1e3 * seconds['whole']:.3f}",
                f"{1e3 * seconds['cut']:.3f}",
                f"{middle:.2f} ({low:.2f}–{high:.2f})",
            )
        )
    kept = ", ".join(f"{name} {left}/{n}" for name, (n, left) in result["units"].items())
    equality = result["equality"]
    return "\n".join(
        [
            f"units kept: {kept}; route: {result['route']}",
            f"compact against zeroed, test set: relative error {equality['relative error']:.1e}, "
            f"same answers {equality['same answers']:.2%}; W̃ has {test('sparse W̃')}",
            aligned(lines),
            *_line_of_int8(result),
        ]
    )


def _line_of_int8(result: dict[str, Any]) -> list[str]:
    if "int8" not in result["size"]:
        return []
    metric = metric_named(result)
    score, stored = metric.text(result[metric.name]["int8"]["test"]), result["size"]["int8"]["bytes on disk"]
    times = ", ".join(f"{1e3 * seconds['int8']:.3f} ms, batch {batch}" for batch, seconds in result["latency"].items())
    return [f"int8, weights and activations: test {metric.name} {score}; {stored:,} bytes on disk; {times}"]
