"""The Chrome trace, as ui.perfetto.dev reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pipeprof.analyse.analysis import Analysis
from pipeprof.cli import cli
from pipeprof.errors import TraceError
from pipeprof.report.export import chrome
from pipeprof.timeline import ints
from tests.report.page.test_html import ODD


def events(answer: Analysis, path: Path) -> list[dict[str, Any]]:
    return list(json.loads(chrome.write(answer, path).read_text())["traceEvents"])


def test_as_many_batches_as_rows_with_the_same_total_duration(stalled: Analysis, tmp_path: Path) -> None:
    batches = [one["dur"] for one in events(stalled, tmp_path / "t") if one.get("cat") == "batch"]
    table = stalled.run.table("batches")
    assert len(batches) == len(table)
    assert 1000 * sum(batches) == pytest.approx(
        int((ints(table["finish_ns"]) - ints(table["start_ns"])).sum())
    )


def test_each_flow_begins_with_a_batch_and_ends_once(stalled: Analysis, tmp_path: Path) -> None:
    flows: dict[str, list[int]] = {"s": [], "t": [], "f": []}
    for event in events(stalled, tmp_path / "t"):
        if event.get("cat") == "flow":
            flows[event["ph"]].append(event["id"])
    taken = sorted(int(row) + 1 for row in stalled.timeline.batch_row)
    assert sorted(flows["s"]) == sorted(flows["t"]) == sorted(flows["f"]) == taken


def test_tracks_have_names_and_counters_values(stalled: Analysis, tmp_path: Path) -> None:
    found = events(stalled, tmp_path / "t")
    names = {one["args"]["name"] for one in found if one["name"] == "thread_name"}
    assert {"main loop", "worker 0", "worker 1"} <= names
    assert {one["tid"] for one in found if one["ph"] == "X"} <= {
        one["tid"] for one in found if one["name"] == "thread_name"
    }
    assert any(one["ph"] == "C" and one["name"] == "computing" for one in found)


@pytest.mark.parametrize("name", ODD)
def test_odd_runs_are_written(odd: dict[str, Analysis], tmp_path: Path, name: str) -> None:
    assert events(odd[name], tmp_path / "t")[0]["name"] == "process_name"


def test_the_verb_needs_no_other_package(stalled: Analysis, tmp_path: Path) -> None:
    out = tmp_path / "trace.json"
    done = CliRunner().invoke(
        cli, ["export", str(stalled.run.directory), "--to", "chrome", "--out", str(out)]
    )
    assert done.exit_code == 0 and out.exists()
    with pytest.raises(TraceError, match="cannot write"):
        chrome.write(stalled, tmp_path / "none" / "t")
