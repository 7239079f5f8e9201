"""What the hypervisor gave to others: on a virtual machine a thread may be running and have no core.

The kernel subtracts such time from a thread's CPU time and does not count it as run-queue delay either, so
that it would pass for blocked time. The machine's own counter tells of it.
"""

from __future__ import annotations

import psutil


class Steal:
    """Looks at the machine's counter every now and then."""

    def __init__(self) -> None:
        self._before = _seconds()

    def sensors(self) -> dict[str, float]:
        """`host.steal`: its share of the CPU time asked for since the last look; nothing where unseen."""
        before, now = self._before, _seconds()
        self._before = now
        if before is None or now is None:
            return {}
        used_s, stolen_s = now[0] - before[0], now[1] - before[1]
        return {"host.steal": stolen_s / (used_s + stolen_s) if stolen_s > 0 else 0.0}


def is_counted() -> bool:
    """Whether this machine tells."""
    return _seconds() is not None


def _seconds() -> tuple[float, float] | None:
    """CPU time that all cores together had, and that was stolen from them."""
    try:
        times = psutil.cpu_times()
    except (OSError, RuntimeError, ValueError):  # a sandbox without /proc/stat
        return None
    stolen = getattr(times, "steal", None)  # Linux alone has it
    if stolen is None:
        return None
    idle = times.idle + getattr(times, "iowait", 0.0)
    guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)  # in `user` and `nice` too
    return sum(times) - idle - guests - stolen, stolen
