"""What a training run of a comparison is and what it gave: a line of results.jsonl."""

import dataclasses
from typing import Any

Setting = tuple[tuple[str, float], ...]
"""Pairs (number, value), by name."""

KINDS = {"W": "", "W̃": ", W̃", "fine-tuned": ", fine-tuned"}
"""What a result can be of, and how a line of results.jsonl says it (field "row")."""


@dataclasses.dataclass(frozen=True)
class Job:
    """A training run: of a trial, or of a final seed. `sparsity` is None where one run gives all of them."""

    kind: str
    method: str
    setting: Setting
    seed: int
    sparsity: float | None


@dataclasses.dataclass(frozen=True)
class Result:
    """How good a network is that came of a run.

    Attributes:
      of: "W" as the run left it or as it was cut, "W̃", or "fine-tuned" after a cut.
      sparsity: to which it was cut or trained; None: not at all.
      order: of the cut; "own" where the method makes its zeros itself.
      validation, test: accuracies in [0, 1]; that on the test images of final runs alone.
      zeros, zeros_of_all: share of zeros among the prunable parameters, and among all.
      macs: multiply-adds for one image when units without inputs or readers are gone; None: an older record, of a
        network that was cut through.
      epochs, seconds: of the fine-tuning.
    """

    of: str
    sparsity: float | None
    order: str
    validation: float
    zeros: float
    zeros_of_all: float
    macs: int | None
    test: float | None = None
    epochs: int = 0
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class JobResults:
    """A job that is done: its epochs and the seconds of its training, all that was measured, and on which machine."""

    job: Job
    epochs: int
    seconds: float
    results: tuple[Result, ...]
    machine: str = ""

    def of(self, kind: str) -> list[Result]:
        """The results of "W", "W̃" or "fine-tuned"."""
        return [result for result in self.results if result.of == kind]


def to_line(done: JobResults) -> dict[str, Any]:
    """As JSON."""
    results = []
    for result in done.results:
        fields = dataclasses.asdict(result)
        line = {"row": KINDS[fields.pop("of")]} | fields
        if result.test is None:
            del line["test"]
        results.append(line)
    job = dataclasses.asdict(done.job) | {"setting": dict(done.job.setting)}
    return job | {"epochs": done.epochs, "seconds": done.seconds, "machine": done.machine, "results": results}


def from_line(line: dict[str, Any]) -> JobResults:
    """What `to_line` wrote."""
    kinds = {written: kind for kind, written in KINDS.items()}
    results = [
        Result(kinds[result["row"]], **{name: value for name, value in result.items() if name != "row"})
        for result in line["results"]
    ]
    job = Job(line["kind"], line["method"], tuple(sorted(line["setting"].items())), line["seed"], line["sparsity"])
    return JobResults(job, line["epochs"], line["seconds"], tuple(results), line.get("machine", ""))
