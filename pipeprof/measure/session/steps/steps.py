"""The steps of a session's loop: noted as they happen by the loop's thread, taken by the one that flushes."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from time import monotonic_ns
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeprof.measure.device.here import device_in_use
from pipeprof.measure.probe.batch import BatchRecorder
from pipeprof.measure.session.lines.loop import LoopLines
from pipeprof.measure.session.passes import RecordEvent
from pipeprof.measure.session.steps.device_wait import DeviceWait
from pipeprof.measure.session.steps.kernels import KernelTrace
from pipeprof.measure.session.steps.loop_sink import LoopSink
from pipeprof.measure.session.steps.parts import StepParts
from pipeprof.measure.session.steps.step import COLUMNS, Step, StepSource, row_of
from pipeprof.measure.session.steps.trainer import TrainerWatch
from pipeprof.record.columns import nullable
from pipeprof.record.schema import MISSING, TABLES
from pipeprof.record.step_times import StepTimes

HELD_AT_MOST: Final = 4096
"""Largest number of steps that wait for their device times; beyond it, they are written without."""
ASKED_EACH: Final = 64
"""Number of first steps at each of which pipeprof checks whether the program uses a device yet, for 0.8
µs."""
ASK_EVERY: Final = 16
"""Interval, in steps, at which it is asked later."""


class Steps:
    """Steps of a session's loop.

    With `device_times_follow` a step waits for `add_device_times` before it is written; else for the wait on
    the device's own clock, if the program uses a device. With `lines` the loop's thread is sampled.
    """

    def __init__(self, record: RecordEvent, warmup: int, device_times_follow: bool, lines: bool) -> None:
        self.taken = self.wait_ns = self.samples = 0
        self.ready_batches: int | None = None
        """Finished by workers and not taken, at the last request."""
        self.sink = LoopSink()
        self.device_wait: DeviceWait | None = None
        self.lines = LoopLines(self.sink) if lines else None
        self._is_over = False
        """True after the run: a step that was being taken then would wait forever to be written."""
        self.parts: StepParts | None = None
        self.kernels: KernelTrace | None = None
        self._record, self._warmup, self._device_times_follow = record, warmup, device_times_follow
        self._waiting: dict[int, Step] = {}
        self._first_request_ns = self._last_take_ns = 0
        self._written = self._ask_again_at = 0
        self._has_device = False
        """True if the program used a device when it was asked last, for `may_pass`."""
        self._trainer: TrainerWatch | None = None

    def drawing(self) -> None:
        """Note that an epoch begins, whose first indices are drawn."""
        if self.lines is not None:
            self.lines.drawing()

    def requested(self, request_ns: int, recorder: BatchRecorder | None = None) -> None:
        """Note that `next(iterator)` was called; without workers, `recorder` records the batch's making."""
        if self.lines is not None:
            self.lines.requested(recorder)
        if self._first_request_ns == 0:
            self._first_request_ns = request_ns
            thread = threading.current_thread()
            if thread is not threading.main_thread():
                self._record("consumer_thread", detail=thread.name)
                self._trainer = TrainerWatch(thread.ident, self._note_trainer)
        if not self._device_times_follow:
            self._ask_device()

    def _note_trainer(self, name: str) -> None:
        self._record("trainer_thread", detail=name)

    def _ask_device(self) -> None:
        if self.device_wait is None:
            if self.taken > ASKED_EACH and self.taken % ASK_EVERY:
                return
            device = device_in_use()
            if device is None:
                return
            self.device_wait = DeviceWait(device)
        self.device_wait.requested()

    def took(
        self,
        source: StepSource,
        order: int,
        key: tuple[int, int] | None,
        request_ns: int,
        take_ns: int,
        ready: int | None,
        next_cpu_ns: int = MISSING,
    ) -> None:
        """Note that `next(iterator)` returned a batch, the `order`-th of its epoch."""
        if self._is_over:
            return
        number = self.taken
        complete = not self._device_times_follow and self.device_wait is None
        warmup = number < self._warmup
        step = Step(number, source, order, key, warmup, request_ns, take_ns, ready, complete)
        step.next_cpu_ns = next_cpu_ns
        if self.device_wait is not None:
            self.device_wait.took(step)
        self._waiting[number] = step
        self._last_take_ns = take_ns
        self.wait_ns += take_ns - request_ns
        self.ready_batches = ready
        self.taken = number + 1
        if self.parts is not None:
            self.parts.took(number)
        if self.kernels is not None:
            self.kernels.took(number)
        self.sink.took(step, take_ns - request_ns)
        if self.lines is not None:
            self.lines.took()

    @property
    def may_pass(self) -> bool:
        """Return True if a step may be unprobed: nothing in the loop is marked, and no device timed."""
        if (
            self.sink.was_used
            or self.sink.totals
            or self.device_wait is not None
            or self._device_times_follow
        ):
            return False
        if self.taken >= self._ask_again_at:
            self._has_device = device_in_use() is not None
            self._ask_again_at = self.taken + ASK_EVERY
        return not self._has_device and self.parts is None and self.kernels is None

    def passing(self) -> None:
        """Count no line from the request of an unprobed step to the next request."""
        if self.lines is not None:
            self.lines.left()

    def passed(
        self,
        source: StepSource,
        order: int,
        key: tuple[int, int] | None,
        request_ns: int,
        take_ns: int,
        own_ns: int,
    ) -> None:
        """Note an unprobed step: that it was one, when it happened, and how long our own code ran."""
        if self._is_over:
            return
        number = self.taken
        self._waiting[number] = step = Step(
            number, source, order, key, number < self._warmup, request_ns, take_ns, None, True
        )
        step.unprobed, step.own_ns = 1, own_ns
        self._last_take_ns = take_ns
        self.wait_ns += take_ns - request_ns
        self.taken = number + 1

    def note_cpu(self, thread_cpu_ns: int) -> None:
        """Enter the CPU time of the loop's thread at the request of the last step."""
        step = self._waiting.get(self.taken - 1)
        if step is not None:  # else it is written already
            step.thread_cpu_ns = thread_cpu_ns

    def warm_up(self) -> None:
        """Count the step that comes next as warm-up, with all before it."""
        self._warmup = self.taken + 1

    @property
    def past_warmup(self) -> int:
        """Return how many steps came after warm-up."""
        return max(0, self.taken - self._warmup)

    def left_loop(self) -> None:
        """Note that a loader has come to the end of its epoch."""
        self.sink.left()
        if self.lines is not None:
            self.lines.left()

    def launched(self, number: int, launch_ns: int | None = None) -> None:
        """Note that the host has submitted a step and goes on, now or at `launch_ns`."""
        step = self._waiting.get(number)
        if step is not None:
            step.launch_ns = monotonic_ns() if launch_ns is None else launch_ns

    def add_device_times(self, times: Iterable[StepTimes]) -> None:
        """Enter what the device has measured of earlier steps."""
        for each in times:
            step = self._waiting.get(each.step)
            if step is not None:
                step.add_device_times(each)
                step.complete = True

    def stop_sampling(self) -> None:
        """Stop sampling lines, tracing and marking: the loop's thread alone can end some of it."""
        if self.lines is not None:
            self.lines.stop()
        if self.kernels is not None:
            self.kernels.end()
        if self.parts is not None:
            self.parts.remove()

    def end(self) -> None:
        """Note that the run is over. Any thread may call."""
        self._is_over = True
        self.sink.end()
        self.stop_sampling()
        if self.parts is not None:
            self.parts.complete()
        if self._trainer is not None:
            self._trainer.stop()
        if self.device_wait is not None:
            self.device_wait.complete()

    @property
    def wall_ns(self) -> int:
        """Return the time from the first request to the last take."""
        return self._last_take_ns - self._first_request_ns if self.taken else 0

    def unwritten_epochs(self) -> set[tuple[int, int]]:
        """Return identity of the source, and epoch, of the steps that are not yet written."""
        return {(id(step.source), step.epoch) for step in list(self._waiting.values())}

    def take(self, taken: int, last: bool) -> dict[str, Any]:
        """Return columns of the steps that are complete, of the first `taken`; all of them if `last`.

        `taken` was read before the rings were drained: what those steps took is known by now.
        """
        rows: list[tuple[int, ...]] = []
        while self._written < taken:
            step = self._waiting[self._written]
            if not (step.complete or last or taken - self._written > HELD_AT_MOST):
                break
            del self._waiting[self._written]
            self._written += 1
            step.add_batch()
            self.samples += max(step.samples, 0)
            rows.append(row_of(step))
        return _columns(np.array(rows, np.int64)) if rows else {}


def _columns(rows: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Return rows as columns, `MISSING` as null: a list for each would cost more than the rest of a step."""
    schema = TABLES["steps"]
    return {
        name: nullable(values, values != MISSING, schema.field(name).type)
        for name, values in zip(COLUMNS, rows.T, strict=True)
    }
