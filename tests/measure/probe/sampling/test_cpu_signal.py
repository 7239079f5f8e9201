"""The CPU timer sees short pieces of work, gives way to a user's, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType

import pytest

from pipeprof.measure.probe.sampling.call_tree import CallTree, Sampled
from pipeprof.measure.probe.sampling.cpu_signal import CpuSampler
from tests.forked import Program

if not hasattr(signal, "SIGPROF"):
    pytest.skip("this system has no timer of CPU time", allow_module_level=True)

OURS = os.execv, os.execve, signal.signal, signal.setitimer


def at_the_test(code: CodeType) -> bool:
    return code.co_name.startswith("test_")


@pytest.fixture
def sampler() -> Iterator[CpuSampler]:
    sampler = CpuSampler(lambda: "getitem", CallTree(at_the_test))
    yield sampler
    sampler.stop()
    assert signal.getsignal(signal.SIGPROF) == signal.SIG_DFL
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)
    assert (os.execv, os.execve, signal.signal, signal.setitimer) == OURS, "everything is put back"


def burn(cpu_ns: int) -> None:
    end_ns = time.thread_time_ns() + cpu_ns
    while time.thread_time_ns() < end_ns:
        pass


def functions(tree: CallTree) -> set[str]:
    return {node.frame.function for node in tree.take()[0]}


def test_short_bursts_between_waits_are_seen(sampler: CpuSampler) -> None:
    assert sampler.start()
    waited = threading.Event()
    seen: list[Sampled] = []
    functions: set[str] = set()
    for _ in range(1000):  # of 2 s on the CPU; some kernels look at their timers seldom
        waited.wait(0.0005)
        burn(2_000_000)
        nodes, samples = sampler.tree.take()
        functions |= {node.frame.function for node in nodes}
        seen += samples
        if len(seen) >= 2 and "burn" in functions:
            break
    sampler.stop()
    assert "burn" in functions
    assert len(seen) >= 2
    assert all(each.cpu_ns == each.wall_ns > 0 for each in seen)
    assert sampler.own_cpu_ns > 0


def test_a_sample_stands_for_waiting_for_a_core_too() -> None:
    sampler = CpuSampler(lambda: "getitem", CallTree(at_the_test))
    sampler._running = True
    sampler.queued(7_000_000)
    for _ in range(2):
        burn(1_000_000)
        sampler._sample(0, sys._getframe())
    samples = sampler.tree.take()[1]
    used_ns = sum(each.cpu_ns for each in samples)
    assert sum(each.wall_ns for each in samples) == used_ns + 7_000_000


def test_nothing_is_counted_where_there_is_no_stage() -> None:
    sampler = CpuSampler(lambda: None, CallTree(at_the_test))
    assert sampler.start()
    burn(80_000_000)
    sampler.stop()
    assert sampler.tree.take() == ([], [])


def test_a_users_handler_is_left_alone(sampler: CpuSampler) -> None:
    def theirs(number: int, frame: object) -> None: ...

    signal.signal(signal.SIGPROF, theirs)
    try:
        assert not sampler.start()
        assert signal.getsignal(signal.SIGPROF) == theirs
        sampler.stop()
        assert signal.getsignal(signal.SIGPROF) == theirs
    finally:
        signal.signal(signal.SIGPROF, signal.SIG_DFL)


def test_a_users_timer_is_left_alone(sampler: CpuSampler) -> None:
    signal.setitimer(signal.ITIMER_PROF, 1000)
    try:
        assert not sampler.start()
        assert signal.getitimer(signal.ITIMER_PROF)[0] > 900
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def test_a_user_who_comes_later_has_signal_and_timer_alone(sampler: CpuSampler) -> None:
    seen: list[int] = []
    assert sampler.start()
    assert signal.signal(signal.SIGPROF, lambda number, frame: seen.append(number)) == signal.SIG_DFL
    try:
        burn(100_000_000)
        assert seen == [], "our timer is off"
        assert signal.setitimer(signal.ITIMER_PROF, 0.01) == (0.0, 0.0)
        burn(100_000_000)
        assert seen == [signal.SIGPROF]
        sampler.stop()
        assert signal.getsignal(signal.SIGPROF) not in (signal.SIG_DFL, None), "theirs stays"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, signal.SIG_DFL)


def test_other_signals_and_timers_do_not_end_it(sampler: CpuSampler) -> None:
    assert sampler.start()
    signal.signal(signal.SIGUSR1, signal.signal(signal.SIGUSR1, signal.SIG_IGN))
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert signal.getitimer(signal.ITIMER_PROF)[1] > 0


def test_another_thread_cannot_start_it() -> None:
    sampler = CpuSampler(lambda: "getitem", CallTree(at_the_test))
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(sampler.start()))
    thread.start()
    thread.join()
    assert answers == [False]


def test_stopped_in_another_thread_the_handler_does_nothing(sampler: CpuSampler) -> None:
    assert sampler.start()
    thread = threading.Thread(target=sampler.stop)
    thread.start()
    thread.join()
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)
    os.kill(os.getpid(), signal.SIGPROF)
    assert functions(sampler.tree) == set()


def test_a_signal_that_waits_as_another_ones_handler_stops_it_is_not_told_of(
    sampler: CpuSampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So ends a program that is told to; Python once told of the sample as an error, with a traceback."""
    told: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda hook: told.append(hook.exc_value))
    assert sampler.start()
    before = signal.signal(signal.SIGUSR1, lambda number, frame: sampler.stop())
    both = {signal.SIGUSR1, signal.SIGPROF}
    signal.pthread_sigmask(signal.SIG_BLOCK, both)
    try:
        for each in both:
            signal.pthread_kill(threading.get_ident(), each)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, both)  # both come at once: the lower number goes first
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, both)
        signal.signal(signal.SIGUSR1, before)
    assert told == []


def in_a_fork(work: Callable[[], bool]) -> bool:
    child = os.fork()
    if child == 0:
        os._exit(0 if work() else 1)
    return os.waitpid(child, 0)[1] == 0


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_inherits_nothing_and_can_sample_itself(sampler: CpuSampler) -> None:
    assert sampler.start()

    def child() -> bool:
        clean = signal.getsignal(signal.SIGPROF) == signal.SIG_DFL and os.execv is OURS[0]
        other = CpuSampler(lambda: "getitem", CallTree(at_the_test))
        if not (clean and other.start()):
            return False
        burn(100_000_000)
        other.stop()
        return "burn" in functions(other.tree)

    assert in_a_fork(child)
    assert signal.getitimer(signal.ITIMER_PROF)[1] > 0, "the parent goes on"


BURNS = "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass\nprint('alive')"


@pytest.mark.slow
def test_another_program_in_its_place_is_not_ended_by_the_timer(tmp_path: Path) -> None:
    def main() -> None:
        CpuSampler(lambda: "getitem", CallTree(at_the_test)).start()
        os.execvp(sys.executable, [sys.executable, "-S", "-c", BURNS])

    finished = Program(main, tmp_path).finished()
    assert (finished.returncode, finished.stdout) == (0, "alive\n")


def test_it_goes_on_where_another_program_cannot_be_started(sampler: CpuSampler, tmp_path: Path) -> None:
    assert sampler.start()
    with pytest.raises(FileNotFoundError):
        os.execv(tmp_path / "absent", ["absent"])
    assert signal.getitimer(signal.ITIMER_PROF)[1] > 0
