"""The configuration of a network that grows."""

import dataclasses
import math
from typing import ClassVar, Literal

from ..config import TEXTS, Config


@dataclasses.dataclass(frozen=True)
class GrowthOptions:
    """When a layer widens, by how much, and what it may cost."""

    tau: float = 0.8
    """τ: a layer whose saturation, the share of its units that are in use after a round, reaches it grows."""
    tau_of: tuple[tuple[str, float], ...] = ()
    """Pairs (regular expression, τ) for the sets in whose names it is found; the first that is found counts."""
    caps: tuple[tuple[str, int], ...] = ()
    """Pairs (regular expression, most units)."""
    step: int = 2
    """Units to add to a layer, at least."""
    ratio: float = 0.5
    """Units to add, as a share of those there are."""
    least: float = 0.2
    """θ: a unit is in use that is read by weights of this share of the norm that those of the others have."""
    candidates: int = 8
    """Random units for each that is added; those are added whose reading weights have the largest gradient."""
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
    fine_tune: int = 20
    """Epochs of SGD with momentum at the end, without Γ; the step falls to zero along a cosine."""
    fine_tune_rate: float = 0.1
    """The step of the fine-tuning at its start."""
    compare: Literal["never", "parameters", "macs"] = "never"
    """Afterwards train fixed networks at the same cost in multiply-adds: of the final widths, and of the published ones
    scaled down to as many parameters or multiply-adds."""


@dataclasses.dataclass(frozen=True)
class Grow(Config, GrowthOptions):
    """A network that grows: rounds of Split LBI; after each, what is not used goes, and layers that are full widen.

    In the first round the network learns. Each after that is a path on the weights that read units: they enter one
    after the other, those with the largest ‖V‖ first, and until then they are pulled towards zero. New units are read
    by zeros and have to earn their place against that pull. α falls along a cosine, so that what is left of a unit that
    has faded is no noise.
    """

    FIXED: ClassVar[tuple[str, ...]] = (
        "weights", "drops", "dual_finish", "dual_ratio", "sparsity", "share", "nu", "finish", "scope", "groups",
        "filter_strength", "weight_strength", "filter_scale", "stop", "stop_sparsity", "snapshots", "snapshot_groups",
        "keep", "checkpoint_every", "checkpoint_minutes", "coordinator", "processes", "process",
    )  # fmt: skip

    epochs: int = 10
    """Epochs of a round."""
    sparsity: float | None = 0.0
    open_by: float = 0.8
    """Share of a round after which all units are in; in the rest W settles."""
    finish: bool = False
    pull: float | None = 3.0
    """How far a unit that the loss does not hold fades in a round until it enters, e⁻ᵖ at most; sets ν."""
    drops: tuple[float, ...] = ()
    groups: Literal["layers", "weights", "units"] | None = "units"
    patience: int = 3
    """Rounds without a better held-out accuracy after which growing ends, back at the best round."""

    def __post_init__(self):
        super().__post_init__()
        default = {field.name: field.default for field in dataclasses.fields(Grow)}
        for name in self.FIXED:
            if getattr(self, name) != default[name]:
                raise ValueError(f"{name}: a growing network cannot change it; leave it at {default[name]!r}.")
        if self.dataset in TEXTS:
            raise ValueError(f"dataset: {self.dataset} is a text; growing is judged by an accuracy, on images.")
        if self.pull is None or not 0 < self.pull < math.inf:
            raise ValueError(f"pull: expected a positive number, got {self.pull}.")
        if not 0 < self.least <= 1:
            raise ValueError(f"least: expected a share of the norm of the other units, in (0, 1], got {self.least}.")
        for name, tau in (("tau", self.tau), *self.tau_of):
            if not 0 < tau <= 1:
                raise ValueError(f"τ of {name}: expected a share of the units in (0, 1], got {tau}.")
        for name in ("step", "round_to", "rounds", "candidates", "parameters", "macs"):
            if (number := getattr(self, name)) is not None and number < 1:
                raise ValueError(f"{name}: expected at least 1, got {number}.")
        if not 0 <= self.ratio < math.inf or self.fine_tune < 0 or not 0 < self.fine_tune_rate < math.inf:
            raise ValueError("ratio and fine_tune: expected numbers ≥ 0; fine_tune_rate: a positive one.")
        if self.minutes is not None and not self.minutes > 0:
            raise ValueError(f"minutes: expected a positive number, got {self.minutes}.")
