"""How much memory this process may still take: the machine's, and that of each control group around it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil

_CGROUPS: Final = Path("/sys/fs/cgroup")
_SELF: Final = Path("/proc/self/cgroup")
_RECLAIMED: Final = ("inactive_file", "active_file")
"""Page cache is charged to the group, and given back when memory is wanted."""


def free_memory_bytes(cgroups: Path = _CGROUPS, of_self: Path = _SELF) -> int:
    """Bytes that can be taken before something is swapped out or killed."""
    return min([int(psutil.virtual_memory().available), *_headrooms(cgroups, of_self)])


def _headrooms(cgroups: Path, of_self: Path) -> Iterator[int]:
    """What is left below each memory limit that holds for this process (cgroup v2 and v1)."""
    for group, limit, usage, prefix in _groups(cgroups, of_self):
        try:
            limit_bytes = int((group / limit).read_text())  # "max" where there is none
            used = int((group / usage).read_text())
            counts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            continue
        yield max(0, limit_bytes - used + sum(int(counts.get(prefix + name, 0)) for name in _RECLAIMED))


def _groups(cgroups: Path, of_self: Path) -> Iterator[tuple[Path, str, str, str]]:
    """The process's groups and all above them, with the names of their files."""
    try:
        lines = of_self.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        below = Path(path.lstrip("/"))
        for group in (below, *below.parents):
            if not controllers:
                yield cgroups / group, "memory.max", "memory.current", ""
            elif "memory" in controllers.split(","):
                v1 = cgroups / "memory" / group
                yield v1, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"
