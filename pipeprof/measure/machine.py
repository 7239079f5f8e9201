"""Facts about the machine for `run.json`: how much of it this process may really use, and what runs on it.

A container sees all cores and all memory of its host and may use a part of them: affinity, cgroup quotas of
both versions and memory limits are read, on every level from the process's own group up to the root.
"""

from __future__ import annotations

import functools
import mmap
import os
import platform
import sys
import time
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil

PACKAGES: Final = (
    "pipeprof", "torch", "torchvision", "numpy", "pyarrow", "pillow", "psutil", "fsspec", "s3fs", "aiohttp",
)  # fmt: skip

_CGROUP = Path("/sys/fs/cgroup")
_FRESH_BYTES: Final = 1 << 20
_FRESH_ROUNDS: Final = 4


def machine_facts() -> dict[str, Any]:
    """The `machine` part of `run.json`; None is not observed (or no limit, for the quota)."""
    quota = cpu_quota_cores()
    return {
        "cpu_count": os.cpu_count(),
        "usable_cores": usable_cores(),
        "cpu_quota_cores": quota,
        "memory_bytes": usable_memory_bytes(),
        "fresh_byte_ns": fresh_byte_ns(),
        "cpu_name": cpu_name(),
        "gpu_names": gpu_names(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "platform": f"{sys.platform} {platform.machine()}",
    }


@functools.cache
def fresh_byte_ns() -> float:
    """CPU nanoseconds that a byte of fresh shared memory costs beyond being written: its pages' first touch.

    Workers put each batch into such memory; a loop without workers puts it where the last one was. The least
    of a few rounds, because what comes on top of it is other programs'.
    """
    return min(_first_touch_ns() for _ in range(_FRESH_ROUNDS)) / _FRESH_BYTES


def _first_touch_ns() -> int:
    with mmap.mmap(-1, _FRESH_BYTES) as memory:
        pages = np.frombuffer(memory, np.uint8)
        began = time.thread_time_ns()
        pages[:] = 1
        touched = time.thread_time_ns()
        pages[:] = 2
        again = time.thread_time_ns()
        del pages  # or the memory could not be given back
    return max(0, 2 * touched - began - again)


def package_versions() -> dict[str, str]:
    """Versions of the packages that a run's figures depend on."""
    found = {}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def usable_cores() -> float:
    """Cores that this process may use: those it may run on, or its CPU quota where that is less."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota_cores()
    return min(float(allowed), quota) if quota is not None else float(allowed)


def cpu_quota_cores(root: Path = _CGROUP, membership: Path = Path("/proc/self/cgroup")) -> float | None:
    """The tightest CPU quota of this process's cgroups in cores (v2 `cpu.max`, v1 `cfs_quota_us`)."""
    quotas = []
    for directory in _levels(root, membership, "", "cpu"):
        quota, _, period = _text(directory / "cpu.max").partition(" ")
        quotas.append(_ratio(quota, period))
        quotas.append(_ratio(_text(directory / "cpu.cfs_quota_us"), _text(directory / "cpu.cfs_period_us")))
    return min((q for q in quotas if q is not None), default=None)


def usable_memory_bytes(root: Path = _CGROUP, membership: Path = Path("/proc/self/cgroup")) -> int:
    """Memory of the machine, or this process's cgroup limit where that is less."""
    limits = [int(psutil.virtual_memory().total)]
    for directory in _levels(root, membership, "", "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = _text(directory / name)
            if text.isdigit():
                limits.append(int(text))
    return min(limits)


def _levels(root: Path, membership: Path, *controllers: str) -> list[Path]:
    """The directories of this process's groups, for each hierarchy that holds one of `controllers`.

    The line of v2 names no controller (""). In a container the path may be the host's and not exist here; the
    hierarchy's root is then the process's own group.
    """
    found = []
    for line in _text(membership).splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        for controller in set(names.split(",")) & set(controllers):
            base = root / names if controller and (root / names).is_dir() else root / controller
            group = base / path.lstrip("/")
            found += [level for level in (group, *group.parents) if level.is_relative_to(base)]
    return list(dict.fromkeys(found))


def _ratio(quota: str, period: str) -> float | None:
    if quota.isdigit() and period.isdigit() and int(period) > 0:
        return int(quota) / int(period)
    return None  # "max", "-1" or no such file: no limit


def _text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text().strip()
    return ""


def cpu_name() -> str | None:
    """The processor's model name, or None where the system does not tell."""
    for line in _text(Path("/proc/cpuinfo")).splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or None


def gpu_names() -> list[str] | None:
    """Names of the NVIDIA GPUs that the driver shows: none where there is no driver, None where it fails."""
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
