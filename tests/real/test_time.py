"""Time that is no part of the loop, runs that end early, and advice that would be wrong."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from pipeprof.analyse.analysis import load as analysed
from pipeprof.record.reader import load
from pipeprof.simulate.forecast import Forecast
from pipeprof.units import NS_PER_S
from tests.forked import Program, verb
from tests.timing import Timing

HERE = Path(__file__).parent


@pytest.mark.parametrize(("how", "paused"), [("cells", True), ("loaders", True), ("epochs", False)])
def test_time_outside_the_loops_is_no_part_of_the_verdict(how: str, paused: bool, tmp_path: Path) -> None:
    traced = Program(
        verb("trace", "--no-report", "-q", "--out", "out", str(HERE / "time_outside.py"), how), tmp_path
    )
    assert traced.finished().returncode == 0
    verdict = analysed(tmp_path / "out").verdict
    measured = verdict.measured
    assert measured.outside.startup_ns == 0, "there are no workers to start"
    assert verdict.cause != "startup" and verdict.fix != "persistent-workers"
    assert (measured.outside.pauses_ns >= NS_PER_S) == paused
    assert measured.wall_ns is not None and measured.ledger_ns is not None
    assert sum(measured.ledger_ns.values()) == measured.wall_ns


def test_a_loader_made_anew_for_each_epoch_starts_no_workers(tmp_path: Path, timing: Timing) -> None:
    traced = Program(
        verb("trace", "--no-report", "-q", "--out", "out", str(HERE / "time_outside.py"), "anew"), tmp_path
    )
    assert traced.finished().returncode == 0
    verdict = analysed(tmp_path / "out").verdict
    ledger_ns, wall_ns = verdict.measured.ledger_ns, verdict.measured.wall_ns
    assert ledger_ns is not None and wall_ns is not None
    assert not ledger_ns.get("startup") and verdict.cause != "startup"
    assert verdict.fix != "persistent-workers"
    with timing.compared():
        assert ledger_ns["accelerator"] / wall_ns > 0.75


def test_a_signal_ends_a_script_with_its_verdict(tmp_path: Path) -> None:
    traced = Program(verb("trace", "--out", "out", str(HERE / "stopped.py")), tmp_path).finished()
    run = load(tmp_path / "out")
    assert run.status == "interrupted"
    assert run.table("steps").num_rows >= 300
    assert "Where each step's time went" in traced.stderr


def test_a_cell_that_is_run_again_makes_a_run_beside_the_first(tmp_path: Path) -> None:
    def cell() -> None:
        sys.argv = ["rerun_cell.py"]
        runpy.run_path(str(HERE / "rerun_cell.py"), run_name="__main__")

    done = Program(cell, tmp_path).finished()
    assert done.stdout == "40\n40\n", done.stderr
    assert "runs/mine holds a run already; this one is written to runs/mine-2" in done.stderr
    assert [load(tmp_path / "runs" / name).table("steps").num_rows for name in ("mine", "mine-2")] == [40, 40]


@pytest.mark.heavy
def test_tiny_batches_are_not_advised_to_send_fewer_bytes(tmp_path: Path) -> None:
    traced = Program(
        verb("trace", "--no-report", "-q", "--out", "out", str(HERE / "tiny_batches.py")), tmp_path
    )
    assert traced.finished().returncode == 0
    advised = [advice.fix.word for advice in Forecast(analysed(tmp_path / "out")).advice]
    assert "lighter-transfer" not in advised
