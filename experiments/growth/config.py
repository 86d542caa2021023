"""The configuration of a network that grows."""

import dataclasses
import math
from typing import ClassVar, Literal

from ..config import TEXTS, Config


@dataclasses.dataclass(frozen=True)
class GrowthOptions:
    """When a layer widens, by how much, and what it may cost."""

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
    fine_tune: int = 20
    """Epochs of SGD with momentum at the end, without Γ; the step falls to zero along a cosine."""
    fine_tune_rate: float = 0.1
    """The step of the fine-tuning at its start."""
    compare: Literal["never", "parameters", "macs"] = "never"
    """Afterwards train fixed networks at the same cost in multiply-adds: of the final widths, and of the published ones
    scaled down to as many parameters or multiply-adds."""


@dataclasses.dataclass(frozen=True)
class Grow(Config, GrowthOptions):
    """A network that grows: rounds of training by Split LBI, between which the layers that use all they have widen.

    A unit of a layer is in use when Γ has taken it in. What trains the network in a round is as in `train`; α is
    constant, and every layer's units have a strength of their own by `share`: under a sparsity every layer would be as
    full as that says, and none would show that it needs more.
    """

    FIXED: ClassVar[tuple[str, ...]] = (
        "drops", "dual_finish", "sparsity", "open_by", "finish", "pull", "scope", "groups", "filter_strength",
        "weight_strength", "stop", "stop_sparsity", "snapshots", "snapshot_groups", "keep", "checkpoint_every",
        "checkpoint_minutes", "coordinator", "processes", "process",
    )  # fmt: skip

    epochs: int = 10
    """Epochs of a round."""
    sparsity: float | None = None
    share: float | None = 0.4
    """Share of a round after which half of the units of a layer would have entered with the weights of the start."""
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
        if self.share is None:
            raise ValueError("share: expected a share of a round in (0, 1]; each layer's strength follows from it.")
        for name, tau in (("tau", self.tau), *self.tau_of):
            if not 0 < tau <= 1:
                raise ValueError(f"τ of {name}: expected a share of the units in (0, 1], got {tau}.")
        for name in ("step", "round_to", "rounds", "parameters", "macs"):
            if (number := getattr(self, name)) is not None and number < 1:
                raise ValueError(f"{name}: expected at least 1, got {number}.")
        if not 0 <= self.ratio < math.inf or self.fine_tune < 0 or not 0 < self.fine_tune_rate < math.inf:
            raise ValueError("ratio and fine_tune: expected numbers ≥ 0; fine_tune_rate: a positive one.")
        if self.minutes is not None and not self.minutes > 0:
            raise ValueError(f"minutes: expected a positive number, got {self.minutes}.")
