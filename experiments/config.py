"""The configuration of a training run: flat fields, in the groups that `--help` shows them in.

What is a point in the training is a share of it, so that a run of any length needs no other field than `epochs`.
"""

import dataclasses
import math
import typing
from pathlib import Path
from typing import Any, ClassVar, Literal

from .settings import fits, plain

ELSEWHERE = (
    "data_dir", "run_dir", "workers", "parallel", "coordinator", "processes", "process", "checkpoint_minutes",
)  # fmt: skip

TEXTS = ("python_docs",)
"""The data sets of text, in which the label of each character is the next one."""


@dataclasses.dataclass(frozen=True)
class DataOptions:
    """What is learned from."""

    dataset: Literal[
        "digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "imagenet2012", "python_docs",
    ] = "digits"  # fmt: skip
    """digits: scikit-learn's handwritten digits, embedded. python_docs: the text of Python's own help, of which each
    character is to be told by those before it. The others: through TFDS; imagenet2012 is read from disk batch by batch,
    in random crops that are mirrored or not."""
    images: int | None = None
    """Training images, or pieces of text, to use: the first after those held out are taken away; None: all."""
    image_size: int | None = None
    """Height and width to which images are averaged down when they are loaded; None: as they are."""
    validation: int = 180
    """Images, or pieces of text, held out of the training set; the curves are measured on them."""
    augment: bool = False
    """Random crops of images padded by 4, and flips; not for ImageNet, which has its own, nor for text."""


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """The network."""

    model: Literal[
        "small_cnn", "tiny_cnn", "lenet", "lenet300", "vgg16", "vgg19", "resnet8", "resnet20", "resnet32", "resnet44",
        "resnet56", "resnet110", "resnet18_cifar", "resnet50_cifar", "wrn22_2", "mobilenetv2", "alexnet", "resnet18",
        "resnet34", "resnet50", "vit_ti16", "vit_nano", "vit_mini", "gpt_nano", "gpt_micro", "gpt_mini",
    ] = "small_cnn"  # fmt: skip
    """Its name in experiments/models."""
    widths: tuple[int, ...] = ()
    """Units of all layers (one number), or of each (the sets that `find_units` names, in its order); none: as
    published."""
    weights: str | None = None
    """Folder of the weights to start from, those of this model: a run, a folder of Hugging Face (GPT-2, ViT), or an
    exported model. It is read once. None: the seed makes them."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of convolutions and matrix products; parameters and V are float32."""


@dataclasses.dataclass(frozen=True)
class OptimizerOptions:
    """The steps of W, and their schedule."""

    epochs: int = 120
    """Passes over the training images, laid end to end: a batch may hold the end of one and the start of the next."""
    batch_size: int = 128
    """Images a step, over all devices together."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """What is made of the loss gradient before the step: its momentum, or Adam (b1: the momentum, b2 = 0.99)."""
    learning_rate: float = 0.05
    """α."""
    drops: tuple[float, ...] = (0.75,)
    """Shares of the training after which α is multiplied by 0.1."""
    momentum: float = 0.9
    """Of the loss gradient."""
    nesterov: bool = False
    """Momentum by Nesterov."""
    weight_decay: float = 0.0
    """Coefficient of W in the loss gradient."""
    clip_norm: float = math.inf
    """Largest global norm of a batch's loss gradient; it is scaled down to that before momentum. inf: never."""


