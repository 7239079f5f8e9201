"""The loop's side of a session: spans in the user's own code between two batches, and the device's wait."""

from __future__ import annotations

from collections import deque
from threading import Lock
from typing import Any

from pipeprof.measure.accelerator import StepTimes, cuda_facts
from pipeprof.measure.recorder import Sink, Totals, activate, active
from pipeprof.measure.rows import StepRow


class LoopSink(Sink):
    """The sink of the thread that runs the loop, while it makes no batch itself."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple[StepRow, dict[str, Totals]]] = []
        self._row: StepRow | None = None
        self._ended = False
        self._outer: LoopSink | None = None
        """The sink of the loop in which this one runs."""

    def took(self, row: StepRow, wait_ns: int) -> None:
        """A batch was taken: what was marked until now belongs to the step before it."""
        if self.totals and self._row is not None:
            self.done.append((self._row, self.totals))
            self.totals = {}
        self._row = row
        now = active()
        if now is self:
            self.inner_ns += wait_ns  # a stage around the wait does not own it
        elif now is None or isinstance(now, LoopSink):  # another run's, as of a validation in the loop
            if now is not None and now._outer is not self:
                self._outer = now
            activate(self)

    def left(self) -> None:
        """The loop is over; the one around it goes on."""
        outer, self._outer = self._outer, None
        if outer is not None and not outer._ended and active() is self:
            activate(outer)

    def end(self) -> None:
        """The run is over."""
        self.left()
        if self._row is not None and self.totals:
            self.done.append((self._row, self.totals))
        self.totals, self._row, self._ended = {}, None, True
        if active() is self:  # else another thread ends the run: the loop's finds out by itself
            activate(None)


class DeviceWait:
    """The unmasked wait, measured on a CUDA device: two events a step and no synchronisation.

    One is recorded when the batch is asked for and one when it has been taken. The stream reaches the first
    when the work queued before it is done; the time between the two on the stream is the stall.

    The device is the one on which the program holds most memory, which need not be the current one: an event
    on a device that it does not use would measure an idle stream, and open a context there. Until it holds
    any, and after the first error of the driver, waits are not observed. Loops of several threads may call.
    """

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda
        self._facts: dict[str, Any] | None = None
        self._why_not: str | None = None
        self._asked: Any = None
        self._waits: deque[tuple[StepRow, Any, Any]] = deque()
        self._spare: list[Any] = []
        self._requests = 0
        self._lock = Lock()

    def requested(self) -> None:
        """The loop asks for a batch."""
        with self._lock:
            try:
                self._tell()
                if self._asked is None and self._has_device():  # else the wait goes on after an epoch's end
                    self._asked = self._event()
            except Exception as error:  # a lost device, a stream that is being captured: the loop goes on
                self._give_up(error)

    def took(self, row: StepRow) -> None:
        """The loop has its batch. One that was taken inside the wait for another ends that wait."""
        with self._lock:
            asked, self._asked = self._asked, None
            if asked is None:
                row.complete = True
                return
            try:
                self._waits.append((row, asked, self._event()))
            except Exception as error:
                row.complete = True
                self._give_up(error)

    def tell(self) -> None:
        """Complete the rows of the waits that the device has passed by now. Never waits."""
        with self._lock:
            try:
                self._tell()
            except Exception as error:
                self._give_up(error)

    def enter(self, meta: dict[str, Any]) -> None:
        """Tell in `run.json` which device it was, and what went wrong with it."""
        if self._facts is not None and meta["accelerator"]["kind"] == "none":
            meta["accelerator"] = self._facts
        if self._why_not is not None:
            why = f"waits on the device's own clock: {self._why_not}"
            meta["not_observed"] = [*meta["not_observed"], why]

    def _has_device(self) -> bool:
        if self._facts is not None or self._why_not is not None:
            return self._why_not is None
        self._requests += 1
        if self._requests & (self._requests - 1):
            return False  # looks at the 1st, 2nd, 4th, 8th request: a look costs as much as a step's events
        held = [self._cuda.memory_allocated(device) for device in range(self._cuda.device_count())]
        if any(held):
            self._facts = cuda_facts(self._cuda, held.index(max(held)))
        return self._facts is not None

    def _event(self) -> Any:
        assert self._facts is not None
        event = self._spare.pop() if self._spare else self._cuda.Event(enable_timing=True)
        event.record(self._cuda.current_stream(self._facts["device"]))
        return event

    def _tell(self) -> None:
        while self._waits:
            row, asked, taken = self._waits[0]
            # The first may be the later one to pass: the loop may have changed its stream meanwhile.
            if not (taken.query() and asked.query()):
                return
            wait_ns = round(asked.elapsed_time(taken) * 1e6)
            if wait_ns >= 0:
                row.device = StepTimes(row.step, device_wait_ns=wait_ns)
            row.complete = True
            self._waits.popleft()
            self._spare += [asked, taken]

    def _give_up(self, error: Exception) -> None:
        self._why_not = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        for row, _, _ in self._waits:
            row.complete = True
        self._asked = None
        self._waits.clear()
        self._spare.clear()
