"""What is shown of a comparison's record: maps, and the page of all results."""

import json
import shutil
from pathlib import Path

import pytest

from experiments import __main__ as cli
from experiments.comparison.plots import picture
from experiments.comparison.table import markdown, replaced
from experiments.errors import RunError

RECORDS = Path(__file__).parents[2] / "experiments" / "results"


def test_a_grid_of_two_numbers_is_drawn_as_maps_with_every_number_in_them():
    """κ and ν: W, W̃ and two sparsities."""
    record = json.loads((RECORDS / "ablation" / "record.json").read_text())
    panels = picture(record).axes
    assert [len(axes.texts) for axes in panels] == [32] * 4
    best = max(record["rows"], key=lambda row: row["cells"][1]["test"])
    told = max(panels[-1].texts, key=lambda text: float(text.get_text().split()[0]))
    assert told.get_text().startswith(f"{100 * best['cells'][1]['test']:.2f}")
    (down, rows), (along, columns) = record["configuration"]["grid"]
    assert told.get_position() == (columns.index(best["setting"][along]), rows.index(best["setting"][down]))


def test_the_page_of_results_is_what_the_records_say():
    page = RECORDS.parents[1] / "docs" / "results.md"
    found = sorted(RECORDS.glob("*/record.json"))
    assert found
    for file in found:
        record = json.loads(file.read_text())
        assert replaced(page.read_text(), record["name"], markdown(record), page) == page.read_text(), file


@pytest.mark.parametrize("name", sorted(folder.name for folder in RECORDS.iterdir()))
def test_every_record_of_measured_results_is_still_reported(tmp_path, name, capsys):
    """Whatever has changed in the configurations since."""
    shutil.copytree(RECORDS / name, tmp_path / name)
    record = json.loads((tmp_path / name / "record.json").read_text())
    assert cli.main(["report", "compare", str(tmp_path / name)]) == 0
    output = capsys.readouterr().out
    assert all(f"| {row['row']} |" in output for row in record["rows"])
    for cell in record["rows"][0]["cells"]:
        assert f"{100 * cell['test']:.2f}" in output
    assert (tmp_path / name / "comparison.png").exists() == bool(record["configuration"]["sparsity"])


def test_a_level_that_does_not_exist_is_named(tmp_path, capsys):
    """Filters are the groups of a comparison; some records called them by their name."""
    shutil.copytree(RECORDS / "compare_lenet", folder := tmp_path / "compare_lenet")
    text = (folder / "record.json").read_text()
    (folder / "record.json").write_text(text.replace('"level": "group"', '"level": "filter"'))
    assert cli.main(["report", "compare", str(folder)]) == 1
    assert "unknown level 'filter'; did you mean" in capsys.readouterr().err


def test_markers_must_be_there_once_and_closed():
    text = "<!-- comparison a -->\n<!-- end -->"
    assert replaced(text, "a", "new", None) == "<!-- comparison a -->\nnew\n<!-- end -->"
    for broken in ("<!-- comparison a -->", text + text, "<!-- end --><!-- comparison a -->"):
        with pytest.raises(RunError, match="no place for a"):
            replaced(broken, "a", "new", None)
