"""What a report is made of: charts with their values, text that is escaped, results that are looked at before use."""

import json
import xml.etree.ElementTree as ElementTree

import pytest

from experiments.errors import RunError
from experiments.plots import charts, page
from experiments.plots.svg import Line, chart
from experiments.runs import results
from experiments.runs.files import write_json

NASTY = "<script>alert('x')</script>&\"'"


def drawn(content: str) -> ElementTree.Element:
    """The chart in a panel, as XML, which rejects what is not escaped."""
    return ElementTree.fromstring(content)[0]


def test_a_chart_shows_each_value_where_one_points():
    svg = drawn(chart("t", "x", "y", [Line("a", [(1, 10), (2, 20), (3, 15)], ["one", "two", "three"])]))
    points = [(float(c.get("cx")), float(c.get("cy")), c[0].text) for c in svg.iter("circle")]
    assert [tip for *_, tip in points] == ["a: one", "a: two", "a: three"]
    (x1, y1, _), (x2, y2, _), (x3, y3, _) = points
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.2)  # to a tenth of a pixel
    assert y1 - y2 == pytest.approx(2 * (y1 - y3), abs=0.2)  # larger values stand higher
    assert x1 < x2 < x3


def test_a_chart_leaves_out_what_is_not_finite_and_is_nothing_without_points():
    points, tips = [(1, float("nan")), (2, 5.0), (float("inf"), 1.0), (0, 3.0)], ["a", "b", "c", "d"]
    svg = drawn(chart("t", "x", "y", [Line("l", points, tips)], log_x=True))
    assert [c[0].text for c in svg.iter("circle")] == ["l: b"]
    assert chart("t", "x", "y", [Line("l", [(1, float("nan"))], ["a"])]) == ""


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (0.0, 1e-9), (-3.0, 5e6), (1e-3, 1e3)])
@pytest.mark.parametrize("log_x", [False, True])
def test_a_chart_of_any_range_stays_inside_its_frame(low, high, log_x):
    svg = drawn(chart("t", "x", "y", [Line("l", [(max(low, 1e-12), low), (high, high)], ["a", "b"])], log_x=log_x))
    _, _, width, height = map(float, svg.get("viewBox").split())
    for circle in svg.iter("circle"):
        assert 0 < float(circle.get("cx")) < width
        assert 0 < float(circle.get("cy")) < height
    assert len([*svg.iter("text")]) > 4, "numbers at the axes"


def test_of_very_many_points_some_are_drawn_and_the_last_one():
    count = 10_001
    svg = drawn(chart("t", "x", "y", [Line("l", [(i, i) for i in range(count)], [str(i) for i in range(count)])]))
    tips = [c[0].text for c in svg.iter("circle")]
    assert len(tips) < 300
    assert tips[-1] == "l: 10000"


def test_names_and_values_are_escaped_everywhere():
    curve = [
        {"step": s, "epoch": s, "time": 0.1, "accuracy": 0.5, "sparse_accuracy": 0.4, "total_density": 0.3,
         "density": {NASTY: 0.3}} for s in (1, 2)
    ]  # fmt: skip
    one, two = {NASTY: curve}, {NASTY: curve, "b": curve}
    sweep = {
        "layers": [NASTY], "scope": "layer", "fine_tune": 0,
        "rows": [{"order": NASTY, "fine_tune": 0, "sparsity": 0.5, "test": 0.9}],
    }  # fmt: skip
    rows = [{"round": 1, "parameters": 10, "accuracy": 0.5, "widths": {NASTY: 3}}]
    for draw in (charts.metrics, charts.densities, charts.along_the_path):
        for curves in (one, two):
            ElementTree.fromstring(draw(curves))
    for content in (charts.cut(sweep), charts.growth({NASTY: rows}), charts.widths(rows)):
        ElementTree.fromstring(content)
    parts = [(NASTY, page.text(NASTY) + page.verbatim(NASTY) + page.table([[NASTY], [NASTY]]))]
    assert "<script" not in page.page(NASTY, [(NASTY, parts)]) + charts.densities(one)


def test_results_come_in_the_order_in_which_they_were_made_and_other_files_are_left_alone(tmp_path):
    point = {"epoch": 1, "time": 0.1, "total_density": 0.1, "accuracy": 0.9, "sparse_accuracy": 0.8, "groups": {}}
    for name, sparsity in [("stop-10", 3), ("stop", 1), ("stop-2", 2), ("stopped", 9), ("stop-list", 9)]:
        write_json(tmp_path / f"{name}.json", {"rule": "stable", "sparsity": sparsity, "point": point})
    assert [result["sparsity"] for result in results.of(tmp_path, "stop")] == [1, 2, 3]


@pytest.mark.parametrize(
    ("command", "change", "message"),
    [
        ("stop", lambda r: r | {"point": {}}, "'point' of its content has no 'epoch'"),
        ("compact", lambda r: r | {"units": {"conv": [1, 2, 3]}}, "'conv' of 'units' .* has 3 parts instead of 2"),
        ("compact", lambda r: r | {"latency": {"1": {"whole": 1}}}, "'1' of 'latency' of its content has no 'cut'"),
        ("prune", lambda r: r | {"rows": [{}]}, "a part of 'rows' of its content has no 'order'"),
        ("ticket", lambda r: [], r"its content is '\[\]'"),
        ("family", lambda r: r | {"members": [{}]}, "a part of 'members' of its content has no 'budget'"),
    ],
)
def test_a_damaged_result_is_one_sentence(tmp_path, command, change, message):
    accuracy, size = {"validation": 0.9, "test": 0.9}, {"parameters": 2, "macs": 2, "bytes on disk": 2}
    whole = {
        "stop": {"rule": "stable", "sparsity": 0.9},
        "compact": {
            "accuracy": dict.fromkeys(("whole", "cut", "sparse W̃"), accuracy), "route": "module", "units": {},
            "size": {"whole": size, "cut": size}, "latency": {}, "equality": {"relative error": 0, "same answers": 1},
        },
        "prune": {
            "layers": [], "sparsity": [0.5], "orders": ["entry"], "scope": "layer", "level": "group", "fine_tune": 0,
            "learning_rate": 0.1, "checkpoint": 3, "dense": accuracy,
        },
        "ticket": {},
        "family": {
            "target": "macs", "tuning": "together", "fine_tune": 1, "chosen": None, "cost": {},
            "whole": {"size": size | {"bytes": 2}, "latency": {"1": 1, "128": 1}, "accuracy": accuracy},
        },
    }[command]  # fmt: skip
    (tmp_path / f"{command}.json").write_text(json.dumps(change(whole)))
    with pytest.raises(RunError, match=message):
        results.of(tmp_path, command)
