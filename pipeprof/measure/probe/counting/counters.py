"""Kernel counters of a thread: CPU time, time without a core, bytes from block devices.

Linux has all of it without root; elsewhere, missing counters are not observed. Costs are in `read_counters`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from mmap import PAGESIZE
from threading import get_ident
from time import thread_time_ns
from typing import Final

from pipeprof.record.schema import MISSING
from pipeprof.units import NS_PER_S

try:
    from os import pread
    from resource import RUSAGE_SELF, RUSAGE_THREAD, getrusage
except ImportError:  # Windows
    pass

BLOCK_BYTES: Final = 512
"""`ru_inblock` counts sectors, whatever the device's own."""
_ON_LINUX: Final = sys.platform == "linux"


_forks = 0
"""Number of forks between this process and the one that was started: cheaper to read than `getpid`."""


def _forked() -> None:
    global _forks  # noqa: PLW0603
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


class RunQueue:
    """Time that the calling thread was runnable and had no core, from `/proc/thread-self/schedstat`.

    The file is opened by the process and thread that read it: a descriptor that came through a fork still
    refers to the parent.
    """

    def __init__(self) -> None:
        self._thread: int | None = None
        self._forks = -1
        self._fd = -1

    def read(self) -> int:
        """Return the nanoseconds since the thread began, or `MISSING`."""
        if self._forks != _forks or self._thread != get_ident():
            self._reopen()
        if self._fd < 0:
            return MISSING
        try:
            return int(pread(self._fd, 64, 0).split()[1])
        except (OSError, IndexError, ValueError):
            return MISSING

    def _reopen(self) -> None:
        self.close()
        self._forks, self._thread = _forks, get_ident()
        if not _ON_LINUX:
            return
        try:
            self._fd = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._fd = -1

    def close(self, close: Callable[[int], None] = os.close) -> None:
        """Give the descriptor back.

        `os` is bound here: an object that lives to the interpreter's end finds its module's names gone.
        """
        if self._fd >= 0:
            close(self._fd)
        self._fd, self._thread = -1, None

    def __del__(self) -> None:
        self.close()


Counters = tuple[int, int, int, int, int]
"""CPU time and run-queue delay of the thread; blocks read, CPU time and major faults of its process: with a
thread pool inside `__getitem__` only the process's figures see the reads. `MISSING` if there are none."""


def read_counters(run_queue: RunQueue) -> Counters:
    """Return the counters now: 0.7 µs of CPU clock, 0.7 of rusage, 1.5 of schedstat."""
    if not _ON_LINUX:  # ru_inblock is not in sectors elsewhere, if there is one
        return thread_time_ns(), MISSING, MISSING, MISSING, MISSING
    usage = getrusage(RUSAGE_SELF)
    process_ns = int((usage.ru_utime + usage.ru_stime) * NS_PER_S)
    return thread_time_ns(), run_queue.read(), usage.ru_inblock, process_ns, usage.ru_majflt


def thread_memory() -> tuple[int, int]:
    """Return the memory that the calling thread was the first to touch, in bytes, and its time in the kernel,
    in ns, since it began: in 0.6 µs. `MISSING` if there are none.

    A huge page counts as a small one. The kernel splits CPU time by what the ticks of its clock hit: only
    over many of them is that time right.
    """
    if not _ON_LINUX:
        return MISSING, MISSING
    usage = getrusage(RUSAGE_THREAD)
    return usage.ru_minflt * PAGESIZE, int(usage.ru_stime * NS_PER_S)


def difference(after: int, before: int) -> int:
    """Return `after - before` if both were observed."""
    return MISSING if MISSING in (after, before) else after - before
