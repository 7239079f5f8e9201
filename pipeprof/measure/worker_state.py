"""What the workers were doing when looked at from outside: why one that makes a batch is not on a core.

`/proc/<pid>/stat` and `wchan` tell a disk (D) from a lock, a socket and a sleep (all S). Looked at about 20
times a second while a batch is being made, this becomes the sensors
`worker<N>.state.<what>`: the share of the looks since the last report in which it was so; `<what>` is run,
disk, lock, socket, sleep, pipe or other. Without `/proc` there are none: not observed.
"""

from __future__ import annotations

import functools
import os
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Protocol

_CHANNELS: Final = (
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
    ("flock", "lock"),
    ("locks_lock", "lock"),
)


class Watched(Protocol):
    """One loader's workers."""

    workers: int

    def busy_threads(self) -> list[tuple[int, int]]:
        """Worker number and thread of each worker that makes a batch now."""
        ...

    def threads(self) -> list[int]:
        """The thread of each worker."""
        ...


_ON_LINUX: Final = sys.platform == "linux"
_READ: Final = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0)


class WorkerStates:
    """Counts looks. Keeps the files of each thread open: opening them costs more than reading."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._looks: dict[int, Counter[str]] = {}
        self._files: dict[int, tuple[int, int]] = {}

    def look(self, watched: Iterable[Watched]) -> None:
        """Look once at each worker that makes a batch. The files of those that no one watches are closed."""
        if not _ON_LINUX:
            return
        gone = set(self._files)
        for watch in watched:
            gone.difference_update(watch.threads())
            for worker, thread in watch.busy_threads():
                state = self._state(thread)
                if state is not None:
                    self._looks.setdefault(worker, Counter())[state] += 1
        for thread in gone:
            self._close(thread)

    def report(self) -> dict[str, float]:
        """Shares since the last report, by sensor."""
        sensors = {}
        for worker, looks in self._looks.items():
            total = looks.total()
            sensors.update({f"worker{worker}.state.{state}": n / total for state, n in looks.items()})
        self._looks = {}
        return sensors

    def _state(self, thread: int) -> str | None:
        try:
            stat, wchan = self._files.get(thread) or self._open(thread)
            letter = os.pread(stat, 64, 0).rpartition(b")")[2][1:2]
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
        for file in self._files.pop(thread, ()):
            os.close(file)

    def close(self) -> None:
        """Give the files back."""
        for thread in list(self._files):
            self._close(thread)


@functools.cache
def _what(channel: bytes) -> str | None:
    if channel in (b"", b"0"):  # it woke up in between, or the kernel does not tell
        return None
    return next((what for mark, what in _CHANNELS if mark in channel.decode()), "other")
