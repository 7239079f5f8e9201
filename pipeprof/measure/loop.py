"""The loop's side of a session: spans in the user's own code between two batches, and the device's wait."""

from __future__ import annotations

from collections import deque
from typing import Any

from pipeprof.measure.recorder import Sink, Totals, activate, active
from pipeprof.measure.rows import StepRow


class LoopSink(Sink):
    """The sink of the thread that runs the loop, while it makes no batch itself."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple[StepRow, dict[str, Totals]]] = []
        self._row: StepRow | None = None
        self._ended = False

    def took(self, row: StepRow, wait_ns: int) -> None:
        """A batch was taken: what was marked until now belongs to the step before it."""
        if self.totals and self._row is not None:
            self.done.append((self._row, self.totals))
            self.totals = {}
        self._row = row
        now = active()
        if now is self:
            self.inner_ns += wait_ns  # a stage around the wait does not own it
        elif now is None or (isinstance(now, LoopSink) and now._ended):
            activate(self)

    def end(self) -> None:
        """The run is over."""
        if self._row is not None and self.totals:
            self.done.append((self._row, self.totals))
        self.totals, self._row, self._ended = {}, None, True
        if active() is self:  # else another thread ends the run: the loop's finds out by itself
            activate(None)


class DeviceWait:
    """The unmasked wait, measured on a CUDA device: two events a step and no synchronisation.

    One is recorded when the batch is asked for and one when it has been taken. The stream reaches the first
    when the work queued before it is done; the time between the two on the stream is the stall.
    """

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda
        self._asked: Any = None
        self._waits: deque[tuple[StepRow, Any, Any]] = deque()
        self._spare: list[Any] = []

    def _event(self) -> Any:
        event = self._spare.pop() if self._spare else self._cuda.Event(enable_timing=True)
        event.record()
        return event

    def requested(self) -> None:
        """The loop asks for a batch."""
        if self._asked is None:  # else the last request ended an epoch, and the wait goes on
            self._asked = self._event()

    def took(self, row: StepRow) -> None:
        """The loop has its batch."""
        self._waits.append((row, self._asked, self._event()))
        self._asked = None

    def told(self) -> list[tuple[StepRow, int]]:
        """The waits that the device has passed by now, in nanoseconds. Never waits."""
        found = []
        while self._waits and self._waits[0][2].query():
            row, asked, taken = self._waits.popleft()
            found.append((row, round(asked.elapsed_time(taken) * 1e6)))
            self._spare += [asked, taken]
        return found
