"""Decides which batches are made unprobed: so that a run can measure what observing it costs, and costs less.

For an unprobed batch the proxies reduce to a pass-through: two readings of the clock, and no spans, counters
and lines. Each process counts its own batches, after a loader's first ones, by one of two plans:

- by the full plan one block of each period is unprobed, and compared with the probed ones before and after;
- by a thin plan one block of each period is probed, and compared with the unprobed ones before and after. Of
  long batches a block is one, so that those that stand for the others are not far away.

The CPU clock of the thread is read at the start and the end of the blocks that are compared. A process
switches to a thin plan if by those comparisons probing costs more than `WORTH_THINNING` of a batch's time,
and comes back when it no longer does.
"""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from time import monotonic_ns, thread_time_ns
from typing import Final

from pipeprof.record.schema import MISSING, PROBED_OF, UNPROBED_BLOCK, UNPROBED_PERIOD

WORTH_THINNING: Final = 0.01
"""Share of a batch's time from which what probing costs is worth less detail."""
FEWEST_COMPARED: Final = 6
"""Comparisons before which nothing is decided: one of few can lie anywhere."""
_MOST_COMPARED: Final = 25
_EDGES: Final = 4
"""Readings of the clocks around a block: before its neighbours, before and after itself, after them."""
_PLAIN, _EDGE = 2, 4
"""Bits of a place in a plan, beside 1 for an unprobed batch: whether nothing is to be done there but to say
so, and whether the clocks are read."""


def _plan(period: int, block: int, is_unprobed_there: bool) -> bytes:
    """Return what each batch of a period is: its block lies near the end, with room for what follows it."""
    begin = period - 3 * block
    edges = {begin + n * block for n in (-1, 0, 1, 2)}
    places = []
    for at in range(period):
        is_unprobed = (begin <= at < begin + block) == is_unprobed_there
        places.append(is_unprobed + (_EDGE if at in edges else 0 if at - 1 in edges else _PLAIN))
    return bytes(places)


FULL: Final = _plan(UNPROBED_PERIOD, UNPROBED_BLOCK, True)
THIN: Final = _plan(PROBED_OF * UNPROBED_BLOCK, UNPROBED_BLOCK, False)
THIN_OF_LONG: Final = _plan(PROBED_OF, 1, False)
_LONG_NS: Final = 200_000_000
"""Time of a batch from which it is a long one."""
_TOO_LONG_NS: Final = 3_000_000_000
"""Time of a batch from which all are probed: the last 30 s would have none that was."""


class Blocks:
    """Counts the batches that a thread begins. The first period begins after `first` of them."""

    def __init__(self, first: int) -> None:
        self.plan = FULL
        self._plan = bytes([_PLAIN]) * first + FULL
        self._at = 0
        self.thread_cpu_ns = MISSING
        """CPU time of the thread before the batch that was counted last; only at the edges of blocks."""
        self._batch_ns = 0
        """Time of a batch at the last comparison."""
        self._readings: list[tuple[int, int]] = []
        self._shares = deque[float](maxlen=_MOST_COMPARED)

    def begin(self) -> bool:
        """Count a batch that begins, and return whether it is to be unprobed."""
        try:
            place = self._plan[self._at]
        except IndexError:
            self._begin_period()
            place = self._plan[0]
        self._at += 1
        if place & _PLAIN:
            return place & 1 == 1
        self.thread_cpu_ns = MISSING
        if place & _EDGE:
            self.thread_cpu_ns = thread_time_ns()
            self._readings.append((self.thread_cpu_ns, monotonic_ns()))
            if len(self._readings) == _EDGES:
                self._compare()
        return place & 1 == 1

    @property
    def probes_next(self) -> bool:
        """Return whether the next batch is to be probed; False if its period has not begun."""
        return self._at < len(self._plan) and not self._plan[self._at] & 1

    def _compare(self) -> None:
        """Note which share of a batch's time probing costs, by the readings around a block."""
        cpu = [cpu_ns for cpu_ns, _ in self._readings]
        lasted_ns = self._readings[-1][1] - self._readings[0][1]
        self._readings.clear()
        before, own, after = (later - one for one, later in pairwise(cpu))
        if min(before, own, after) <= 0 or lasted_ns <= 0:  # another process, with a clock of its own
            return
        less = (before + after) / 2 - own
        probing_ns = less if self.plan is FULL else -less
        self._shares.append(probing_ns * (_EDGES - 1) / lasted_ns)
        self._batch_ns = lasted_ns // ((_EDGES - 1) * (1 if self.plan is THIN_OF_LONG else UNPROBED_BLOCK))

    def _begin_period(self) -> None:
        """Begin a period, by the plan that its cost asks for."""
        self.thread_cpu_ns = MISSING  # the last batch of the one before may have been at an edge
        is_thin = self._batch_ns < _TOO_LONG_NS and self._is_costly()
        thin = THIN if self._batch_ns < _LONG_NS else THIN_OF_LONG
        self.plan = self._plan = thin if is_thin else FULL
        self._at = 0

    def _is_costly(self) -> bool:
        """Return whether probing costs too much: by the median, and seen in three of four comparisons."""
        shares = sorted(self._shares)
        if len(shares) < FEWEST_COMPARED:
            return False
        return shares[len(shares) // 4] > 0 and shares[len(shares) // 2] > WORTH_THINNING
