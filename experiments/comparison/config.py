"""The configuration of a comparison."""

import dataclasses
import math
from pathlib import Path
from typing import Any, ClassVar, Literal

from ..settings import plain

GROWING = ("methods", "seeds", "sparsity")
"""Fields that may change between two starts on one folder: more of them add runs to those that are there."""


@dataclasses.dataclass(frozen=True)
class DataOptions:
    """What is learned from, by which network."""

    dataset: Literal["digits", "mnist", "fashion_mnist", "cifar10"] = "digits"
    """digits: scikit-learn's handwritten digits, embedded. The others: through TFDS."""
    model: str = "small_cnn"
    """Network, from experiments/models."""
    images: int | None = None
    """Training images to use; None: all but those held out."""
    validation: int = 180
    """Images held out of the training set; all that is chosen is chosen on them."""
    image_size: int | None = None
    """Height and width to which images are averaged down, once, when they are loaded; None: as they are."""
    augment: bool = False
    """Random crops of images padded by 4 (of 16×16 images by 2), and flips."""


@dataclasses.dataclass(frozen=True)
class MethodOptions:
    """What is compared."""

    methods: tuple[str, ...] = ("split_lbi", "magnitude", "gradual", "hard", "rigl", "linbreg")
    """Rows, of experiments/comparison/methods.py."""
    level: Literal["weight", "group"] = "weight"
    """What is counted in a sparsity: the weights of all kernels, or groups: the filters of the convolutions."""
    sparsity: tuple[float, ...] = (0.8, 0.9, 0.95, 0.98, 0.99)
    """Shares that are zero at the end, over the whole network. None: dense networks are compared."""
    seeds: int = 5
    """Final runs of each method are made with the seeds 0, 1, ..."""
    fine_tune: int = 0
    """Epochs of training inside the mask after a cut, for the methods that give every sparsity from one run: a second
    row of theirs. The run is cut to the first sparsity and tuned, what comes of it is cut to the next, and so on."""
    fine_tune_rate: float = 1.0
    """Its first step over the α of the run."""


@dataclasses.dataclass(frozen=True)
class TrainingOptions:
    """What all runs have in common."""

    epochs: int = 60
    """Of every run."""
    batch_size: int = 128
    """Images a step."""
    drops: tuple[float, float] = (0.625, 0.875)
    """Shares of the training at which α falls by ten."""
    clip_norm: float = 1.0
    """Largest norm of the gradient."""
    mask_interval: float = 0.085
    """Share of the training between two masks of the methods that change theirs now and then; at least a step."""


@dataclasses.dataclass(frozen=True)
class SearchOptions:
    """How the numbers of each method are chosen."""

    trials: int = 6
    """Settings of each method that are tried, drawn from its search space by a low-discrepancy sequence. A method
    whose numbers are all fixed takes them without a trial."""
    tune_at: tuple[float, ...] = (0.95,)
    """Sparsities whose mean validation accuracy decides between the trials. None: all that are compared."""
    tune_seed: int = 1000
    """Of the weights and batches of the trials, and of the sequence; no seed of the final runs."""
    grid: tuple[tuple[str, tuple[float, ...]], ...] = ()
    """Pairs (number, values): instead of the search, a row for every combination."""
    fixed: tuple[tuple[str, float], ...] = ()
    """Pairs (number, value) that are not searched, for the methods that have it."""
    ranges: tuple[tuple[str, tuple[float, float]], ...] = ()
    """Pairs (METHOD.NUMBER, (least, greatest)), searched in the place of the range of experiments/comparison/methods.py
    or of the number that is fixed, there or in `fixed`."""


@dataclasses.dataclass(frozen=True)
class MachineOptions:
    """Where the work is done."""

    together: int | None = None
    """Runs that are trained as one. None: 32 on an accelerator; 1 on a CPU, which has nothing idle to give them."""
    data_dir: Path | None = None
    """Where TFDS keeps its data; default: the variable TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    run_dir: Path | None = None
    """Where the results live; default: runs/NAME. Runs that are recorded there are not made again."""
    minutes: float | None = None
    """Time of this start: only runs that are expected to end within it are made, the others by later starts, on this
    machine or another. None: all."""


@dataclasses.dataclass(frozen=True)
class Comparison(MachineOptions, SearchOptions, TrainingOptions, MethodOptions, DataOptions):  # from the last on
    """Methods side by side: the same data, network, epochs and batches, each tuned by as many trials."""

    FIXED: ClassVar[tuple[str, ...]] = ("grid",)
    """No words of a command line can give lists of any length in a list: it is given in a configuration."""

    def __post_init__(self):
        for name in ("epochs", "batch_size", "validation", "trials", "seeds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}.")
        if not self.methods:
            raise ValueError("methods: expected at least one.")
        for name in ("sparsity", "tune_at"):
            wrong = [share for share in getattr(self, name) if not 0 < share < 1]
            if wrong:
                raise ValueError(f"{name}: expected shares in (0, 1), got {wrong}.")
        if not 0 < self.mask_interval <= 0.1:
            raise ValueError(f"mask_interval: expected a share of the training in (0, 0.1], got {self.mask_interval}.")
        if not 0 < self.drops[0] <= self.drops[1] <= 1:
            raise ValueError(f"drops: expected two shares of the training in (0, 1], in order, got {self.drops}.")
        for name, (low, high) in self.ranges:
            if name.count(".") != 1 or not 0 < low <= high < math.inf:
                raise ValueError(
                    f"ranges: expected a method, a dot and a number's name, such as {self.methods[0]}.learning_rate, "
                    f"with 0 < least ≤ greatest; got {name!r}: {low} to {high}."
                )
        if not self.clip_norm > 0 or not 0 < self.fine_tune_rate < math.inf or self.fine_tune < 0:
            raise ValueError("clip_norm and fine_tune_rate: expected positive numbers; fine_tune: epochs ≥ 0.")
        if self.tune_seed < self.seeds:
            raise ValueError(f"tune_seed: expected none of the seeds 0 to {self.seeds - 1}, got {self.tune_seed}.")
        if self.minutes is not None and not self.minutes > 0:
            raise ValueError(f"minutes: expected a positive number, or None, got {self.minutes}.")
        if self.together is not None and self.together < 1:
            raise ValueError(f"together: expected at least 1 run, got {self.together}.")

    @property
    def judged_at(self) -> tuple[float, ...]:
        """The sparsities by which the trials are judged; none where dense networks are compared."""
        return (self.tune_at or self.sparsity) if self.sparsity else ()

    def ranges_of(self, method: str) -> dict[str, tuple[float, float]]:
        """{number: (least, greatest)} of the ranges that are given for a method."""
        split = [(*name.split("."), span) for name, span in self.ranges]
        return {number: span for name, number, span in split if name == method}

    def settings(self) -> dict[str, Any]:
        """The fields that decide the results, as JSON."""
        return plain(self, ("data_dir", "run_dir", "together", "minutes"))
