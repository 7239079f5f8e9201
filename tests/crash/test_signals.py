"""Signals under `trace`: a script's own handlers stay, and where it has none the run ends whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from torch.utils.data import DataLoader

import pipeprof
from pipeprof.measure.session.interrupts.signals import HeldSignals, Stops
from pipeprof.record.reader import load
from tests.crash.harness import has_our_traceback
from tests.forked import Program, verb

ENDLESS = """
import time
from pathlib import Path
from torch.utils.data import DataLoader

class Slow:
    def __len__(self):
        return 10**6
    def __getitem__(self, index):
        time.sleep(0.002)
        return index

for step, _ in enumerate(DataLoader(Slow(), batch_size=2, num_workers=2)):
    if step == 30:
        Path("ready").touch()
"""
VERDICT = "Where each step's time went"


def _trace() -> None:
    """End at once at the door's exit code: multiprocessing's own end is not ours, and not a script's."""
    code = 1
    try:
        verb("trace", "--out", "run", "--no-report", "script.py")()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except KeyboardInterrupt:  # after the door's own end; python says so too
        code = 130
    sys.stdout.flush()
    os._exit(code)


def ended(program: Program) -> subprocess.CompletedProcess[str]:
    """Wait for the program itself: its workers look for it every five seconds only."""
    deadline = time.monotonic() + 60
    while psutil.Process(program.pid).status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(program.pid, signal.SIGKILL)
    return program.finished()


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[[str], Program]]:
    """Trace a script; return when it has made the file `ready`."""
    programs: list[Program] = []

    def start(text: str) -> Program:
        (tmp_path / "script.py").write_text(text)
        program = Program(_trace, tmp_path)
        programs.append(program)
        deadline = time.monotonic() + 60
        while not (tmp_path / "ready").exists() and program.alive and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (tmp_path / "ready").exists(), "it hangs, or has ended: a signal would meet something else"
        return program

    yield start
    for program in programs:
        program.kill()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.heavy)])
def test_a_signal_that_the_script_does_not_handle(
    number: signal.Signals, begin: Callable[[str], Program], tmp_path: Path
) -> None:
    """It ends by the signal, as under python, with all of its record and the verdict."""
    program = begin(ENDLESS)
    os.kill(program.pid, number)
    traced = ended(program)
    assert traced.returncode == -number, traced.stderr  # 128 + number in a shell
    assert VERDICT in traced.stderr and not has_our_traceback(traced.stderr)
    run = load(tmp_path / "run")
    assert (run.status, run.meta.signal) == ("interrupted", number.name)
    assert (tmp_path / "run" / "steps.parquet").exists() and len(run.table("steps")) > 30


OWN = """
import os, signal, sys
from multiprocessing import get_context
from pathlib import Path
from time import sleep
assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

def end(number, frame):
    print("its own", flush=True)
    sys.exit(5)

child = get_context("fork").Process(target=sleep, args=(60,))
child.start()
child.terminate()
child.join()
print(child.exitcode)
assert signal.signal(signal.SIGTERM, end) is signal.SIG_DFL
assert signal.getsignal(signal.SIGTERM) is end
"""


@pytest.mark.slow
def test_a_script_s_own_handler_comes_first(begin: Callable[[str], Program], tmp_path: Path) -> None:
    """It finds the default handler in place; a child that it forks has that."""
    program = begin(OWN + ENDLESS)
    os.kill(program.pid, signal.SIGTERM)
    traced = ended(program)
    assert (traced.returncode, traced.stdout) == (5, "-15\nits own\n"), traced.stderr
    assert VERDICT in traced.stderr
    assert load(tmp_path / "run").meta.signal is None


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no core can be chosen here")
def test_a_child_that_is_ended_at_once_ends(tmp_path: Path) -> None:
    """Before Python has come round in it, which then forgets a signal that has come to a handler of its own.

    On one core the parent goes on first, so that most of the children have their signal before they begin.
    """

    def main() -> None:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        stops = Stops(lambda name: None)
        stops.take()
        ended = 0
        for _ in range(20):
            if (pid := os.fork()) == 0:
                time.sleep(1)
                os._exit(0)
            os.kill(pid, signal.SIGTERM)
            ended += os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        stops.withdraw()
        print(ended, mask)

    assert Program(main, tmp_path).finished().stdout == "20 set()\n"


@pytest.mark.heavy  # where torch says in a destructor that a worker is lost, python itself ends with 1
@pytest.mark.parametrize("after_s", [0.0, 0.1, 0.5])
def test_ctrl_c_twice(after_s: float, begin: Callable[[str], Program], tmp_path: Path) -> None:
    """The second may come while the run is closed, while it is reported, or after all."""
    program = begin(ENDLESS)
    os.killpg(program.pid, signal.SIGINT)
    time.sleep(after_s)
    if program.alive:
        os.killpg(program.pid, signal.SIGINT)
    traced = program.finished()
    assert traced.returncode == 130, traced.stderr
    assert "Aborted" not in traced.stderr
    run = load(tmp_path / "run")
    assert run.status == "interrupted" and len(run.table("steps")) > 30


def test_what_ends_a_run_is_not_broken_off() -> None:
    """Ctrl-C, and torch's word of a lost worker, wait until the run is closed."""

    def lost(number: int, frame: object) -> None:
        raise RuntimeError("DataLoader worker (pid 7) exited unexpectedly")

    before = signal.signal(signal.SIGCHLD, lost)
    try:
        held = HeldSignals()
        held.begin()
        held.begin()
        for number in (signal.SIGCHLD, signal.SIGINT):
            os.kill(os.getpid(), number)
        assert held.end() is True
        assert signal.getsignal(signal.SIGCHLD) is lost
        assert HeldSignals().end() is False
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_handlers_are_as_before_when_the_script_has_ended(tmp_path: Path) -> None:
    def main() -> None:
        from pipeprof.measure.session.script import TraceOptions, trace_script

        before = signal.signal, signal.getsignal
        handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]
        trace_script("script.py", (), TraceOptions(Path("run")))
        assert (signal.signal, signal.getsignal) == before
        assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)] == handlers
        print("as before")

    (tmp_path / "script.py").write_text("pass\n")
    assert Program(main, tmp_path).finished().stdout == "as before\n"


def test_profile_inside_profile_gives_the_methods_back(tmp_path: Path) -> None:
    loader = DataLoader(range(16), batch_size=4)
    plain = dict(loader.__dict__)
    for turn in range(2):
        with pipeprof.profile(loader, out=tmp_path / f"outer{turn}") as outer:
            list(outer)
            with pipeprof.profile(loader, out=tmp_path / f"inner{turn}") as inner:
                list(inner)
                assert inner.summary()["steps"] == 4
            assert outer.summary()["steps"] >= 4, "its own run's, which goes on"
            outer.verdict()
            outer.save(tmp_path / f"copy{turn}")
        assert dict(loader.__dict__) == plain
