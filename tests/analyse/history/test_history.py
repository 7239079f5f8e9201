"""Many runs at a glance: summaries that are read once, groups, costs, and where the rate changed."""

from __future__ import annotations

import json
import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from pipeprof.analyse.history import summaries
from pipeprof.analyse.history.changes import change_points
from pipeprof.analyse.history.history import history
from pipeprof.analyse.history.summaries import CACHE, summarise
from pipeprof.cli import cli
from pipeprof.errors import TraceError
from pipeprof.record.choice import read_choice
from pipeprof.record.schema import RUN_JSON
from pipeprof.report import history as report
from tests.analyse.jobs import Job, make_job
from tests.factory import MS, Plan, make_run
from tests.made_history import Series, make

pytestmark = pytest.mark.usefixtures("of_any_length")

STEADY = Series(runs=40)
DROPPED = Series(
    "other.py", "gpu-2", 60, drop_at=37, workers=(8, 4), cause=("decode", "storage-latency"), seed=1
)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scripts on two hosts; one of them became slower."""
    return make(tmp_path_factory.mktemp("many"), STEADY, DROPPED)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The `run.json` files that were read."""
    read: list[Path] = []
    original = summaries._meta
    monkeypatch.setattr(
        summaries, "_meta", lambda directory: (read.append(directory), original(directory))[1]
    )
    return read


# -- summaries ---------------------------------------------------------------------------------------------


def test_a_summary_has_what_a_run_came_to(many: Path) -> None:
    runs = summarise(many)
    assert len(runs) == 100
    first = next(run for run in runs if run.script == "train.py")
    assert (first.host, first.setting, first.cause, first.mechanism) == (
        *("gpu-1", "batch 64, 8 workers, prefetch 2"),
        *("decode", "gil"),
    )
    assert first.waited_s == pytest.approx(0.12 * 3600)
    assert [run.when_s for run in runs] == sorted(run.when_s for run in runs if run.when_s)


def test_what_was_read_once_is_read_again_only_where_it_changed(tmp_path: Path, counted: list[Path]) -> None:
    make(tmp_path, Series(runs=6))
    before = summarise(tmp_path)
    counted.clear()
    assert summarise(tmp_path) == before
    assert counted == []
    changed, gone = sorted(path for path in tmp_path.iterdir() if path.is_dir())[:2]
    text = (changed / RUN_JSON).read_text()
    (changed / RUN_JSON).write_text(text.replace("gpu-1", "gpu-9"))
    shutil.rmtree(gone)
    after = summarise(tmp_path)
    assert counted == [changed]
    assert [run.host for run in after].count("gpu-9") == 1
    assert len(after) == 5
    assert gone.name not in (tmp_path / CACHE).read_text()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 2}', '{"schema": 1, "runs": [["x", {"a": 1}]]}'])
def test_a_damaged_cache_is_made_anew(text: str, tmp_path: Path) -> None:
    make(tmp_path, Series(runs=3))
    (tmp_path / CACHE).write_text(text)
    assert len(summarise(tmp_path)) == 3
    assert len(json.loads((tmp_path / CACHE).read_text())["runs"]) == 3


def test_a_run_without_a_summary_is_analysed_once(tmp_path: Path) -> None:
    stages = {"decode": 60 * MS, "collate": MS}
    make_run(tmp_path / "shelf" / "run", Plan(batches=60, workers=2, stages=stages))
    asked = []
    (run,) = summarise(tmp_path, lambda done, of: asked.append((done, of)))
    assert asked == [(1, 1)]
    assert (run.directory, run.cause) == (os.path.join("shelf", "run"), "decode")  # noqa: PTH118
    assert run.waiting is not None
    assert run.waiting > 0.2
    summarise(tmp_path, lambda done, of: asked.append((done, of)))
    assert asked == [(1, 1)]


def test_a_job_is_one_entry_with_the_answer_for_all_its_ranks(tmp_path: Path) -> None:
    hosts = {0: "first", 1: "first", 2: "second", 3: "second"}
    make_job(tmp_path / "job", Job(read={2: 30 * MS}, hosts=hosts))
    (job,) = summarise(tmp_path)
    assert (job.ranks, job.host, job.cause, job.status) == (4, "2 hosts", "storage-latency", "complete")
    assert job.rate is not None
    shown = CliRunner().invoke(cli, ["merge", str(tmp_path / "job"), "--json"])
    assert shown.exit_code == 0
    kept = read_choice(tmp_path / "job")
    assert kept is not None
    assert (kept.cause, kept.stall_share, kept.wall_ns) == (job.cause, job.waiting, job.wall_ns)


