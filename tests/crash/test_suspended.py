"""Time in which a part of a run was stopped is left out of its window, with a doubt."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from pipeprof.analyse.analysis import load
from pipeprof.record import reader
from tests.forked import Program, verb
from tests.timing import Timing

SCRIPT = """
import time
from torch.utils.data import DataLoader

class Slow:
    def __len__(self):
        return 10**6
    def __getitem__(self, index):
        time.sleep(0.002)
        return index

end = time.monotonic() + 60
for _ in DataLoader(Slow(), batch_size=4, num_workers=2):
    if time.monotonic() > end:
        break
"""
STOP_S = 1.2


def steps_in(directory: Path) -> int:
    return reader.load(directory).table("steps").num_rows if (directory / "run.json").exists() else 0


def wait_for_steps(directory: Path, least: int, program: Program) -> None:
    deadline = time.monotonic() + 60
    while program.alive and time.monotonic() < deadline and steps_in(directory) < least:
        time.sleep(0.05)


@pytest.mark.slow
def test_stops_of_the_group_of_main_and_of_a_worker(tmp_path: Path, timing: Timing) -> None:
    """One run, stopped three times; the workers go on while main stands, and the loop waits for a worker."""
    (tmp_path / "script.py").write_text(SCRIPT)
    out = tmp_path / "run"
    program = Program(verb("trace", "--out", "run", "--no-report", "script.py"), tmp_path)
    try:
        wait_for_steps(out, 30, program)
        worker = psutil.Process(program.pid).children()[0].pid
        for stop, target in ((os.killpg, program.pid), (os.kill, program.pid), (os.kill, worker)):
            stop(target, signal.SIGSTOP)
            time.sleep(STOP_S)
            stop(target, signal.SIGCONT)
            wait_for_steps(out, steps_in(out) + 30, program)
        os.kill(program.pid, signal.SIGINT)
        assert program.finished().returncode == 130
    finally:
        program.kill()
    found = load(out)
    assert found.ledger is not None
    events = [event for event in found.run.table("events").to_pylist() if event["kind"] == "suspended"]
    with timing.compared():  # where no core was free afterwards, a gap is not called a standstill
        assert [event["worker"] for event in events] == [None, None, 0], events
        assert all(int(event["detail"]) > 0.8 * STOP_S * 1e9 for event in events)
        assert "suspended" in {doubt.name for doubt in found.verdict.doubts}
        assert found.ledger.ledger_ns.get("straggler", 0) < 0.5 * STOP_S * 1e9
    starts, ends = found.timeline.standstills
    assert (ends - starts).sum() <= sum(int(event["detail"]) for event in events)
    assert sum(found.ledger.ledger_ns.values()) == found.ledger.window.wall_ns
