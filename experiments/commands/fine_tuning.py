"""What the commands that cut a run and fine-tune what is left have in common."""

import dataclasses
import functools
from pathlib import Path

from ..runs.load import Run
from ..training.network import Network, distilled


@dataclasses.dataclass(frozen=True, kw_only=True)
class FineTuneOptions:
    """How the fine-tuning goes."""

    learning_rate: float | None = None
    """The first step of the fine-tuning. None: α of the run."""
    distil: float | None = None
    """Weight, in (0, 1], of what W before the cut answers, as the teacher of the fine-tuning; the rest is that of the
    labels. None: the labels alone. A step then costs a forward pass of the whole network more."""
    temperature: float = 2.0
    """By which the logits of both are divided in that comparison."""
    data_dir: Path | None = None
    """Where TFDS keeps its data."""

    def __post_init__(self):
        if not (self.learning_rate is None or self.learning_rate > 0):
            raise ValueError(f"--learning-rate: expected a positive number, got {self.learning_rate}.")
        if self.distil is not None and not 0 < self.distil <= 1:
            raise ValueError(f"--distil: expected a share in (0, 1], got {self.distil}.")
        if not self.temperature > 0:
            raise ValueError(f"--temperature: expected a positive number, got {self.temperature}.")
        if self.distil is not None and not getattr(self, "fine_tune", 0):
            raise ValueError("--distil: is about the fine-tuning; give --fine-tune, a number of epochs.")

    def student(self, network: Network, run: Run, variables) -> Network:
        """The network as it is to be fine-tuned; `variables`: those of the whole network before the cut."""
        if self.distil is None:
            return network
        return distilled(network, functools.partial(run.network.fn, variables), self.temperature, self.distil)
