"""The configuration of a training run."""

import dataclasses
import math
from pathlib import Path
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Config:
    """One training run: data, model, and Split LBI with momentum."""

    dataset: Literal["digits", "mnist"] = "digits"
    """digits: scikit-learn's handwritten digits, embedded. mnist: through TFDS."""
    model: Literal["small_cnn", "lenet"] = "small_cnn"
    """Network, from experiments/models.py."""
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
    kappa: float = 1.0
    """κ, the damping."""
    nu: float = 5.0
    """ν, the coupling of W and Γ."""
    filter_strength: float = 3.0
    """λ of the group lasso on the filters of convolutions."""
    filter_scale: Literal["rms"] | None = None
    """rms: a filter enters when its root mean square, not its norm, exceeds λ."""
    weight_strength: float = 0.2
    """λ of the lasso on the weights of dense layers."""
    momentum: float = 0.9
    """Of the loss gradient."""
    clip_norm: float = math.inf
    """Largest global norm of a batch's loss gradient; it is scaled down to that before momentum. inf: never."""
    weight_decay: float = 0.0
    """Coefficient of W in the loss gradient."""
    checkpoint_every: int = 10
    """Epochs between checkpoints; the last epoch always has one."""
    data_dir: Path | None = None
    """Where TFDS keeps its data; default: the variable TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    run_dir: Path | None = None
    """Where this run lives; default: runs/NAME with the first free number. An unfinished run there is resumed."""

    def __post_init__(self):
        for name in ("epochs", "batch_size", "validation", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}.")
        for name in ("learning_rate", "dual_ratio", "kappa", "nu", "filter_strength", "weight_strength"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected a positive, finite number, got {getattr(self, name)}.")
        if not self.clip_norm > 0:
            raise ValueError(f"clip_norm: expected a positive number or inf, got {self.clip_norm}.")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum: expected a number in [0, 1), got {self.momentum}.")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay: expected a number ≥ 0, got {self.weight_decay}.")
        if any(not 0 < epoch < self.epochs for epoch in self.drop_epochs):
            raise ValueError(f"drop_epochs: expected epochs between 1 and {self.epochs - 1}, got {self.drop_epochs}.")

    def settings(self) -> dict:
        """The fields that decide the result, as JSON: all but where things are kept."""
        fields = dataclasses.asdict(self)
        del fields["data_dir"], fields["run_dir"]
        plain = lambda value: list(value) if isinstance(value, tuple) else None if value == math.inf else value  # JSON
        return {name: plain(value) for name, value in fields.items()}
