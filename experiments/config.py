"""The configuration of a training run."""

import dataclasses
import math
from pathlib import Path
from typing import Any, Literal

ELSEWHERE = ("data_dir", "run_dir", "workers", "coordinator", "processes", "process", "checkpoint_minutes")


@dataclasses.dataclass(frozen=True)
class Config:
    """One training run: data, model, and Split LBI with momentum."""

    dataset: Literal["digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "imagenet2012"] = "digits"
    """digits: scikit-learn's handwritten digits, embedded. The others: through TFDS; imagenet2012 is read from disk
    batch by batch, in random crops that are mirrored or not."""
    model: Literal[
        "small_cnn", "tiny_cnn", "lenet", "lenet300", "vgg16", "vgg19", "resnet20", "resnet32", "resnet44", "resnet56",
        "resnet110", "resnet18_cifar", "resnet50_cifar", "wrn22_2", "mobilenetv2", "alexnet", "resnet18", "resnet34",
        "resnet50", "vit_ti16",
    ] = "small_cnn"  # fmt: skip
    """Network, from experiments/models."""
    widths: tuple[int, ...] = ()
    """Units of all layers (one number), or of each (the sets that `find_units` names, in its order); none: as
    published."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of convolutions and matrix products; parameters and V are float32."""
    images: int | None = None
    """Training images to use, the first after those held out are taken away; None: all."""
    augment: bool = False
    """Random crops of images padded by 4, and flips; not for ImageNet, which has its own."""
    seed: int = 0
    """Of the initial weights and the order of the batches."""
    epochs: int = 120
    """Passes over the training images, laid end to end: a batch may hold the end of one and the start of the next."""
    batch_size: int = 128
    """Images a step, over all devices together."""
    validation: int = 180
    """Images held out of the training set; the curves are measured on them."""
    learning_rate: float = 0.05
    """α."""
    drop_epochs: tuple[int, ...] = (90,)
    """Epochs (from 0) before which α is multiplied by 0.1."""
    dual_ratio: float = 1.0
    """Step of V over α: the speed of the path."""
    dual_finish: float | None = None
    """From the first drop of α on, step of V over the α of the start: above dual_ratio the path runs on, to dense W̃,
    while W converges. None: V's step falls with α."""
    kappa: float = 1.0
    """κ, the damping."""
    nu: float = 10.0
    """ν, the coupling of W and Γ."""
    groups: Literal["layers", "weights", "units"] = "layers"
    """layers: the filters of convolutions and the single weights of dense layers. weights: the single weights of both.
    units: each filter and each neuron with its bias, which can then be removed exactly."""
    share: float | None = 0.4
    """Share of the training after which half of the groups would have entered with the weights of the start
    (parsimony.path_speed): sets the two strengths. None: they are taken as given."""
    filter_strength: float = 1.0
    """λ of the group lasso on the filters of convolutions, or on all units; only without a share."""
    filter_scale: Literal["rms"] | None = None
    """rms: a filter enters when its root mean square, not its norm, exceeds λ."""
    weight_strength: float = 1.0
    """λ of the lasso on single weights; only without a share."""
    momentum: float = 0.9
    """Of the loss gradient."""
    nesterov: bool = False
    """Momentum by Nesterov."""
    clip_norm: float = math.inf
    """Largest global norm of a batch's loss gradient; it is scaled down to that before momentum. inf: never."""
    weight_decay: float = 0.0
    """Coefficient of W in the loss gradient."""
    snapshots: int = 1
    """Snapshots of the path in each epoch, the last at its end."""
    snapshot_groups: int = 20_000
    """Norms by group are written for parameters of at most so many groups; of larger ones counts and density."""
    checkpoint_every: int = 10
    """Epochs between checkpoints, of which the latest two are kept; the last epoch always has one."""
    checkpoint_minutes: float = 15.0
    """Minutes after which there is one within an epoch, too."""
    keep_epochs: tuple[int, ...] = ()
    """Epochs (from 1) whose checkpoints are kept for good, for tickets."""
    stop: Literal["never", "one_se", "sparsity", "stable"] = "never"
    """When to end before the last epoch. one_se: the sparsest point within one standard error of the best validation
    accuracy lies patience epochs back. sparsity: W̃ has become as dense as stop_sparsity allows. stable: the
    support has not changed over patience epochs."""
    stop_sparsity: float = 0.9
    """Share of the penalised weights outside the support at which the rule sparsity stops."""
    patience: int = 5
    """Epochs that the rules one_se and stable look back."""
    data_dir: Path | None = None
    """Where TFDS keeps its data; default: the variable TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    run_dir: Path | None = None
    """Where this run lives; default: runs/NAME with the first free number. An unfinished run there is resumed."""
    workers: int | None = None
    """Processes that decode ImageNet; default: one for each core."""
    coordinator: str | None = None
    """Address and port of the first of several processes that train as one, the same words in all; auto: as SLURM,
    Open MPI or a TPU pod say."""
    processes: int | None = None
    """How many they are."""
    process: int | None = None
    """Which of them this is, from 0."""

    def __post_init__(self):
        for name in ("epochs", "batch_size", "validation", "checkpoint_every", "snapshots", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}.")
        if not self.checkpoint_minutes > 0:
            raise ValueError(f"checkpoint_minutes: expected a positive number, got {self.checkpoint_minutes}.")
        if self.workers is not None and self.workers < 0:
            raise ValueError(f"workers: expected a number ≥ 0, or None, got {self.workers}.")
        if self.augment and self.dataset == "imagenet2012":
            raise ValueError("augment: the crops of imagenet2012 are random already; leave it out.")
        if self.images is not None and self.images < 1:
            raise ValueError(f"images: expected at least 1, or None, got {self.images}.")
        if any(width < 1 for width in self.widths):
            raise ValueError(f"widths: expected numbers of units, at least 1, got {self.widths}.")
        for name in ("learning_rate", "dual_ratio", "kappa", "nu", "filter_strength", "weight_strength"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected a positive, finite number, got {getattr(self, name)}.")
        if self.dual_finish is not None and not (0 < self.dual_finish < math.inf and self.drop_epochs):
            raise ValueError(f"dual_finish: expected a positive number, with drop_epochs; got {self.dual_finish}.")
        if self.share is not None and not 0 < self.share <= 1:
            raise ValueError(f"share: expected a share of the training in (0, 1] or None, got {self.share}.")
        if not 0 <= self.stop_sparsity < 1:
            raise ValueError(f"stop_sparsity: expected a share of the weights in [0, 1), got {self.stop_sparsity}.")
        if any(not 0 < epoch <= self.epochs for epoch in self.keep_epochs):
            raise ValueError(f"keep_epochs: expected epochs from 1 to {self.epochs}, got {self.keep_epochs}.")
        if not self.clip_norm > 0:
            raise ValueError(f"clip_norm: expected a positive number or inf, got {self.clip_norm}.")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum: expected a number in [0, 1), got {self.momentum}.")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay: expected a number ≥ 0, got {self.weight_decay}.")
        if any(not 0 < epoch < self.epochs for epoch in self.drop_epochs):
            raise ValueError(f"drop_epochs: expected epochs between 1 and {self.epochs - 1}, got {self.drop_epochs}.")

    @classmethod
    def from_settings(cls, settings: dict) -> "Config":
        """The configuration that `settings` wrote."""
        as_tuple = lambda value: tuple(map(as_tuple, value)) if isinstance(value, list) else value
        plain: dict[str, Any] = {name: as_tuple(value) for name, value in settings.items()}
        if plain.get("clip_norm", 0) is None:
            plain["clip_norm"] = math.inf
        return cls(**plain)

    def settings(self) -> dict:
        """The fields that decide the result, as JSON: all but where things are kept, when, and by whom it is done."""
        return plain(self, ELSEWHERE)


def plain(config, without: tuple[str, ...]) -> dict[str, Any]:
    """The fields of a configuration as JSON, which has no tuples and no inf."""
    as_list = lambda value: list(map(as_list, value)) if isinstance(value, tuple) else value
    fields = {name: value for name, value in dataclasses.asdict(config).items() if name not in without}
    return {name: None if value == math.inf else as_list(value) for name, value in fields.items()}


@dataclasses.dataclass(frozen=True)
class Grow(Config):
    """A network that grows: rounds of training by Split LBI, between which the layers that use all they have widen.

    A unit of a layer is in use when Γ has taken it in. What trains the network in a round is as in `train`; α is
    constant, and every layer's units have a strength of their own by `share`.
    """

    epochs: int = 10
    """Epochs of a round."""
    drop_epochs: tuple[int, ...] = ()
    """α is constant: none."""
    groups: Literal["layers", "weights", "units"] = "units"
    """What grows are units: a filter or a neuron with its bias and its normalisation."""
    tau: float = 0.8
    """τ: a layer whose saturation, the share of its units in supp Γ, reaches it after a round grows."""
    tau_of: tuple[tuple[str, float], ...] = ()
    """Pairs (regular expression, τ) for the sets in whose names it is found; the first that is found counts."""
    caps: tuple[tuple[str, int], ...] = ()
    """Pairs (regular expression, most units)."""
    step: int = 1
    """Units to add to a layer, at least."""
    ratio: float = 0.5
    """Units to add, as a share of those there are."""
    round_to: int = 1
    """Widths that grow become a multiple."""
    rounds: int = 20
    """Budget: rounds of training."""
    parameters: int | None = None
    """Budget: numbers in the network, batch statistics among them. What does not fit into it whole is cut down."""
    macs: int | None = None
    """Budget: multiply-adds for one image."""
    minutes: float | None = None
    """Budget: after the round in which they have passed, nothing grows any more."""
    patience: int = 3
    """Rounds without a better held-out accuracy after which growing ends, back at the best round."""
    fine_tune: int = 20
    """Epochs of SGD with momentum at the end, without Γ; the step falls to zero along a cosine."""
    fine_tune_rate: float = 0.1
    """The step of the fine-tuning at its start."""
    compare: Literal["never", "parameters", "macs"] = "never"
    """Afterwards train fixed networks at the same cost in multiply-adds: of the final widths, and of the published ones
    scaled down to as many parameters or multiply-adds."""

    def __post_init__(self):
        super().__post_init__()
        default = {field.name: field.default for field in dataclasses.fields(Grow)}
        for name in (
            "drop_epochs", "dual_finish", "groups", "stop", "snapshots", "snapshot_groups", "keep_epochs",
            "checkpoint_every", "checkpoint_minutes", "coordinator", "processes", "process",
        ):  # fmt: skip
            if getattr(self, name) != default[name]:
                raise ValueError(f"{name}: a network that grows has no choice of it; leave it at {default[name]!r}.")
        if self.share is None:
            raise ValueError("share: expected a share of a round in (0, 1]; each layer's strength follows from it.")
        for name, tau in (("tau", self.tau), *self.tau_of):
            if not 0 < tau <= 1:
                raise ValueError(f"τ of {name}: expected a share of the units in (0, 1], got {tau}.")
        for name in (
            "step",
            "round_to",
            "rounds",
            *(n for n in ("parameters", "macs") if getattr(self, n) is not None),
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}.")
        if not 0 <= self.ratio < math.inf or self.fine_tune < 0 or not 0 < self.fine_tune_rate < math.inf:
            raise ValueError("ratio and fine_tune: expected numbers ≥ 0; fine_tune_rate: a positive one.")
        if self.minutes is not None and not self.minutes > 0:
            raise ValueError(f"minutes: expected a positive number, got {self.minutes}.")
