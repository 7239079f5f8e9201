"""State of the workers, observed from outside: why one that makes a batch is not on a core.

`/proc/<pid>/stat` and `wchan` distinguish a disk (D) from a lock, a socket and a sleep (all S). Sampled about
20 times a second while the loop waits, and some 7 while it does not, this becomes the sensors
`worker<N>.state.<what>`: the share of the looks since the last report in which it was so; `<what>` is run,
disk, lock, socket, sleep, pipe or other. Without `/proc` there are none: not observed. A worker that was
stopped (T), as by SIGSTOP, is reported with the time of it.
"""

from __future__ import annotations

import functools
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from time import monotonic_ns
from typing import Final, Literal, NamedTuple, Protocol

from pipeprof.record.names.sensors import SensorName, WorkerState, worker_state

_CHANNELS: Final[tuple[tuple[str, WorkerState], ...]] = (
    ("futex", "lock"),
    ("nanosleep", "sleep"),
    ("wait_woken", "socket"),
    ("sk_wait", "socket"),
    ("inet_", "socket"),
    ("tcp_", "socket"),
    ("unix_", "socket"),
    ("ep_poll", "socket"),
    ("poll_schedule", "socket"),
    ("select", "socket"),
    ("pipe", "pipe"),
    ("wait_for_partner", "pipe"),
    ("flock", "lock"),
    ("locks_lock", "lock"),
)


class Watched(Protocol):
    """Workers of one loader."""

    loader_number: int
    workers: int

    def busy_threads(self) -> list[tuple[int, int]]:
        """Return worker number and thread of each worker that makes a batch now."""
        ...

    def threads(self) -> list[int]:
        """Return the thread of each worker."""
        ...


class Standstill(NamedTuple):
    """Standstill of one worker, which has ended."""

    loader: int
    worker: int
    duration_ns: int


LEAST_STOP_NS: Final = 200_000_000
"""Shortest standstill of a worker that is reported."""

_ON_LINUX: Final = sys.platform == "linux"
_READ: Final = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0)


class WorkerStates:
    """Samples the workers' states. Keeps each thread's files open: opening them costs more than reading."""

    def __init__(self, proc: Path = Path("/proc"), clock_ns: Callable[[], int] = monotonic_ns) -> None:
        self._proc, self._clock_ns = proc, clock_ns
        self._looks: dict[int, Counter[WorkerState]] = {}
        self._files: dict[int, tuple[int, int]] = {}
        self._stopped_ns: dict[int, int] = {}
        """Time at which each thread was first seen stopped, of those that are."""

    def look(self, watched: Iterable[Watched]) -> list[Standstill]:
        """Look once at each worker. The files of those that no one watches are closed.

        Return the standstills that have ended since the last look.
        """
        stops: list[Standstill] = []
        if not _ON_LINUX:
            return stops
        gone = set(self._files)
        for watch in watched:
            threads = watch.threads()
            gone.difference_update(threads)
            busy = {worker for worker, _ in watch.busy_threads()}
            for worker, thread in enumerate(threads):
                if thread == 0:  # it has not begun
                    continue
                state = self._state(thread, worker in busy)
                if state is not None and state != "stopped":
                    self._looks.setdefault(worker, Counter())[state] += 1
                stopped_ns = self._stop_of(thread, state == "stopped")
                if stopped_ns >= LEAST_STOP_NS:
                    stops.append(Standstill(watch.loader_number, worker, stopped_ns))
        for thread in gone:
            self._close(thread)
        return stops

    def _stop_of(self, thread: int, is_stopped: bool) -> int:
        """Return for how many ns `thread` was stopped, if it has just resumed; else 0."""
        if is_stopped:
            self._stopped_ns.setdefault(thread, self._clock_ns())
            return 0
        since_ns = self._stopped_ns.pop(thread, None)
        return 0 if since_ns is None else self._clock_ns() - since_ns

    def report(self) -> dict[SensorName, float]:
        """Return shares since the last report, by sensor."""
        sensors = {}
        for worker, looks in self._looks.items():
            total = looks.total()
            sensors.update({worker_state(worker, state): n / total for state, n in looks.items()})
        self._looks = {}
        return sensors

    def _state(self, thread: int, is_busy: bool) -> WorkerState | Literal["stopped"] | None:
        """Return the state of a thread; for an idle one only if it is stopped."""
        try:
            stat, wchan = self._files.get(thread) or self._open(thread)
            letter = os.pread(stat, 64, 0).rpartition(b")")[2][1:2]
            if letter == b"T":
                return "stopped"
            if not is_busy:
                return None
            if letter == b"R":
                return "run"
            if letter == b"D":
                return "disk"
            return _what(os.pread(wchan, 64, 0))
        except OSError:  # the thread is gone, or never was here
            self._close(thread)
            return None

    def _open(self, thread: int) -> tuple[int, int]:
        stat = os.open(self._proc / str(thread) / "stat", _READ)
        try:
            wchan = os.open(self._proc / str(thread) / "wchan", _READ)
        except OSError:
            os.close(stat)
            raise
        self._files[thread] = (stat, wchan)
        return stat, wchan

    def _close(self, thread: int) -> None:
        self._stopped_ns.pop(thread, None)
        for file in self._files.pop(thread, ()):
            os.close(file)

    def close(self) -> None:
        """Close the files."""
        for thread in list(self._files):
            self._close(thread)


@functools.cache
def _what(channel: bytes) -> WorkerState | None:
    return waits_for(channel.decode())


def waits_for(channel: str) -> WorkerState | None:
    """Return what a thread waits for, as named by the kernel's function; None if the kernel does not say."""
    if channel in ("", "0"):  # it woke up in between
        return None
    return next((what for mark, what in _CHANNELS if mark in channel), "other")
