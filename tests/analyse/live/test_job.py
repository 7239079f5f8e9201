"""Follow the runs of a job while they are written, as often as a budget of CPU time allows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

import pytest

from pipeprof.analyse.live.budget import BUDGET, Analyses
from pipeprof.analyse.live.job import LiveJob
from pipeprof.analyse.live.run import LiveRun
from pipeprof.errors import TraceError
from pipeprof.record.directories import part_of
from pipeprof.report.text import live as text
from tests.benchmarks.live import BATCHES_A_FLUSH, flush, opened


def test_ranks_stand_side_by_side_those_that_come_later_too(tmp_path: Path) -> None:
    first = opened(part_of(tmp_path, 0))
    for number in range(4):
        flush(first, number)
    now = iter((0.0, 0.0, 1000.0, 1000.0))
    job, analyses = LiveJob(tmp_path), Analyses(lambda: next(now))
    assert job.poll() and list(job.runs) == ["rank 0"]
    second = opened(part_of(tmp_path, 1))
    flush(second, 0)
    assert job.poll() and list(job.runs) == ["rank 0", "rank 1"]
    for _ in job.runs:
        analyses.look(list(job.runs.values()))
    parts = [text.ShownRun(name, live, analyses.of(live)) for name, live in job.runs.items()]
    assert text.line(parts).startswith("2 ranks | step 100 to 400 | 6,416 samples/s | rank ")
    assert "stall " in text.line(parts) and "?" not in text.line(parts)
    rows = [row.plain for row in text.page(parts, 1, of_all=False, with_workers=True, width=80)]
    assert all(len(row) <= 80 for row in rows)
    assert rows[0] == "2 ranks"
    assert rows[1].startswith("  rank 0  step       400 ") and rows[2].startswith("> rank 1  step       100 ")
    assert rows[3].startswith("pipeprof live ·") and rows[-1] == text.KEYS_OF_JOB
    for writer in (first, second):
        writer.close("complete")
    assert not job.poll()


def test_of_very_many_ranks_those_that_wait_most_are_shown(tmp_path: Path) -> None:
    writer = opened(tmp_path)
    flush(writer, 0)
    live = LiveRun(tmp_path)
    live.poll()
    parts = [text.ShownRun(f"rank {number}", live, None) for number in range(40)]
    rows = [row.plain for row in text.page(parts, 0, of_all=False, with_workers=False, width=80)]
    assert rows[0] == "40 ranks, of which 24 that wait least are not shown"
    assert sum(row.lstrip("> ").startswith("rank ") for row in rows) == text.MOST_PARTS
    writer.close("complete")


def test_what_holds_no_run_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="holds no run"):
        LiveJob(tmp_path)


def test_analyses_keep_to_their_budget_whatever_else_is_done() -> None:
    clock, spent = [100.0], [5.0]
    made: list[float] = []

    class Costly:
        def analyse(self) -> None:
            spent[0] += 0.05
            made.append(clock[0])

    analyses = Analyses(lambda: clock[0], lambda: spent[0])
    for _ in range(600):
        analyses.look([cast(LiveRun, Costly())])
        clock[0] += 1.0
        spent[0] += 0.002  # reading and drawing
    assert made[:2] == [100.0, 105.0]
    assert 50 <= len(made) <= 120
    assert spent[0] - 5.0 <= BUDGET * 600 * 1.05


def test_all_is_counted_once_however_it_is_read(tmp_path: Path) -> None:
    writer = opened(tmp_path)
    flush(writer, 0)
    live = LiveRun(tmp_path)
    live.poll()
    for number in range(1, 130):
        flush(writer, number)
    late = LiveRun(tmp_path)
    for each in (live, late):  # a few, and then many at once
        each.poll()
    flush(writer, 130)
    for each in (live, late):
        each.poll()
    assert live.all == late.all
    assert live.all.steps == 131 * BATCHES_A_FLUSH
    assert live.window == late.window
    assert 3000 <= live.window.steps <= 3200
    writer.close("complete")


def test_a_run_whose_process_was_killed_goes_on_no_more(tmp_path: Path) -> None:
    writer = opened(tmp_path)
    flush(writer, 0)
    live = LiveRun(tmp_path)
    assert live.poll()
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    text_of_run = (tmp_path / "run.json").read_text()
    assert f'"pid": {os.getpid()}' in text_of_run
    (tmp_path / "run.json").write_text(text_of_run.replace(f'"pid": {os.getpid()}', f'"pid": {pid}'))
    assert not live.poll()
    assert live.run.status == "partial"
    writer.close("complete")
