"""The configuration of a training run."""

import dataclasses
import math
from pathlib import Path
from typing import Any, Literal


@dataclasses.dataclass(frozen=True)
class Config:
    """One training run: data, model, and Split LBI with momentum."""

    dataset: Literal["digits", "mnist", "fashion_mnist", "cifar10", "cifar100"] = "digits"
    """digits: scikit-learn's handwritten digits, embedded. The others: through TFDS."""
    model: Literal[
        "small_cnn", "lenet", "lenet300", "vgg16", "vgg19", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110",
        "wrn22_2", "mobilenetv2",
    ] = "small_cnn"  # fmt: skip
    """Network, from experiments/models."""
    width: int | None = None
    """Filters of every convolution (and units of every dense layer) instead of the published numbers."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of convolutions and matrix products; parameters and V are float32."""
    images: int | None = None
    """Training images to use, the first after those held out are taken away; None: all."""
    augment: bool = False
    """Random crops of images padded by 4, and flips."""
    seed: int = 0
    """Of the initial weights and the order of the batches."""
    epochs: int = 120
    """Passes over the training images; the last incomplete batch of each is left out."""
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
    groups: Literal["layers", "units"] = "layers"
    """layers: the filters of convolutions and the single weights of dense layers. units: each filter and each neuron
    with its bias, which can then be removed exactly."""
    share: float | None = 0.4
    """Share of the training after which half of the groups would have entered with the weights of the start
    (parsimony.path_speed): sets the two strengths. None: they are taken as given."""
    filter_strength: float = 1.0
    """λ of the group lasso on the filters of convolutions, or on all units; only without a share."""
    filter_scale: Literal["rms"] | None = None
    """rms: a filter enters when its root mean square, not its norm, exceeds λ."""
    weight_strength: float = 1.0
    """λ of the lasso on the weights of dense layers; only without a share."""
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

    def __post_init__(self):
        for name in ("epochs", "batch_size", "validation", "checkpoint_every", "snapshots", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}.")
        for name in ("width", "images"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected at least 1, or None, got {value}.")
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
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()
        }
        if plain.get("clip_norm", 0) is None:
            plain["clip_norm"] = math.inf
        return cls(**plain)

    def settings(self) -> dict:
        """The fields that decide the result, as JSON: all but where things are kept."""
        fields = dataclasses.asdict(self)
        del fields["data_dir"], fields["run_dir"]
        plain = lambda value: list(value) if isinstance(value, tuple) else None if value == math.inf else value  # JSON
        return {name: plain(value) for name, value in fields.items()}
