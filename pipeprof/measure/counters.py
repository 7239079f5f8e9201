"""What the kernel says about a thread: CPU time, time without a core, bytes from block devices.

Linux has all of it without root; elsewhere what is missing is not observed, -1. Costs are in PROBE_NOTES §3.
"""

from __future__ import annotations

import os
import sys
import threading
from time import thread_time_ns
from typing import Final, NamedTuple

UNSEEN: Final = -1
"""Not observed: no time and no count of ours is negative."""

BLOCK_BYTES: Final = 512
"""`ru_inblock` counts in sectors."""

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

ON_LINUX: Final = sys.platform == "linux"


class Counters(NamedTuple):
    """Readings of one thread at one instant; `UNSEEN` where the platform has none."""

    cpu_ns: int
    runq_ns: int
    device_blocks: int
    process_cpu_ns: int
    major_faults: int


class RunQueue:
    """Time that the calling thread was runnable and had no core, from `/proc/thread-self/schedstat`.

    The file is opened in the process and thread that read it: a descriptor that came through a fork still
    tells of the parent.
    """

    def __init__(self) -> None:
        self._owner: tuple[int, int] | None = None
        self._fd = -1

    def read(self) -> int:
        """Nanoseconds since the thread began, or `UNSEEN`."""
        owner = (os.getpid(), threading.get_ident())
        if owner != self._owner:
            self._reopen(owner)
        if self._fd < 0:
            return UNSEEN
        try:
            return int(os.pread(self._fd, 64, 0).split()[1])
        except (OSError, IndexError, ValueError):
            return UNSEEN

    def _reopen(self, owner: tuple[int, int]) -> None:
        self.close()
        self._owner = owner
        try:
            self._fd = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._fd = -1

    def close(self) -> None:
        """Give the descriptor back."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._owner = -1, None


def read_counters(run_queue: RunQueue) -> Counters:
    """The calling thread's counters, about 4 µs."""
    blocks = process = faults = UNSEEN
    if ON_LINUX:
        mine = resource.getrusage(resource.RUSAGE_THREAD)
        whole = resource.getrusage(resource.RUSAGE_SELF)
        # With a thread pool inside __getitem__ only the process's figures see the reads.
        blocks, faults = whole.ru_inblock, mine.ru_majflt
        process = int((whole.ru_utime + whole.ru_stime) * 1e9)
    return Counters(thread_time_ns(), run_queue.read(), blocks, process, faults)
