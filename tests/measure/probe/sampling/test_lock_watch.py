"""Waits for the GIL are counted where a thread is seen to wait for it while another one runs, else not."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeprof.measure.probe.counting import tally
from pipeprof.measure.probe.sampling import lock_watch
from pipeprof.measure.probe.sampling.lock_state import LockState, Used
from pipeprof.measure.probe.sampling.lock_watch import LockWatch

MS = 1_000_000
LOOP, OTHER = 1, 2


class HandedState(LockState):
    """Is told what threads have used, look by look, and whether the watched one waits."""

    def __init__(self, *used: dict[int, Used], waiting: bool = True, can: bool = True) -> None:
        super().__init__()
        self._handed, self._waiting, self._can = iter(used), waiting, can
        self._now: dict[int, Used] = {}

    def turn(self) -> None:
        self._now = next(self._handed)

    def find_lock(self) -> bool:
        return self._can

    def used(self, thread: int) -> Used | None:
        return self._now.get(thread)

    def cpu_ns(self, thread: int) -> int | None:
        return self._now[thread].cpu_ns if thread in self._now else None

    def waits(self, thread: int) -> bool:
        self.turn()
        return self._waiting and thread == LOOP


class HandedThread:
    """Stands for a thread of Python's."""

    def __init__(self, number: int, name: str) -> None:
        self.native_id, self.ident, self.name = number, number, name


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets the time that the watch reads; a look takes 10 ms."""
    now = [0]
    monkeypatch.setattr(lock_watch, "monotonic_ns", lambda: now[0])
    monkeypatch.setattr(lock_watch.time, "sleep", lambda s: now.__setitem__(0, now[0] + 10 * MS))
    threads = [
        HandedThread(LOOP, "MainThread"),
        HandedThread(OTHER, "metrics"),
        HandedThread(3, "pipeprof-x"),
    ]
    monkeypatch.setattr(lock_watch.threading, "enumerate", lambda: threads)
    tally.clear()
    return lambda to: now.__setitem__(0, to)


def counted(state: HandedState, clock: Callable[[int], None], stage: str | None = "main") -> dict[str, int]:
    """What one look counts that stands for 30 ms."""
    watch = LockWatch(state, lambda thread: "train.py\t3\tcount")
    watch.watch(LOOP, lambda: stage)
    clock(1000 * MS)
    state.turn()
    watch.choose()
    clock(1020 * MS)
    watch.look()
    return {str(name): value for name, value in tally.take().items()}


BEFORE = {LOOP: Used(100 * MS, 0), OTHER: Used(500 * MS, 0)}


def after(loop_ms: int, other_ms: int, runq_ms: int = 0) -> dict[int, Used]:
    return {LOOP: Used((100 + loop_ms) * MS, runq_ms * MS), OTHER: Used((500 + other_ms) * MS, 0)}


def test_a_wait_is_what_was_neither_computing_nor_waiting_for_a_core(clock: Callable[[int], None]) -> None:
    state = HandedState(BEFORE, after(loop_ms=1, other_ms=8, runq_ms=1))
    assert counted(state, clock) == {
        "gil.wait_ns.main": 24 * MS,
        "gil.held_ns.main\nmetrics\ntrain.py\t3\tcount": 24 * MS,
    }


@pytest.mark.parametrize(
    ("state", "stage"),
    [
        (HandedState(BEFORE, after(0, 8), waiting=False), "main"),
        (HandedState(BEFORE, after(0, 1)), "main"),
        (HandedState(BEFORE, {LOOP: BEFORE[LOOP], OTHER: Used(500 * MS, 10 * MS)}), "main"),
        (HandedState(BEFORE, after(0, 8), can=False), "main"),
        (HandedState(BEFORE, after(0, 8)), None),
        (HandedState({LOOP: Used(100 * MS, 0), OTHER: Used(MS, 0)}, after(0, 8)), "main"),
    ],
    ids=[
        "blocked elsewhere",
        "nobody ran",
        "no core for either",
        "not to be seen here",
        "outside of loops",
        "nobody is busy",
    ],
)
def test_no_wait_is_counted(clock: Callable[[int], None], state: HandedState, stage: str | None) -> None:
    assert counted(state, clock, stage) == {}


def test_a_watched_thread_that_ends_is_forgotten(clock: Callable[[int], None]) -> None:
    """Its files are closed: each pass over a pinned loader has a thread of its own."""
    state = HandedState(BEFORE)
    state.turn()
    watch = LockWatch(state, lambda thread: "")
    ended = LOOP + 100
    state._files[ended, "syscall"] = os.open(os.devnull, os.O_RDONLY)
    watch.watch(ended, lambda: "pin")
    watch.choose()
    assert (ended, "syscall") not in state._files


@contextmanager
def beside(work: Callable[[], None], name: str) -> Iterator[threading.Thread]:
    """A thread that does some work again and again."""
    done = threading.Event()

    def again() -> None:
        while not done.is_set():
            work()

    thread = threading.Thread(target=again, name=name)
    thread.start()
    try:
        yield thread
    finally:
        done.set()
        thread.join()


def count() -> None:
    for _ in range(10_000):
        pass


def hashed() -> None:
    hashlib.sha1(bytes(1 << 20))


@pytest.fixture
def state() -> Iterator[LockState]:
    made = LockState()
    if not Path("/proc/self/syscall").exists():
        pytest.skip("this system does not tell what threads are blocked in")
    assert any(made.find_lock() for _ in range(5))
    yield made
    made.close()


def shares_waiting(state: LockState, work: Callable[[], None]) -> float:
    """Share of looks at a thread, which counts between naps, that find it waiting for the lock."""

    def count_and_nap() -> None:
        count()
        time.sleep(0.0005)

    with beside(work, "other"), beside(count_and_nap, "looked at") as thread:
        assert thread.native_id is not None
        seen = []
        for _ in range(200):
            time.sleep(0.001)
            seen.append(state.waits(thread.native_id))
    return sum(seen) / len(seen)


def test_who_waits_for_python_of_another_thread_is_told_from_who_does_not(state: LockState) -> None:
    crowded, free = shares_waiting(state, count), shares_waiting(state, hashed)
    assert crowded > 2 * free


def test_what_a_sleeping_thread_is_blocked_in_is_not_the_lock(state: LockState) -> None:
    with beside(lambda: time.sleep(0.2), "sleeps") as thread:
        time.sleep(0.05)
        assert thread.native_id is not None
        assert not any(state.waits(thread.native_id) for _ in range(10))


def test_a_thread_that_has_ended_is_not_known(state: LockState) -> None:
    with beside(count, "ends") as thread:
        number = thread.native_id
        assert number is not None
        used = state.used(number)
        assert used is not None
        assert used.cpu_ns > 0
    for _ in range(100):
        if not Path(f"/proc/self/task/{number}").exists():
            break
        time.sleep(0.01)
    assert state.used(number) is None
    assert not state.waits(number)


def test_its_files_are_closed(state: LockState) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are what is counted
    state.used(threading.get_native_id())
    state.waits(threading.get_native_id())
    assert len(os.listdir("/proc/self/fd")) == before + 2  # noqa: PTH208
    state.forget(threading.get_native_id())
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
