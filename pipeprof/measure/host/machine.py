"""Facts about the machine: how much of it this process may use, and which software runs on it.

A container sees all cores and all memory of its host and may use a part of them: affinity, CPU quotas and
memory limits are taken into account.
"""

from __future__ import annotations

import functools
import mmap
import os
import platform
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil

from pipeprof.measure.host.cgroups import cpu_quota_cores, memory_left_bytes, memory_limit_bytes
from pipeprof.record.meta import MachineMeta

PACKAGES: Final = (
    "pipeprof", "torch", "torchvision", "numpy", "pyarrow", "pillow", "psutil", "nvidia-ml-py", "fsspec",
    "s3fs", "aiohttp",
)  # fmt: skip
"""Packages whose versions a run records."""
OPTIONAL: Final = ("s3fs", "aiohttp")
"""Those of them that pipeprof does without, except for remote data."""

_FRESH_BYTES: Final = 1 << 20
_FRESH_ROUNDS: Final = 4


def machine_facts() -> MachineMeta:
    """Return the `machine` part of `run.json`; None is not observed (or no limit, for the quota)."""
    return MachineMeta(
        cpu_count=os.cpu_count(),
        usable_cores=usable_cores(),
        cpu_quota_cores=cpu_quota_cores(),
        memory_bytes=usable_memory_bytes(),
        **asdict(memory_costs()),
        cpu_name=cpu_name(),
        gpu_names=None if (names := gpu_names()) is None else tuple(names),
        kernel=platform.release(),
        python=platform.python_version(),
        platform=f"{sys.platform} {platform.machine()}",
    )


@dataclass(frozen=True, slots=True)
class MemoryCosts:
    """CPU ns that a byte costs beyond being written; None if this system does not report it."""

    fresh_byte_ns: float
    private_byte_ns: float | None
    released_byte_ns: float | None


@functools.cache
def memory_costs() -> MemoryCosts:
    """Measure what a byte costs in fresh shared memory, in fresh memory of one process, and given back.

    Workers put each batch into fresh shared memory, which the main process gives back; a loop without workers
    puts it where the last one was, or into fresh memory of its own if it is large. The smallest of a few
    rounds counts, because other programs can only add to it.
    """
    shared = min(_first_touch_ns(mmap.mmap(-1, _FRESH_BYTES)) for _ in range(_FRESH_ROUNDS))
    private = released = None
    if hasattr(mmap, "MAP_PRIVATE"):
        own = partial(mmap.mmap, -1, _FRESH_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        private = min(_first_touch_ns(own()) for _ in range(_FRESH_ROUNDS)) / _FRESH_BYTES
    with suppress(AttributeError, OSError):  # elsewhere than on Linux, or where a sandbox forbids it
        released = min(_release_ns() for _ in range(_FRESH_ROUNDS)) / _FRESH_BYTES
    return MemoryCosts(shared / _FRESH_BYTES, private, released)


def _first_touch_ns(memory: mmap.mmap) -> int:
    """Return the cost of first writing some memory beyond that of writing it again, and close it."""
    with memory:
        pages = np.frombuffer(memory, np.uint8)
        began = time.thread_time_ns()
        pages[:] = 1
        touched = time.thread_time_ns()
        pages[:] = 2
        again = time.thread_time_ns()
        del pages  # or the memory could not be given back
    return max(0, 2 * touched - began - again)


def _release_ns() -> int:
    """Return the cost of giving shared memory back to the last process that has it, which never touched
    it."""
    fd = os.memfd_create("pipeprof", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, _FRESH_BYTES)
        with mmap.mmap(fd, _FRESH_BYTES) as memory:
            memory[:] = bytes(_FRESH_BYTES)
    finally:
        began = time.thread_time_ns()
        os.close(fd)
        took = time.thread_time_ns() - began
    return took


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that a run's figures depend on."""
    versions = {}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = _version(name)
    return versions


@functools.cache
def _version(name: str) -> str:
    """Read the version once: each reading leaves circles of references behind."""
    return metadata.version(name)


def usable_cores() -> float:
    """Return the cores that this process may run on, or its CPU quota if that is less."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota_cores()
    return min(float(allowed), quota) if quota is not None else float(allowed)


def usable_memory_bytes() -> int:
    """Return the machine's memory, or the limit of this process's control groups if that is less."""
    total = int(psutil.virtual_memory().total)
    limit = memory_limit_bytes()
    return total if limit is None else min(total, limit)


def free_memory_bytes() -> int:
    """Return the bytes that this process can take before something is swapped out or killed."""
    available = int(psutil.virtual_memory().available)
    left = memory_left_bytes()
    return available if left is None else min(available, left)


def cpu_name() -> str | None:
    """Return the processor's model name, None if the system does not name it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or None


def gpu_names() -> list[str] | None:
    """Return the names of the NVIDIA GPUs: none if there is no driver, None if the driver fails."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        try:
            return [_name(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]
        finally:
            with suppress(Exception):  # what has failed may fail again
                pynvml.nvmlShutdown()
    except pynvml.NVMLError_LibraryNotFound:
        return []
    except Exception:  # a sensor: whatever is wrong with it, the run goes on without
        return None


def _name(nvml: Any, index: int) -> str:
    name = nvml.nvmlDeviceGetName(nvml.nvmlDeviceGetHandleByIndex(index))
    return name.decode() if isinstance(name, bytes) else str(name)
