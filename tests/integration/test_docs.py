"""The pages in docs/: their Python runs from top to bottom, and the reference has every public name once."""

import re
from pathlib import Path

import jax
import pytest

import parsimony as pm
from helpers.public import PUBLIC

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))


def blocks(page: Path):
    """(line of its first statement, code) of each Python block of a page."""
    text = page.read_text()
    for found in re.finditer(r"^```python\n(.*?)^```$", text, re.M | re.S):
        yield text.count("\n", 0, found.start(1)), found[1]


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if list(blocks(page))], ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(page, capsys):
    namespace = {"__name__": "__main__"}
    with jax.numpy_rank_promotion("allow"):  # as a reader has it
        for line, code in blocks(page):
            exec(compile("\n" * line + code, str(page), "exec"), namespace)


def test_all_pages_but_that_on_other_libraries_have_code():
    assert {page.stem for page in PAGES if not list(blocks(page))} <= {"coming-from"}


def test_the_reference_has_every_public_name_once():
    found = [
        name
        for page in (ROOT / "docs" / "reference").glob("*.md")
        for name in re.findall(r"^::: (\S+)$", page.read_text(), re.M)
    ]
    assert sorted(found) == sorted(name.replace("pm", "parsimony", 1) for name in PUBLIC)


def test_every_name_that_a_page_speaks_of_is_there():
    for page in PAGES:
        for name in re.findall(r"\bpm\.(?:structure\.|theory\.)?\w+", page.read_text()):
            thing = pm
            for part in name.split(".")[1:]:
                assert hasattr(thing, part), f"{page.name}: {name}"
                thing = getattr(thing, part)
