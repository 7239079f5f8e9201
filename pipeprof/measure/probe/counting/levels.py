"""Reads, once a second, the resources of a worker: threads, pools of threads, cores, memory, /dev/shm, bytes
read.

A level is a value that stands, and not a count that grows: `record.names.counters` names them.
"""

from __future__ import annotations

import mmap
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from time import monotonic_ns
from typing import Any, Final

from pipeprof.measure.host.sensors.proc import read_bytes
from pipeprof.record.names import counters
from pipeprof.record.names.counters import CounterName

_MACHINE: Final = "pipeprof.measure.host.machine"
_PAGE_BYTES: Final = mmap.PAGESIZE


def read_levels() -> dict[CounterName, int]:
    """Return the levels of this process that can be read here."""
    levels: dict[CounterName, int] = {}
    for name, value in (*_levels(), *_memory.read(), *_pools.read()):
        levels[name] = value
    return levels


class _Seldom:
    """Reads figures that cost more the larger a process is, so seldom that this takes at most `SHARE` of the
    time."""

    def __init__(self, levels: Callable[[], Iterator[tuple[CounterName, int]]]) -> None:
        self._levels = levels
        self._next_ns = 0

    def read(self) -> Iterator[tuple[CounterName, int]]:
        """Give the levels; nothing if it is not yet time."""
        began_ns = monotonic_ns()
        if began_ns < self._next_ns:
            return
        yield from self._levels()
        took_ns = monotonic_ns() - began_ns
        self._next_ns = began_ns + max(_LEAST_NS, round(took_ns / SHARE))


def _memory_levels() -> Iterator[tuple[CounterName, int]]:
    """Yield the process's own memory, and what is left for all."""
    with suppress(OSError, ValueError, IndexError):
        lines = read_bytes("/proc/self/smaps_rollup").splitlines()
        private = (line.split()[1] for line in lines if line.startswith(b"Private_"))
        yield counters.OWN_BYTES, 1024 * sum(map(int, private))
    # A spawned worker lacks it, and its import would take 0.2 s from what the worker does meanwhile: the main
    # process also knows what is left for all.
    if machine := sys.modules.get(_MACHINE):
        with suppress(OSError, ValueError):
            yield counters.MEMORY_LEFT_BYTES, machine.free_memory_bytes()


def _native_pools() -> Iterator[tuple[CounterName, int]]:
    """Yield the pools of BLAS and OpenMP libraries, if the user's program has loaded threadpoolctl."""
    with suppress(Exception):  # a library that is only half imported, or of another version
        largest: dict[str, int] = {}
        for pool in sys.modules["threadpoolctl"].threadpool_info():
            name = str(pool["user_api"])
            largest[name] = max(largest.get(name, 0), int(pool["num_threads"]))
        yield from ((counters.part_of(counters.POOL, name), threads) for name, threads in largest.items())


SHARE: Final = 0.0005
_LEAST_NS: Final = 2_000_000_000
_memory: Final = _Seldom(_memory_levels)
_pools: Final = _Seldom(_native_pools)


def written_bytes() -> int:
    """Return the bytes that this process has written by calls, to files and pipes; 0 if not known."""
    with suppress(OSError, ValueError, IndexError):
        return int(read_bytes("/proc/self/io").split()[3])
    return 0


def process_age_ns() -> int:
    """Return the time since this process was started, to 10 ms; 0 if not known."""
    with suppress(OSError, ValueError, IndexError, AttributeError):
        started = int(read_bytes("/proc/self/stat").rpartition(b")")[2].split()[_START_TIME])
        now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        return max(0, now_ns - started * 1_000_000_000 // os.sysconf("SC_CLK_TCK"))
    return 0


_START_TIME: Final = 19
"""Place of the start time, in clock ticks since the machine's start, after the name in `stat`: proc(5)."""


def _levels() -> Iterator[tuple[CounterName, int]]:
    with suppress(OSError, ValueError, IndexError):
        threads = os.listdir("/proc/self/task")  # noqa: PTH208
        yield counters.THREADS, len(threads)
        if len(threads) > _FEW:
            yield counters.THREADS_RUNNABLE, sum(_is_runnable(thread) for thread in threads)
    with suppress(AttributeError, OSError):
        yield counters.AFFINITY_CORES, len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError):
        _, resident, shared, *_ = read_bytes("/proc/self/statm").split()
        yield counters.PRIVATE_BYTES, (int(resident) - int(shared)) * _PAGE_BYTES
    with suppress(OSError, ValueError, IndexError):
        yield counters.READ_CALL_BYTES, int(read_bytes("/proc/self/io").split()[1])
    with suppress(AttributeError, OSError):
        room = os.statvfs("/dev/shm")
        yield counters.SHARED_MEMORY_USED_BYTES, (room.f_blocks - room.f_bfree) * room.f_frsize
        yield counters.SHARED_MEMORY_BYTES, room.f_blocks * room.f_frsize
    for name, (module, read) in _POOLS.items():
        loaded = sys.modules.get(module)
        if loaded is not None:
            with suppress(Exception):  # a library that is only half imported, or of another version
                yield counters.part_of(counters.POOL, name), int(read(loaded))


_FEW: Final = 4
"""Threads that every worker has: its own, the queue's, ours, and one that hands descriptors out."""


def _is_runnable(thread: str) -> bool:
    with suppress(OSError, IndexError):
        return read_bytes(f"/proc/self/task/{thread}/stat").rpartition(b")")[2].split()[0] == b"R"
    return False


_POOLS: Final[dict[str, tuple[str, Callable[[Any], Any]]]] = {
    "torch": ("torch", lambda torch: torch.get_num_threads()),
    "opencv": ("cv2", lambda cv2: cv2.getNumThreads()),
    "arrow": ("pyarrow", lambda pyarrow: pyarrow.cpu_count()),
    "openmp": ("os", lambda os: os.getenv("OMP_NUM_THREADS", "x")),
}
"""Thread pools whose size can be read if their library is loaded."""
