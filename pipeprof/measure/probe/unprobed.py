"""Decides which batches are made unprobed, so that a run can tell what observing costs in it.

In one block of each period the proxies reduce to a pass-through: two readings of the clock, and no spans,
counters and lines. The CPU clock of the thread is read where a block begins and ends, and four batches before
and after, so that each block is compared with its neighbours. Each process counts its own batches.
"""

from __future__ import annotations

from time import thread_time_ns
from typing import Final

from pipeprof.record.schema import MISSING, UNPROBED_BLOCK, UNPROBED_PERIOD

_UNPROBED_AT: Final = UNPROBED_PERIOD - 3 * UNPROBED_BLOCK
"""Place of the block in its period, with room for what follows it."""
_BEFORE_AT: Final = _UNPROBED_AT - UNPROBED_BLOCK
_AFTER_AT: Final = _UNPROBED_AT + UNPROBED_BLOCK
_EDGES: Final = frozenset((_BEFORE_AT, _UNPROBED_AT, _AFTER_AT, _AFTER_AT + UNPROBED_BLOCK))


class Blocks:
    """Counts the batches that a thread begins. The first period begins after `first` of them."""

    def __init__(self, first: int) -> None:
        self._at = -first
        self.thread_cpu_ns = MISSING
        """CPU time of the thread before the batch that was counted last; only at the edges of blocks."""

    def begin(self) -> bool:
        """Count a batch that begins, and tell whether it is to be unprobed."""
        at = self._at
        self._at = at + 1 if at < UNPROBED_PERIOD - 1 else 0
        if at < _BEFORE_AT:
            return False
        self.thread_cpu_ns = thread_time_ns() if at in _EDGES else MISSING
        return _UNPROBED_AT <= at < _AFTER_AT
