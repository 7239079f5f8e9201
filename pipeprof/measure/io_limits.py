"""What the control groups of this process allow it to read: the kernel's own throttle, and every cloud's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

_CGROUPS: Final = Path("/sys/fs/cgroup")
_SELF: Final = Path("/proc/self/cgroup")
_V1: Final = (
    ("blkio.throttle.read_bps_device", "read_bytes_per_s"),
    ("blkio.throttle.read_iops_device", "read_requests_per_s"),
)
_V2: Final = (("rbps", "read_bytes_per_s"), ("riops", "read_requests_per_s"))


def read_limits(cgroups: Path = _CGROUPS, of_self: Path = _SELF) -> list[dict[str, Any]]:
    """Limits on reads that hold for this process, of cgroup v1 and v2, its groups and all above them.

    Each is `{"device": "major:minor", "group", "read_bytes_per_s" or "read_requests_per_s": number}`.
    """
    try:
        lines = of_self.read_text().splitlines()
    except OSError:
        return []
    found: list[dict[str, Any]] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        below = Path(path.lstrip("/"))
        for group in (below, *below.parents):
            if not controllers:
                for root in (cgroups, cgroups / "unified"):
                    found += _v2(root / group)
            elif "blkio" in controllers.split(","):
                found += _v1(cgroups / "blkio" / group)
    return found


def _v1(group: Path) -> Iterator[dict[str, Any]]:
    for name, key in _V1:
        for line in _lines(group / name):
            device, _, value = line.partition(" ")
            if value.isdigit():
                yield {"device": device, "group": str(group), key: int(value)}


def _v2(group: Path) -> Iterator[dict[str, Any]]:
    for line in _lines(group / "io.max"):
        device, *settings = line.split()
        for setting in settings:
            name, _, value = setting.partition("=")
            key = dict(_V2).get(name)
            if key is not None and value.isdigit():
                yield {"device": device, "group": str(group), key: int(value)}


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
