"""Waits of finished batches for their worker's GIL, held while the worker makes its next batch.

Two signs are known. What was waited for follows soon after the end of that making. Or it came while the
making was under way: its native call was over, and Python let the others in. A batch then waits without
working, which the size of its pickle shows: the descriptors of a few tensors are handed over quickly.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from pipeprof.timeline import NOT_OBSERVED, Bools, Ints, Timeline, take

SWITCH_NS: Final = 5_000_000
"""Time after which Python code gives up its interpreter's lock: a thread that waits longer waits for a native
call."""
SOON: Final = 0.25
"""Share of a wait for a lock that may lie outside of the making that held it: else the making merely ended,
or began, while the wait was under way."""
WORK_NS_PER_BYTE: Final = 16_000
"""Time for each byte of a batch's pickle up to which handing it over may be work. A further tensor adds 64
bytes and a descriptor, whose way takes 0.2 to 0.3 ms on two idle cores; four times that here."""


def ended_before(begin: Ints, end: Ints, finish: Ints) -> Bools:
    """Return where the next making finished within a wait from `begin` to `end`, which ended soon after."""
    seen = (begin != NOT_OBSERVED) & (end != NOT_OBSERVED) & (finish != NOT_OBSERVED)
    within = seen & (finish > begin) & (finish <= end)
    return np.asarray(within & (end - finish <= SOON * (end - begin)))


def under_way(begin: Ints, end: Ints, start: Ints, finish: Ints, pickle_bytes: Ints) -> Bools:
    """Return where the next making, from `start` to `finish`, went on all through a wait, and after it.

    Only if the wait is too long for the work of handing over a pickle of that size.
    """
    seen = (begin != NOT_OBSERVED) & (end != NOT_OBSERVED) & (pickle_bytes != NOT_OBSERVED)
    seen &= (start != NOT_OBSERVED) & (finish > end)
    waited = end - begin
    idle = (waited > SWITCH_NS) & (waited > WORK_NS_PER_BYTE * pickle_bytes)
    return np.asarray(seen & idle & (start - begin <= SOON * waited))


def lock_waits(timeline: Timeline, receive_starts: Ints) -> tuple[Ints, Ints]:
    """Return, by step, how long the batch waited until its worker let go: to be pickled, to be received.

    That is the time from when the queue thread could have pickled it, or the main process began to unpickle
    it, for which the next batch of the same worker was being made.
    """
    t = timeline
    next_start, next_finish = (take(times, t.next_of_worker) for times in (t.start_ns, t.finish_ns))

    def waits(begin: Ints, end: Ints) -> Ints:
        after = ended_before(begin, end, next_finish)
        during = under_way(begin, end, next_start, next_finish, t.usual_pickle_bytes)
        inside = np.where(during, end - np.maximum(begin, next_start), 0)
        return np.asarray(np.where(after, next_finish - begin, inside))

    return waits(t.finish_ns, t.pickled_ns), waits(receive_starts, t.received_ns)
