"""Prepared files: ArrayRecord read by index, without TensorFlow, and errors that name the file; ImageNet by default."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader

from ..errors import RunError

NAME = "imagenet2012"
ARCHIVES = {"train": "ILSVRC2012_img_train.tar", "validation": "ILSVRC2012_img_val.tar"}


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A split by TFDS's name, in TFDS's data folder; None is TFDS's own choice of one. ImageNet stays JPEG."""

    split: str
    data_dir: str | None
    name: str = NAME

    def check(self) -> int:
        """How many examples there are, after a look at every file.

        Raises:
          RunError: where something is missing or not whole.
        """
        if self.name == NAME:
            self._check_folder()
        with ThreadPoolExecutor(64) as pool:  # a thousand files, on a network perhaps
            return sum(pool.map(functools.partial(_check_file, self.name), self.files()))

    def version(self) -> str:
        return self._source().dataset_info.full_name

    def files(self) -> list:
        """TFDS's instructions, one a file: filename, take (as many as it holds)."""
        info = self._source().dataset_info
        with readable(self.name, self.data_dir):
            return info.splits[self.split].file_instructions

    def read(self, wanted: Sequence[int]) -> list[dict]:
        """The examples of some indices: {image, label, ...}, the image an array, or of ImageNet the bytes of a JPEG.

        Raises:
          RunError: for a record that cannot be read; with the file, and the record's place in it.
        """
        source = self._source()
        try:
            return list(source.__getitems__(wanted))
        except Exception:
            for index in wanted:  # one by one, to find out which
                try:
                    source[index]
                except Exception as error:  # of Riegeli, of the protocol buffer or of the file system
                    raise RunError(f"{self.place(index)} cannot be read: {error}. Copy the file again.") from error
            raise

    def place(self, index: int) -> str:
        """Where an example lies, for a message."""
        record = index
        for file in self.files():
            if record < file.take:
                return f"record {record} of {file.filename} (index {index} of {self.split})"
            record -= file.take
        raise IndexError(index)

    def _source(self) -> Any:
        return _open(self.name, self.split, self.data_dir)

    def _check_folder(self) -> None:
        with readable(NAME, self.data_dir):
            builder = tfds.builder(NAME, data_dir=self.data_dir)
        folder = Path(builder.data_path)
        manual = folder.parents[1] / "downloads" / "manual"
        archives = f"{' and '.join(ARCHIVES.values())} (https://image-net.org/download-images)"
        option = "" if self.data_dir is None else f" --data-dir {self.data_dir}"
        how = f"put {archives} into {manual} and run `python -m experiments prepare {NAME}{option}`"
        if not (folder / "dataset_info.json").exists():
            raise RunError(
                f"{NAME} is not prepared in {folder.parents[1]}. It has to be downloaded by hand: {how}, or point "
                "TFDS_DATA_DIR to where it is."
            )
        form = builder.info.file_format
        if form is None or form.value != "array_record":
            raise RunError(
                f"{folder} holds {NAME} as {form and form.value}, which cannot be read by index; prepare it as "
                "array_record in another --data-dir."
            )
        if self.split not in builder.info.splits:
            raise RunError(
                f"{folder} has no {self.split} split: {ARCHIVES.get(self.split)} was missing when it was prepared. "
                f"Remove that folder, {how}."
            )


@contextlib.contextmanager
def readable(name: str, data_dir: str | None) -> Iterator[None]:
    """Within it TFDS reads what it has written beside the records; what it stumbles over becomes a RunError."""
    try:
        yield
    except RunError:
        raise
    except Exception as error:  # of JSON, of protocol buffers, of TFDS
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        where = data_dir or "TFDS's own folder"
        raise RunError(
            f"the metadata of {name} in {where} cannot be used: {reason}. Copy dataset_info.json again, or prepare "
            f"{name} anew."
        ) from error


@functools.cache
def _open(name: str, split: str, data_dir: str | None) -> Any:
    """The data source of this process; of ImageNet the images as they are on disk."""
    decoders = {"image": tfds.decode.SkipDecoding()} if name == NAME else None
    with readable(name, data_dir):
        return tfds.data_source(name, split=split, data_dir=data_dir, decoders=decoders, download=False)


def _check_file(name: str, file) -> int:
    """How many records a file holds, if as many as it should: one that was cut off may open as a file with none."""
    path, again = os.fspath(file.filename), f"copy it again or prepare {name} anew"
    if not Path(path).exists():
        raise RunError(f"{path} is missing; {again}.")
    try:
        reader = ArrayRecordReader(path)
        records = reader.num_records()
        reader.close()
    except RuntimeError as error:
        raise RunError(f"{path} is truncated or damaged; {again} ({error}).") from error
    if records != file.examples_in_shard:
        raise RunError(
            f"{path} is truncated or damaged; {again} (it holds {records} records instead of {file.examples_in_shard})."
        )
    return records
