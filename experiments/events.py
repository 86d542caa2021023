"""TensorBoard's event files, beside the lines of JSON that say the same."""

from pathlib import Path
from typing import Any

import tensorboardX


class Events:
    """Scalars of a run in RUN/events; after a resume those behind the checkpoint are declared void."""

    def __init__(self, directory: Path, step: int):
        self._writer = tensorboardX.SummaryWriter(str(directory / "events"), purge_step=step + 1 if step else None)

    def append(self, line: dict[str, Any]) -> None:
        """A line of the curve: each number by its name, and the density of each parameter."""
        step = line["step"]
        for name in ("loss", "accuracy", "sparse_accuracy", "total_density", "time", "epoch"):
            self._writer.add_scalar(name, line[name], step)
        for name, value in line["density"].items():
            self._writer.add_scalar(f"density/{name}", value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
