"""Downloads and prepares a TFDS data set once."""

import dataclasses
from pathlib import Path

import tyro

from ..data import in_memory


@dataclasses.dataclass(frozen=True)
class PrepareOptions:
    """Downloads a data set and writes it as ArrayRecord files, which every later run reads."""

    dataset: tyro.conf.Positional[str]
    """Its name, as TFDS has it."""
    data_dir: Path | None = None
    """Where TFDS keeps its data; default: the variable TFDS_DATA_DIR, else ~/tensorflow_datasets."""


def prepare(options: PrepareOptions) -> None:
    print(f"prepared in {in_memory.prepare(options.dataset, options.data_dir)}")
