"""The unmasked wait of a training loop, measured on its device."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from threading import Lock
from typing import Any

from pipeprof.errors import first_line
from pipeprof.measure.device.clock import elapsed_ns
from pipeprof.measure.device.contract import Device
from pipeprof.measure.session.steps.step import Step
from pipeprof.record.meta import AcceleratorMeta, RunMeta


class DeviceWait:
    """The unmasked wait, measured on a device: two events a step and no synchronisation.

    One is recorded when the batch is asked for and one when it has been taken. The stream reaches the first
    when the work queued before it is done; the time between the two on the stream is the stall.

    The device is the one on which the program holds most memory, which need not be the current one: an event
    on a device that it does not use would measure an idle stream, and open a context there. Until it holds
    any, and after the first error of the driver, waits are not observed. In a stream that is being captured
    into a graph nothing is marked. Loops of several threads may call.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._facts: AcceleratorMeta | None = None
        self._why_not: str | None = None
        self._asked: Any = None
        self._waits: deque[tuple[Step, Any, Any]] = deque()
        self._spare: list[Any] = []
        self._requests = 0
        self._lock = Lock()

    def requested(self) -> None:
        """Note that the loop asks for a batch."""
        with self._lock:
            try:
                self._complete_passed()
                if self._asked is None and self._has_device():  # else the wait goes on after an epoch's end
                    self._asked = self._event()
            except Exception as error:  # a lost device, one without timed events: the loop goes on
                self._give_up(error)

    def took(self, step: Step) -> None:
        """Note that the loop has its batch. A batch that was taken inside the wait for another ends that
        wait."""
        with self._lock:
            asked, self._asked = self._asked, None
            try:
                taken = self._event() if asked is not None else None
                if taken is None:
                    step.complete = True
                else:
                    self._waits.append((step, asked, taken))
            except Exception as error:
                step.complete = True
                self._give_up(error)

    def complete(self) -> None:
        """Complete the steps whose waits the device has passed by now. Never wait."""
        with self._lock:
            try:
                self._complete_passed()
            except Exception as error:
                self._give_up(error)

    def entered(self, meta: RunMeta) -> RunMeta:
        """Return `meta` with the device that was used, and what went wrong with it."""
        if self._facts is not None and meta.accelerator.kind == "none":
            meta = replace(meta, accelerator=self._facts)
        if self._why_not is not None:
            why = f"waits on the device's own clock: {self._why_not}"
            meta = replace(meta, not_observed=(*meta.not_observed, why))
        return meta

    def _has_device(self) -> bool:
        if self._facts is not None or self._why_not is not None:
            return self._why_not is None
        self._requests += 1
        if self._requests & (self._requests - 1):
            return False  # looks at the 1st, 2nd, 4th, 8th request: a look costs as much as a step's events
        index = self._device.busiest()
        if index is not None:
            self._facts = self._device.facts(index)
        return self._facts is not None

    def _event(self) -> Any:
        """Mark the device's current stream; None if it is being captured."""
        assert self._facts is not None
        if self._device.capturing():
            return None
        index = self._facts.device
        event = self._spare.pop() if self._spare else self._device.event(index)
        event.record(self._device.current_stream(index))
        return event

    def _complete_passed(self) -> None:
        while self._waits:
            step, asked, taken = self._waits[0]
            # The first may be the later one to pass: the loop may have changed its stream meanwhile.
            if not (taken.query() and asked.query()):
                return
            wait_ns = elapsed_ns(asked, taken)
            if wait_ns >= 0:
                step.device_wait_ns = wait_ns
            step.complete = True
            self._waits.popleft()
            self._spare += [asked, taken]

    def _give_up(self, error: Exception) -> None:
        self._why_not = f"{type(error).__name__}: {first_line(error)}"
        for step, _, _ in self._waits:
            step.complete = True
        self._asked = None
        self._waits.clear()
        self._spare.clear()
