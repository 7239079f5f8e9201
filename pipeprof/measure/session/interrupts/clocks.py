"""Notice that the machine's clock was set, or that the machine slept, while a run lasts.

The tables' clock (`CLOCK_MONOTONIC`) neither jumps nor runs while the machine sleeps; the wall clock does,
and `CLOCK_BOOTTIME` continues during sleep. The differences of the three thus distinguish one from the other.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple

LEAST_NS: Final = 500_000_000
"""A smaller step does not matter: time daemons make such steps."""
_AT_ONCE_NS: Final = 10_000_000
"""Readings of the clocks that are further apart cannot be compared."""


class ClockReadings(NamedTuple):
    """The clocks at one instant, in ns."""

    monotonic: int
    wall: int
    boot: int | None
    """None if the system has no such clock."""
    monotonic_after: int


class ClockJumps(NamedTuple):
    """Jumps since the last look, in ns; mostly zeros."""

    set_ns: int = 0
    """Amount by which the wall clock was set, forwards or back."""
    slept_ns: int = 0


def read() -> ClockReadings:
    """Read the clocks of this machine."""
    before, wall, boot = time.monotonic_ns(), time.time_ns(), None
    with suppress(AttributeError, OSError):
        boot = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return ClockReadings(before, wall, boot, time.monotonic_ns())


class Clocks:
    """Looks at the clocks 7 to 20 times a second, from one thread."""

    def __init__(self, read: Callable[[], ClockReadings] = read) -> None:
        self._read = read
        self._last = read()

    def look(self) -> ClockJumps:
        """Return the amount by which clocks have jumped since the last call."""
        now, last = self._read(), self._last
        if now.monotonic_after - now.monotonic > _AT_ONCE_NS:
            return ClockJumps()
        self._last = now
        ran_ns = now.monotonic - last.monotonic
        slept_ns = 0
        if now.boot is not None and last.boot is not None:
            slept_ns = now.boot - last.boot - ran_ns
        set_ns = now.wall - last.wall - ran_ns - slept_ns
        return ClockJumps(set_ns if abs(set_ns) >= LEAST_NS else 0, slept_ns if slept_ns >= LEAST_NS else 0)
