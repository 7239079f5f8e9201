"""Show a run while it is written: the last seconds, exactly, and all of it."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from rich.text import Text
from torch.utils.data import DataLoader, Dataset

from pipeprof import units
from pipeprof.analyse.analysis import Analysis, analyse
from pipeprof.analyse.live.run import LiveRun, StepTotals
from pipeprof.cli.show.live import _Screen
from pipeprof.measure.session.session import Session
from pipeprof.record.reader import load
from pipeprof.report.text import live as text
from tests.factory import MS, Plan, S, make_run
from tests.forked import Program, verb


class Slow(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 100_000

    def __getitem__(self, index: int) -> torch.Tensor:
        time.sleep(0.002)
        return torch.zeros(4)


def train(directory: Path, stop: Path) -> None:
    with Session(directory, "trace", "train.py", lines=True) as session:
        for _ in session.observe(DataLoader(Slow(), 4, num_workers=2)):
            if stop.exists():
                break


def test_a_run_is_followed_while_it_is_written(tmp_path: Path) -> None:
    out, stop = tmp_path / "run", tmp_path / "stop"
    program = Program(lambda: train(out, stop), tmp_path)
    try:
        deadline = time.monotonic() + 60
        while not (out / "steps.arrows").exists() or not (out / "lines.arrows").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        live = LiveRun(out, window_s=2.0)
        while live.all.steps < 150 or not live.workers():
            assert live.poll()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        found = live.analyse()
        assert found is not None
        assert found.ledger is not None
        assert sum(found.ledger.ledger_ns.values()) == found.ledger.window.wall_ns
        assert found.ledger.window.wall_ns < 2.5e9
        assert 0 < live.window.steps <= live.all.steps
        piped = Program(verb("live", "--for", "3", str(program.pid)), tmp_path).finished()
        parts = [text.ShownRun("", live, found)]
        page = text.page(parts, 0, of_all=False, with_workers=True, width=80)
    finally:
        stop.touch()
        done = program.finished(60)
    assert done.returncode == 0
    assert not live.poll(), "the run has ended"
    assert live.all.steps <= load(out).table("steps").num_rows

    assert piped.returncode == 0, piped.stderr
    said = piped.stdout.splitlines()
    assert said
    assert all(line.startswith("step ") and "samples/s" in line and len(line) <= 80 for line in said)
    rows = [row.plain for row in page]
    assert all(len(row) <= 80 for row in rows)
    assert rows[0].startswith("pipeprof live · train.py · running")
    assert any(row.startswith("All        ") for row in rows)
    assert any("█" in row for row in rows)
    assert any(row.startswith(("  0  ", "  1  ")) for row in rows), "each worker's stage"
    totals = text.page(parts, 0, of_all=True, with_workers=False, width=80)
    assert not any(row.plain == "Workers" for row in totals)


@pytest.mark.parametrize("ended", [True, False])
def test_what_is_no_run_under_way_is_one_error(tmp_path: Path, ended: bool) -> None:
    out = tmp_path / "run"
    if ended:
        Session(out, "trace").close()
    done = Program(verb("live", str(out) if ended else str(os.getpid())), tmp_path).finished()
    assert done.returncode == 2
    assert "has ended: complete" in done.stderr if ended else "writes no run" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_row_that_stays_is_not_drawn_again(capsys: pytest.CaptureFixture[str]) -> None:
    screen = _Screen(Console(width=40, height=10, color_system=None, force_terminal=True))
    screen.draw([Text("head"), Text("one"), Text("foot")])
    assert capsys.readouterr().out == "\x1b[2Khead\n\x1b[2Kone\n\x1b[2Kfoot\n\x1b[J"
    screen.draw([Text("head"), Text("two"), Text("foot")])
    assert capsys.readouterr().out == "\x1b[3F\n\x1b[2Ktwo\n\n\x1b[J"
    screen.draw([Text("head")])
    assert capsys.readouterr().out == "\x1b[3F\n\x1b[J"
    screen.draw([Text(str(number)) for number in range(20)])
    assert capsys.readouterr().out.count("\n") == 9, "what does not fit is left out"


def followed(directory: Path, device_wait: int) -> tuple[LiveRun, Analysis]:
    """A made run on CUDA whose loop is in next() most of the time, as if it were followed."""
    plan = Plan(
        accelerator="none", batches=40, workers=1, stages={"decode": 90 * MS}, main=40 * MS, compute=0, copy=0
    )
    made = make_run(
        directory, replace(plan, device_wait=device_wait), accelerator={"kind": "cuda", "name": "made"}
    )
    live, found = LiveRun(made), analyse(load(made))
    live.all = live.window = StepTotals(40, 1280, wait_ns=2 * S, first_ns=1, last_ns=4 * S + 1)
    live.ledger_ns = dict(found.verdict.measured.ledger_ns or {})
    return live, found


@pytest.mark.parametrize(("device_wait", "stall"), [(0, "stall 0%"), (30 * MS, "for decode")])
def test_what_the_device_did_not_feel_is_no_stall(tmp_path: Path, device_wait: int, stall: str) -> None:
    live, found = followed(tmp_path / "run", device_wait)
    share = f"stall {units.percent(found.verdict.stall_share)}"
    parts = [text.ShownRun("", live, found)]
    rows = [row.plain for row in text.page(parts, 0, of_all=True, with_workers=False, width=120)]
    (all_of_it,) = (row for row in rows if row.startswith("All "))
    for said in (text.line(parts), all_of_it):
        assert share in said and "in next() 50%" in said
    assert stall in text.line(parts)
