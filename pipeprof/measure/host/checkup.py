"""Checks of this machine: the sources that pipeprof can observe, and why it cannot observe the rest."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from pipeprof import units
from pipeprof.measure.host.cgroups import cpu_quota_cores, memory_limit_bytes, read_limits
from pipeprof.measure.host.machine import OPTIONAL, PACKAGES, gpu_names, package_versions, usable_cores

SMALL_SHARED_MEMORY_BYTES: Final = 1 << 30
"""Docker gives 64 MiB by default; four workers that prefetch two batches of 100 MB need 0.8 GB."""


_BUSY: Final = "other programs use them: a verdict would be about that"


class Check(NamedTuple):
    """One thing that was checked."""

    name: str
    seen: bool
    """False if something cannot be observed, or is likely to fail."""
    says: str
    remedy: str = ""


def checkup(root: Path = Path("/")) -> Iterator[Check]:
    """Yield what can and cannot be observed here; `root` is the file system's, for tests."""
    yield _python()
    yield _cores()
    yield _kernel_file(
        root / "proc/thread-self/schedstat",
        "time without a core",
        "each batch's time in the run queue",
        "a kernel with CONFIG_SCHED_INFO: without it, waiting for a core counts as blocked",
    )
    yield _kernel_file(
        root / "proc/self/wchan",
        "why workers wait",
        "lock, socket, disk or sleep",
        "a kernel that shows /proc/PID/wchan: without it, `blocked` has no detail",
    )
    yield _kernel_file(
        root / "proc/diskstats", "disks", "reads, queue and service time of each", "mount /proc whole"
    )
    yield _kernel_file(
        root / "proc/pressure/io",
        "pressure of I/O",
        "time that tasks stood still for I/O",
        "a kernel with CONFIG_PSI; the verdict does not depend on it",
    )
    yield _limits()
    yield _shared_memory(root / "dev/shm")
    yield _gpus()
    yield _attaching(root / "proc/sys/kernel/yama/ptrace_scope")


def _python() -> Check:
    versions = package_versions()
    missing = [name for name in PACKAGES if name not in versions and name not in OPTIONAL]
    known = ", ".join(f"{name} {version}" for name, version in versions.items())
    says = f"Python {platform.python_version()} on {sys.platform}; {known}"
    return Check("packages", not missing, says, f"install {', '.join(missing)}" if missing else "")


def _cores() -> Check:
    usable, all_cores = usable_cores(), os.cpu_count() or 1
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    says = f"{units.digits(usable)} of {all_cores} usable; load {units.digits(load)}"
    busy = load > usable / 2
    return Check(
        "cores", not busy, says, "other programs run here: a verdict will be about them" if busy else ""
    )


def _kernel_file(path: Path, name: str, gives: str, remedy: str) -> Check:
    try:
        path.read_bytes()
    except OSError as error:
        return Check(name, False, f"{path} cannot be read: {error.strerror}", remedy)
    return Check(name, True, gives)


def _limits() -> Check:
    quota, memory, reads = cpu_quota_cores(), memory_limit_bytes(), read_limits()
    said = []
    if quota is not None:
        said.append(f"{units.digits(quota)} cores")
    if memory is not None:
        said.append(units.size(memory))
    said += [f"{units.plural(len(reads), 'limit')} on reads"] if reads else []
    return Check("control group", True, f"limited to {', '.join(said)}" if said else "no limits")


def _shared_memory(path: Path) -> Check:
    try:
        room = shutil.disk_usage(path)
    except OSError as error:
        return Check(
            "shared memory", False, f"{path}: {error.strerror}", "workers need it to hand over batches"
        )
    says = f"{units.size(room.free)} of {units.size(room.total)} free in {path}"
    small = room.total < SMALL_SHARED_MEMORY_BYTES
    return Check("shared memory", not small, says, "start the container with --shm-size=8g" if small else "")


def _gpus() -> Check:
    names = gpu_names()
    if names is None:
        return Check("GPUs", False, "the driver's library does not answer", "see `nvidia-smi`")
    if not names:
        says = "none of NVIDIA; where torch sees no other device, the loop's body is told in its place"
        return Check("GPUs", False, says)
    return Check("GPUs", True, ", ".join(names))


def _attaching(scope: Path) -> Check:
    value = "0"
    with suppress(OSError):
        value = scope.read_text().strip()
    name = "attaching"
    if value in ("0", "1") or os.geteuid() == 0:
        return Check(name, value != "3", "your own processes can be attached to")
    return Check(name, False, f"kernel.yama.ptrace_scope is {value}", "sysctl kernel.yama.ptrace_scope=1")