@dataclasses.dataclass(frozen=True)
class PathOptions:
    """Γ and V: which groups there are, and how fast they enter."""

    groups: Literal["layers", "weights", "units"] | None = None
    """layers: the filters of convolutions and the single weights of dense layers. weights: the single weights of both.
    units: each filter and each neuron with its bias and its normalisation, which can then be removed exactly. None:
    units for a network with batch statistics, where a filter alone does not fade; else layers."""
    sparsity: float | None = 0.7
    """Share of the penalised weights that is zero at the end of the path, which opens by itself (parsimony.pace).
    None: a share or strengths set its pace."""
    open_by: float = 0.7
    """Share of the training after which the path is open; only with a sparsity."""
    finish: bool = True
    """After that W is finished inside the support, so that at the end W = W̃; else W stays dense, with W̃ beside it."""
    pull: float | None = None
    """How far a weight that the loss does not hold fades until the path is open, e⁻ᵖ; sets ν. None: 2 with a finish,
    else 5."""
    scope: Literal["layer", "global"] = "layer"
    """The sparsity of each layer, or of all of them together."""
    kappa: float = 1.0
    """κ, the damping."""
    nu: float | None = None
    """ν, the coupling of W and Γ. None: from the pull; without a sparsity 10."""
    share: float | None = None
    """Instead of a sparsity: the share of the training after which half of the groups would have entered with the
    weights of the start (parsimony.path_speed), which sets the two strengths."""
    filter_strength: float | None = None
    """Instead of both: λ of the group lasso on the filters of convolutions, or on all units. None: 1."""
    weight_strength: float | None = None
    """Instead of both: λ of the lasso on single weights. None: 1."""
    filter_scale: Literal["rms"] | None = None
    """rms: a filter enters when its root mean square, not its norm, exceeds λ."""
    dual_ratio: float = 1.0
    """Step of V over α: the speed of the path."""
    dual_finish: float | None = None
    """From the first drop of α on, step of V over the α of the start: above dual_ratio the path runs on, to dense W̃,
    while W converges. None: V's step falls with α."""


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """What a run draws, keeps and leaves, and when it ends."""

    seed: int = 0
    """Of the initial weights and the order of the batches."""
    run_dir: Path | None = None
    """Where this run lives; default: runs/NAME with the first free number. An unfinished run there is resumed."""
    snapshots: int = 1
    """Snapshots of the path in each epoch, the last at its end."""
    snapshot_groups: int = 20_000
    """Norms by group are written for parameters of at most so many groups; of larger ones counts and density."""
    checkpoint_every: int = 10
    """Epochs between checkpoints, of which the latest two are kept; the last epoch always has one."""
    checkpoint_minutes: float = 15.0
    """Minutes after which there is one within an epoch, too."""
    keep: tuple[float, ...] = ()
    """Shares of the training: the checkpoint of the nearest end of an epoch is kept for good, for tickets."""
    stop: Literal["never", "one_se", "sparsity", "stable"] = "never"
    """When to end before the last epoch. one_se: the sparsest point within one standard error of the best validation
    accuracy lies patience epochs back. sparsity: W̃ has become as dense as stop_sparsity allows. stable: the
    support has not changed over patience epochs."""
    stop_sparsity: float = 0.9
    """Share of the penalised weights outside the support at which the rule sparsity stops."""
    patience: int = 5
    """Epochs that the rules one_se and stable look back."""


