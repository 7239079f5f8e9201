"""Detects that the whole process stood still: stopped by a signal, in a frozen container, under a closed
lid."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic_ns, process_time_ns
from typing import Final

from pipeprof.measure.probe.counting.counters import RunQueue
from pipeprof.record.schema import MISSING

LEAST_NS: Final = 500_000_000
"""Length of a gap between two looks below which it may come from a busy machine."""
_IDLE: Final = 0.25
"""Share of a gap in which a process that stood still has computed, or waited for a core, at most: on a busy
machine it waits for one when it goes on."""


class Gaps:
    """Looks at the clock 7 to 20 times a second, from one thread, and reports gaps that were standstills.

    In a gap that a busy process or machine has made, the process has computed, as in a native call that holds
    the GIL, or the thread has waited for a core. In a standstill neither has happened.
    """

    def __init__(
        self,
        clock_ns: Callable[[], int] = monotonic_ns,
        cpu_ns: Callable[[], int] = process_time_ns,
        queued_ns: Callable[[], int] | None = None,
    ) -> None:
        self._clock_ns, self._cpu_ns = clock_ns, cpu_ns
        self._queued_ns = RunQueue().read if queued_ns is None else queued_ns
        self._last = self._now()

    def _now(self) -> tuple[int, int, int]:
        return self._clock_ns(), self._cpu_ns(), self._queued_ns()

    def look(self) -> int:
        """Return for how many nanoseconds the process has stood still since the last call; mostly 0."""
        (then_ns, cpu_then, queued_then), self._last = self._last, self._now()
        now_ns, cpu_now, queued_now = self._last
        gap_ns = now_ns - then_ns
        if gap_ns < LEAST_NS or MISSING in (queued_then, queued_now):
            return 0
        was_active = (cpu_now - cpu_then) + (queued_now - queued_then) > _IDLE * gap_ns
        return 0 if was_active else gap_ns
