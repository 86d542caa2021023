"""Each notebook runs from its first cell to its last, and shows in the repository what it shows when it runs."""

import ast
import base64
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

pytestmark = pytest.mark.slow

HERE = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(HERE.glob("*.ipynb"))
by_name = pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])


def code_cells(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def outputs(cells):
    return [output for cell in cells for output in cell.outputs]


def kinds(cells):
    """What each cell shows, without its values: those of a training differ from machine to machine."""
    shown = lambda output: output.get("name") or tuple(sorted(set(output.data) & {"image/png", "text/plain"}))
    return [[shown(output) for output in cell.outputs] for cell in cells]


def test_there_are_seven():
    assert [path.stem[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05", "06", "07"]


@by_name
def test_it_runs_afresh_and_its_claims_hold(path, tmp_path):
    """In a process of its own: warnings are errors there, and a claim is an `assert` in a cell."""
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    command = [sys.executable, os.fspath(HERE / "execute.py"), os.fspath(copy)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    fresh, committed = code_cells(copy), code_cells(path)
    assert not [output for output in outputs(fresh) if output.output_type == "error" or output.get("name") == "stderr"]
    assert kinds(fresh) == kinds(committed), f"{path.name} shows something else than in the repository: make notebooks"


@by_name
def test_it_was_committed_with_what_it_shows(path):
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]  # run once, from the top
    shown = outputs(cells)
    assert not [output for output in shown if output.output_type == "error" or output.get("name") == "stderr"]
    assert any("image/png" in output.get("data", {}) for output in shown)
    assert any(output.output_type == "stream" for output in shown)
    assert path.stat().st_size < 300 * 1024


@by_name
def test_it_asserts_what_it_claims(path):
    statements = [node for cell in code_cells(path) for node in ast.walk(ast.parse(cell.source))]
    assert sum(isinstance(node, ast.Assert) for node in statements) >= 2


@by_name
def test_it_uses_the_public_library_alone(path):
    for cell in code_cells(path):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.ImportFrom):
                assert not any(part.startswith("_") for part in (node.module or "").split(".")), node.module
            if isinstance(node, ast.Attribute):
                assert not node.attr.startswith("_"), node.attr


@by_name
def test_nothing_of_the_machine_is_in_it(path):
    notebook = nbformat.read(path, as_version=4)
    assert notebook.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    text = "\n".join(
        [cell.source for cell in notebook.cells]
        + [output.get("text", output.get("data", {}).get("text/plain", "")) for output in outputs(code_cells(path))]
    )
    found = re.findall(r"(?:/(?:tmp|home|root|work|Users|opt|usr)/\S*|0x[0-9a-f]{6,}|\b\w+@\w+\.\w+)", text)
    assert not found, f"paths, addresses or names of a machine: {found}"
    for output in outputs(code_cells(path)):
        if "image/png" in output.get("data", {}):
            picture = base64.b64decode(output.data["image/png"])
            assert b"Software" not in picture  # nor who wrote the picture, and with what


def test_a_notebook_that_is_wrong_fails(tmp_path):
    """A false claim and a warning: what the runs above would do with them."""
    for source, message in [("assert 1 + 1 == 3", "AssertionError"), ("import warnings; warnings.warn('old')", "old")]:
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
        nbformat.write(notebook, tmp_path / "wrong.ipynb")
        command = [sys.executable, os.fspath(HERE / "execute.py"), os.fspath(tmp_path / "wrong.ipynb")]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode != 0
        assert message in done.stderr
        assert not outputs(code_cells(tmp_path / "wrong.ipynb"))  # and it was not written over