@dataclasses.dataclass(frozen=True)
class MachineOptions:
    """Where the work is done."""

    data_dir: Path | None = None
    """Where TFDS keeps its data; default: the variable TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    workers: int | None = None
    """Processes that decode ImageNet; default: one for each core."""
    parallel: Literal["pmap", "mesh", "fsdp"] = "pmap"
    """How devices share the work. pmap: each its part of a batch, by jax.pmap. mesh: the same by jax.jit, where a
    normalisation sees the whole batch. fsdp: as mesh, with weights, V and momentum in parts over the devices."""
    coordinator: str | None = None
    """Address and port of the first of several processes that train as one, the same words in all; auto: as SLURM,
    Open MPI or a TPU pod say."""
    processes: int | None = None
    """How many they are."""
    process: int | None = None
    """Which of them this is, from 0."""


@dataclasses.dataclass(frozen=True)
class Config(MachineOptions, RunOptions, PathOptions, OptimizerOptions, ModelOptions, DataOptions):  # from the last on
    """One training run: data, model, and Split LBI."""

    FIXED: ClassVar[tuple[str, ...]] = ()
    """Fields of which there is no choice, and which `--help` leaves out."""

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
        if self.dataset in TEXTS:
            images = {"augment": self.augment, "image_size": self.image_size}
            wrong = [f"{name}: is for images" for name, given in images.items() if given]
            wrong += ["stop: one_se needs the error of an accuracy"] * (self.stop == "one_se")
            if wrong:
                raise ValueError(f"{wrong[0]}; {self.dataset} is a text: leave it out.")
        if self.images is not None and self.images < 1:
            raise ValueError(f"images: expected at least 1, or None, got {self.images}.")
        if any(width < 1 for width in self.widths):
            raise ValueError(f"widths: expected numbers of units, at least 1, got {self.widths}.")
        for name in ("learning_rate", "dual_ratio", "kappa", "nu", "pull", "filter_strength", "weight_strength"):
            if (number := getattr(self, name)) is not None and not 0 < number < math.inf:
                raise ValueError(f"{name}: expected a positive, finite number, got {number}.")
        if self.dual_finish is not None and not (0 < self.dual_finish < math.inf and self.drops):
            raise ValueError(f"dual_finish: expected a positive number, with drops of α; got {self.dual_finish}.")
        _check_pace(self)
        if not 0 <= self.stop_sparsity < 1:
            raise ValueError(f"stop_sparsity: expected a share of the weights in [0, 1), got {self.stop_sparsity}.")
        if any(not 0 < share <= 1 for share in self.keep):
            raise ValueError(f"keep: expected shares of the training in (0, 1], got {self.keep}.")
        if not self.clip_norm > 0:
            raise ValueError(f"clip_norm: expected a positive number or inf, got {self.clip_norm}.")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum: expected a number in [0, 1), got {self.momentum}.")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay: expected a number ≥ 0, got {self.weight_decay}.")
        if any(not 0 < share < 1 for share in self.drops):
            raise ValueError(
                f"drops: expected shares of the training in (0, 1), such as 0.75 for epoch 90 of 120, got {self.drops}."
            )

    @property
    def kept_epochs(self) -> set[int]:
        """Epochs (from 1) whose checkpoints are kept for good."""
        return {max(1, round(share * self.epochs)) for share in self.keep}

    @classmethod
    def from_settings(cls, settings: dict) -> "Config":
        """The configuration that `settings` wrote."""
        as_tuple = lambda value: tuple(map(as_tuple, value)) if isinstance(value, list) else value
        fields: dict[str, Any] = {name: as_tuple(value) for name, value in settings.items()}
        if fields.get("clip_norm", 0) is None:
            fields["clip_norm"] = math.inf
        for name, hint in typing.get_type_hints(cls).items():
            if name in fields and not fits(fields[name], hint):
                raise ValueError(f"{name}: {fields[name]!r} is not what this field holds")
        return cls(**fields)

    def settings(self) -> dict:
        """The fields that decide the result, as JSON: all but where things are kept, when, and by whom it is done."""
        return plain(self, ELSEWHERE)


def _check_pace(config: Config) -> None:
    """One of three sets the pace of the path: a sparsity, a share, or strengths."""
    strengths = [n for n in ("filter_strength", "weight_strength") if getattr(config, n) is not None]
    if config.sparsity is None:
        if config.share is not None and not 0 < config.share <= 1:
            raise ValueError(f"share: expected a share of the training in (0, 1] or None, got {config.share}.")
        if config.share is not None and strengths:
            raise ValueError(f"{strengths[0]}: a share sets the strengths; leave one of the two out.")
        if config.share is None and not strengths:
            raise ValueError(
                "sparsity: nothing sets the pace of the path; give --sparsity 0.7, with which it opens by itself, "
                "--share 0.4, or --filter-strength and --weight-strength."
            )
        for name in ("open_by", "pull", "finish", "scope"):
            if getattr(config, name) != getattr(PathOptions, name):
                raise ValueError(f"{name}: has a meaning only with a sparsity; give --sparsity or leave it out.")
        return
    if not 0 <= config.sparsity < 1:
        raise ValueError(f"sparsity: expected a share of the weights in [0, 1) or None, got {config.sparsity}.")
    for name in ("share", *strengths, "dual_finish"):
        if getattr(config, name) is not None:
            how = "add --sparsity None to set it by a share or by strengths"
            raise ValueError(f"{name}: the sparsity of {config.sparsity:g} sets the pace of the path; {how}.")
    if config.dual_ratio != 1:
        raise ValueError("dual_ratio: the sparsity sets the pace of the path; leave it out.")
    if config.nu is not None and config.pull is not None:
        raise ValueError("pull: sets ν, which is given; leave one of the two out.")
    if not 0 < config.open_by <= 1 or (config.finish and config.open_by == 1):
        raise ValueError(
            f"open_by: expected a share of the training in (0, 1), or with --no-finish also 1; got {config.open_by}."
        )
