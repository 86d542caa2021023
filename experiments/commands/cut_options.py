"""What the commands that remove units of a run have in common."""

import dataclasses
from typing import Any, Literal

import jax

import parsimony as pm

from ..runs.load import Run
from .fine_tuning import FineTuneOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class CutOptions(FineTuneOptions):
    """What is common to the commands that remove units of a run."""

    order: Literal["entry", "dual", "gamma", "magnitude"] = "dual"
    """Order in which units are kept, as in parsimony.rank."""
    scope: Literal["global", "layer"] = "global"
    """One order of all units, or an equal share of each layer."""
    round_to: int = 1
    """Layers keep a multiple of so many units."""
    minimum: int = 1
    """Layers keep at least so many units."""
    protect: tuple[str, ...] = ()
    """Regular expressions: layers that are kept whole."""
    rounds: int = 30
    """Rounds of the timing."""
    images: int = 128
    """Images in the batch whose time is meant by milliseconds."""

    def __post_init__(self):
        for name in ("rounds", "images"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name}: expected at least 1, got {getattr(self, name)}.")
        super().__post_init__()

    @property
    def choice(self) -> dict[str, Any]:
        """What `choose` and `family` take of it."""
        return {key: getattr(self, key) for key in ("order", "scope", "round_to", "minimum", "protect")}

    def units(self, run: Run, variables, target: str) -> pm.structure.Units:
        """Those of the run's network, found with the batch that counts: one image, but for milliseconds."""
        one = run.dataset.example
        shape = (self.images if target == "ms" else 1, *one.shape[1:])
        return pm.structure.find_units(run.network.fn, variables, jax.ShapeDtypeStruct(shape, one.dtype))
