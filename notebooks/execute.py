"""Runs notebooks from their first cell to their last in a fresh kernel, and writes them back with what they showed.

python notebooks/execute.py [NOTEBOOK ...]      all of this folder, if none is named
"""

import base64
import io
import os
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

HERE = Path(__file__).parent
# Whatever a reader would be warned of is an error: the notebooks show how things are done.
STRICT = """
import warnings

warnings.simplefilter("error")
warnings.filterwarnings("default", category=PendingDeprecationWarning, message=".*do_shutdown")  # of the kernel itself
"""


def read(path: Path) -> nbformat.NotebookNode:
    """The notebook, with its sources and the outputs that it was committed with."""
    return nbformat.read(path, as_version=4)


def executed(notebook: nbformat.NotebookNode, timeout: int = 600) -> nbformat.NotebookNode:
    """The same cells with fresh outputs, of one CPU device; a cell that fails raises `CellExecutionError`.

    What depends on the machine and not on the story is left out: times of execution and the version of the kernel.
    """
    fresh: Any = nbformat.from_dict({**notebook, "cells": [nbformat.v4.new_code_cell(STRICT), *notebook.cells]})
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=1"  # the tests simulate eight
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags.strip()}
    environment["TF_CPP_MIN_LOG_LEVEL"] = "3"  # on a busy machine XLA would complain of slow compilations
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    client = NotebookClient(fresh, timeout=timeout, kernel_name="python3", record_timing=False, coalesce_streams=True)
    client.extra_arguments = ["--IPKernelApp.log_level=ERROR"]
    client.execute(env=environment)
    del fresh.cells[0]
    count = 0
    for cell in fresh.cells:
        cell.metadata = nbformat.from_dict({})
        if cell.cell_type == "code":
            count += 1
            cell.execution_count = count
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    output.execution_count = count
                if "image/png" in output.get("data", {}):
                    output.data["image/png"] = smaller(output.data["image/png"])
    fresh.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    return fresh


def smaller(picture: str) -> str:
    """A PNG, in base64, with a palette of 256 colours: a third of the size, and no difference to be seen."""
    file = io.BytesIO()
    Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB").quantize(256).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def main(names: list[str]) -> None:
    for path in [Path(name) for name in names] or sorted(HERE.glob("*.ipynb")):
        begin = time.perf_counter()
        nbformat.write(executed(read(path)), path)
        print(f"{path.name}: {time.perf_counter() - begin:.0f} s, {path.stat().st_size / 1024:.0f} KiB", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
