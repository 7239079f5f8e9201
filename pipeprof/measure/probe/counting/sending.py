"""Sends what was counted in a worker through a slot of a ring, about once a second.

With lines sampled that is the aide's slot and its thread. Without, it is the slot of the batches, whose one
writer is the thread that makes them: it looks at the clock at the end of each batch.
"""

from __future__ import annotations

from contextlib import suppress
from multiprocessing.util import Finalize
from typing import Final

from pipeprof.measure.probe.batch import BatchRecorder
from pipeprof.measure.probe.counting import tally
from pipeprof.measure.probe.counting.levels import read_levels
from pipeprof.measure.probe.ring import Slot
from pipeprof.record.names import counters

EVERY_NS: Final = 1_000_000_000


def send_counts(slot: Slot, recorder: BatchRecorder) -> None:
    """Write the levels of this process, and what was counted in it since the last call."""
    looks = ((counters.ALLOCATED_BYTES, allocated) for allocated in recorder.allocated.take())
    for counter, value in (*looks, *read_levels().items(), *tally.take().items(), *tally.take_notes()):
        slot.put_counter(slot.name_id(counter), recorder.key[0], 0, value=value)


class CountSender:
    """Sends the counts of a worker from the thread that makes its batches."""

    def __init__(self, recorder: BatchRecorder, slot: Slot) -> None:
        self._recorder, self._slot = recorder, slot
        self._next_ns = 0  # at the end of the first batch: a worker may not live long
        with suppress(Exception):  # the last second's counts are not worth an error at exit
            Finalize(None, self.send, exitpriority=10)

    def batch_ended(self, now_ns: int) -> None:
        """Send what was counted, if it is time."""
        asked = self._slot.last_asked
        if now_ns >= self._next_ns or asked:
            self._next_ns = now_ns + EVERY_NS
            self.send()
            if asked:
                self._slot.sent_last()

    def send(self) -> None:
        """Send what was counted since the last call; nothing if no one reads it any more."""
        if not self._slot.unread:
            send_counts(self._slot, self._recorder)