def test_what_cannot_be_read_says_so_and_hides_nothing_else(tmp_path: Path) -> None:
    make(tmp_path, Series(runs=2))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / RUN_JSON).write_text("{")
    found = history(summarise(tmp_path))
    assert found.unreadable == 1
    assert len(found.runs) == 3
    assert "1 of them not readable" in " ".join(report.lines(found))


def test_no_directory_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="is not a directory"):
        summarise(tmp_path / "none")


# -- changes -----------------------------------------------------------------------------------------------


needs_ruptures = pytest.mark.skipif(
    find_spec("ruptures") is None, reason="the extra `history` is not installed"
)


@needs_ruptures
def test_a_drop_is_found_at_the_right_run_with_what_changed(many: Path) -> None:
    found = history(summarise(many))
    (change,) = found.changes
    assert change.first.directory == "other.py-gpu-2-0037"
    assert change.change == pytest.approx(-0.08, abs=0.01)
    assert change.differs == (("workers", "8", "4"),)
    assert (change.before.runs, change.after.runs) == (37, 23)
    assert (change.before.cause, change.after.cause) == ("decode", "storage-latency")
    text = " ".join(report.lines(found))
    assert "other.py on gpu-2 fell by" in text
    assert "workers 8 → 4" in text


@needs_ruptures
def test_noise_is_no_change() -> None:
    rng = np.random.default_rng(3)
    false = sum(
        len(change_points((1000 * np.exp(rng.normal(0, noise, 300))).tolist()))
        for noise in (0.005, 0.02, 0.1)
        for _ in range(20)
    )
    assert false <= 1, "of 60 steady series"


@needs_ruptures
def test_single_slow_runs_are_no_change_and_hide_none(tmp_path: Path) -> None:
    make(tmp_path, Series(runs=80, drop_at=50, outliers=(10, 30, 45, 70), seed=5))
    (change,) = history(summarise(tmp_path)).changes
    assert change.first.directory.endswith("0050")


@pytest.mark.parametrize("runs", [0, 1, 9])
def test_few_runs_have_no_level(runs: int) -> None:
    assert change_points([float(100 + n % 2) for n in range(runs)]) == []


@needs_ruptures
def test_the_same_rate_always_is_no_change() -> None:
    assert change_points([100.0] * 50) == []
    assert change_points([100.0] * 25 + [90.0] * 25) == [25]


# -- the verb ----------------------------------------------------------------------------------------------


@needs_ruptures
def test_the_verb_tells_cost_groups_and_periods(many: Path, tmp_path: Path) -> None:
    page = tmp_path / "history.html"
    done = CliRunner().invoke(
        cli, ["history", str(many), "--by", "script,setting", "--price", "2", "--html", str(page)]
    )
    assert done.exit_code == 0, done.output
    hours = 40 * 0.12 + 37 * 0.12 + 23 * 0.19
    assert f"{2 * hours:,.2f} at 2 an hour" in done.output
    assert "batch 64, 4 workers" in done.output
    assert str(page) in done.output
    text = page.read_text()
    assert "fell by" in text
    assert "2026-05-02" in text


@needs_ruptures
def test_json_is_for_machines_alone(many: Path) -> None:
    done = CliRunner().invoke(cli, ["history", str(many), "--json", "--price", "1"])
    told = json.loads(done.output)
    assert told["changes"][0]["run"] == "other.py-gpu-2-0037"
    assert told["changes"][0]["differs"] == [{"what": "workers", "before": "8", "after": "4"}]
    assert len(told["runs"]) == 100
    assert told["cost"] == pytest.approx(told["waited_h"])
    assert {group["script"] for group in told["groups"]} == {"train.py", "other.py"}


def test_without_the_library_the_rest_is_told(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ruptures", None)
    found = history(summarise(many))
    assert (found.changes, len(found.groups)) == ([], 2)
    assert found.unsought is not None
    assert "pip install 'pipeprof[history]'" in found.unsought


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0, "%-d %b, %H:%M"), (90, "%H:%M:%S"), (3600, "%-d %b, %H:%M"), (9e5, "%-d %b"), (4e7, "%b %Y")],
)
def test_the_axis_tells_runs_apart_and_says_no_more(seconds: float, written: str) -> None:
    ends: Any = [SimpleNamespace(when_s=1.7e9), SimpleNamespace(when_s=1.7e9 + seconds)]
    assert report.date_format(ends) == written


def test_bad_use_is_one_clear_error(many: Path, tmp_path: Path) -> None:
    assert CliRunner().invoke(cli, ["history", str(many), "--by", "weather"]).exit_code == 2
    empty = CliRunner().invoke(cli, ["history", str(tmp_path)])
    assert (empty.exit_code, empty.output.strip()) == (0, f"no runs in {tmp_path}")
