"""Limits that the control groups of this process set on CPU time, memory and reads (cgroup v1 and v2).

A limit holds for a group and all below it, so every level from the process's own group to the root is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from pipeprof.record.meta import IoLimitMeta

_ROOT: Final = Path("/sys/fs/cgroup")
_MEMBERSHIP: Final = Path("/proc/self/cgroup")
_MEMORY_FILES: Final = (
    ("memory.max", "memory.current", ""),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
)
"""Limit, usage and the prefix of the lines in `memory.stat`: of v2, of v1."""
_RECLAIMED: Final = ("inactive_file", "active_file")
"""Page cache is charged to the group, and given back when memory is wanted."""
_READ_LIMITS_V1: Final = (
    ("blkio.throttle.read_bps_device", "rbps"),
    ("blkio.throttle.read_iops_device", "riops"),
)


def cpu_quota_cores(root: Path = _ROOT, membership: Path = _MEMBERSHIP) -> float | None:
    """Return the tightest CPU quota in cores, None if there is none (v2 `cpu.max`, v1 `cfs_quota_us`)."""
    quotas = []
    for group in groups_of("cpu", root, membership):
        quota, _, period = _text(group / "cpu.max").partition(" ")
        quotas.append(_ratio(quota, period))
        quotas.append(_ratio(_text(group / "cpu.cfs_quota_us"), _text(group / "cpu.cfs_period_us")))
    return min((quota for quota in quotas if quota is not None), default=None)


def _ratio(quota: str, period: str) -> float | None:
    if quota.isdigit() and period.isdigit() and int(period) > 0:
        return int(quota) / int(period)
    return None  # "max", "-1" or no such file: no limit


def memory_limit_bytes(root: Path = _ROOT, membership: Path = _MEMBERSHIP) -> int | None:
    """Return the tightest memory limit in bytes, None if there is none."""
    texts = (
        _text(group / limit)
        for group in groups_of("memory", root, membership)
        for limit, _, _ in _MEMORY_FILES
    )
    limits = (int(text) for text in texts if text.isdigit())
    return min((limit for limit in limits if limit < _NO_LIMIT_BYTES), default=None)


_NO_LIMIT_BYTES = 1 << 62
"""Version 1 says that there is no limit by the largest number of pages that fits, just below 2^63 bytes."""


def memory_left_bytes(root: Path = _ROOT, membership: Path = _MEMBERSHIP) -> int | None:
    """Return the bytes that can be taken before a memory limit is reached, None if there is no limit."""
    lefts = (
        _left_bytes(group, *files)
        for group in groups_of("memory", root, membership)
        for files in _MEMORY_FILES
    )
    return min((left for left in lefts if left is not None), default=None)


def _left_bytes(group: Path, limit: str, usage: str, prefix: str) -> int | None:
    try:
        limit_bytes = int((group / limit).read_text())  # "max" if there is none
        used_bytes = int((group / usage).read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    return max(0, limit_bytes - used_bytes + sum(int(stat.get(prefix + name, 0)) for name in _RECLAIMED))


def read_limits(root: Path = _ROOT, membership: Path = _MEMBERSHIP) -> list[IoLimitMeta]:
    """List the limits on reads from block devices."""
    groups = groups_of("blkio", root, membership)
    return [limit for group in groups for limit in (*_read_limits_v1(group), *_read_limits_v2(group))]


def _read_limits_v1(group: Path) -> Iterator[IoLimitMeta]:
    for name, unit in _READ_LIMITS_V1:
        for line in _text(group / name).splitlines():
            device, _, value = line.partition(" ")
            if value.isdigit():
                yield _limit(device, group, unit, int(value))


def _read_limits_v2(group: Path) -> Iterator[IoLimitMeta]:
    for line in _text(group / "io.max").splitlines():
        device, *settings = line.split()
        for setting in settings:
            name, _, value = setting.partition("=")
            if name in ("rbps", "riops") and value.isdigit():
                yield _limit(device, group, name, int(value))


def _limit(device: str, group: Path, unit: str, value: int) -> IoLimitMeta:
    """Return a limit in `unit` as `io.max` names it: `rbps` for bytes, `riops` for requests a second."""
    if unit == "rbps":
        return IoLimitMeta(device, str(group), read_bytes_per_s=value)
    return IoLimitMeta(device, str(group), read_requests_per_s=value)


def groups_of(controller: str, root: Path = _ROOT, membership: Path = _MEMBERSHIP) -> list[Path]:
    """List the groups of this process and all above them, in the hierarchy of `controller` and in that of v2.

    In a container the path may be the host's and not exist here; the hierarchy's root is then the process's
    own group.
    """
    groups: list[Path] = []
    for line in _text(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            hierarchies = [root, root / "unified"]  # v2 alone, or beside v1
        elif controller in controllers.split(","):
            hierarchies = [root / controllers if (root / controllers).is_dir() else root / controller]
        else:
            continue
        below = Path(path.lstrip("/"))
        groups += [hierarchy / level for hierarchy in hierarchies for level in (below, *below.parents)]
    return list(dict.fromkeys(groups))


def _text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text().strip()
    return ""
