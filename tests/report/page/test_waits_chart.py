"""Marks of the waits' histogram: no label lies on the line of another mark."""

from __future__ import annotations

from itertools import combinations
from typing import Any

from pipeprof.report.page import charts

ROWS = [{"from": 10.0 * i, "to": 10.0 * (i + 1), "steps": i, "text": ""} for i in range(1, 10)]
MARKS = [{"at": at, "label": f"{name} {at} ms"} for name, at in (("p50", 60.0), ("p95", 95.0), ("p99", 99.0))]


def placed(marks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the marks as the chart draws them."""
    layers = charts.waits(ROWS, marks, "made")["layer"]
    drawn = [row for layer in layers if layer["mark"]["type"] == "text" for row in layer["data"]["values"]]
    return sorted(drawn, key=lambda mark: mark["at"])


def test_a_line_begins_below_the_labels_of_those_right_of_it() -> None:
    drawn = placed(MARKS)
    assert not any(mark["left"] for mark in drawn)
    for one, later in combinations(drawn, 2):
        assert later["row"] <= one["row"] - 14  # a line of text


def test_a_label_without_room_on_its_left_stands_right_of_its_line() -> None:
    drawn = placed([{"at": 10.5, "label": "p50 10.5 ms"}, *MARKS[1:]])
    assert [mark["left"] for mark in drawn] == [True, False, False]
