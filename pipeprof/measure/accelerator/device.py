"""A real device: real training, timed by events in its streams. The loop is never synchronised for timing.

Each step leaves six events in the streams: when the loop asked for the batch, when the batch was there, and
the beginning and the end of copy and computation; with `parts` one more where forward, backward and optimiser
begin. An event takes the device's time at which the stream reaches it, so that the first two lie apart by
exactly the time for which the stream was dry: the stall. `measure.device.clock` puts them on the host's
clock.

A device without timed events trains all the same, and its times are not observed.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from pipeprof.errors import MeasureError, first_line
from pipeprof.measure.accelerator.workload import Workload
from pipeprof.measure.device.clock import Anchor, clock_of, elapsed_ns
from pipeprof.measure.device.contract import Device
from pipeprof.measure.probe.tensors import map_tensors, tensors
from pipeprof.record.meta import AcceleratorMeta, ModelMeta
from pipeprof.record.step_times import PartTimes, StepTimes


class _Marks(NamedTuple):
    """The events of one step, all in the compute stream except the copy's with `prefetch_to_device`."""

    step: int
    anchor: Anchor
    requested: Any
    arrived: Any
    copy_start: Any
    copy_end: Any
    compute_start: Any
    parts: tuple[tuple[str, Any], ...]
    """Name and beginning of each part of the computation; it ends where the next begins."""
    compute_end: Any


class DeviceAccelerator:
    """Copies and trains on the current device of `device`.

    Pinned batches are copied with `non_blocking=True`; pageable ones block the host, as torch has it. With
    `prefetch_to_device` copies go through a side stream, alongside the computation of the step before; it
    takes pinned batches to gain anything. `clock` is handed in by tests.
    """

    emulated = False

    def __init__(
        self,
        workload: Workload,
        device: Device,
        *,
        sync: bool = False,
        prefetch_to_device: bool = False,
        cudnn: bool = True,
        parts: bool = False,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.workload, self.kind, self.pins = workload, device.kind, device.pins
        self._sync, self._cudnn, self._device = sync, cudnn, device
        self._stream = device.current_stream()
        overlaps = prefetch_to_device and device.side_streams
        self._copy_stream = device.new_stream() if overlaps else self._stream
        self._requested: Any = None
        self._pending: deque[_Marks] = deque()
        self._parts: list[tuple[str, Any]] = []
        self._ended_parts: list[PartTimes] = []
        self._untimed: list[tuple[int, Any]] = []
        self._clock, self.why_untimed = clock_of(device, clock)
        if parts and self._clock is not None:
            workload.mark = self._mark

    def _event(self, stream: Any) -> Any:
        event = self._device.event()
        event.record(stream)
        return event

    def _mark(self, part: str) -> None:
        """Note that a part of the step begins here."""
        if not self._device.capturing():
            self._parts.append((part, self._event(self._stream)))

    def request(self, step: int) -> None:
        """Mark the stream where the loop begins to wait for a batch."""
        if self._requested is None and self._clock is not None:
            self._requested = self._event(self._stream)  # else the last request ended an epoch

    def submit(self, step: int, batch: Any) -> None:
        """Queue the copy and the computation of `batch`; waits only for pageable copies and with `sync`."""
        if self._clock is None:
            self._submit_untimed(step, batch)
            return
        if self._clock.old and (self._device.side_streams or not self._pending):
            self._clock.renew()
        requested = self._requested or self._event(self._stream)
        arrived = self._event(self._stream)
        batch = self.workload.prepare(batch)
        on_device, copy_start, copy_end = self._copy(batch)
        compute_start = self._event(self._stream)
        self._compute(on_device)
        compute_end = self._event(self._stream)
        parts, self._parts = tuple(self._parts), []
        self._pending.append(
            _Marks(
                step, self._clock.anchor, requested, arrived, copy_start, copy_end, compute_start, parts,
                compute_end,
            )
        )  # fmt: skip
        self._requested = None
        if self._sync:
            compute_end.synchronize()

    def _submit_untimed(self, step: int, batch: Any) -> None:
        """Train without events: only the launch of the step is observed."""
        on_device = self._move(self.workload.prepare(batch))
        self._compute(on_device)
        if self._sync:
            self._stream.synchronize()
        self._untimed.append((step, None))

    def _copy(self, batch: Any) -> tuple[Any, Any, Any]:
        """Copy the batch to the device; return it and the events around its copy."""
        with self._device.on(self._copy_stream):
            start = self._event(self._copy_stream)
            on_device = self._move(batch)
            end = self._event(self._copy_stream)
        if self._copy_stream is not self._stream:
            self._stream.wait_event(end)
            # The copy's memory belongs to the side stream: it must not be reused before this step's end.
            map_tensors(on_device, self._kept_for_compute)
        return on_device, start, end

    def _move(self, batch: Any) -> Any:
        pinned = all(self._device.is_pinned(tensor) for tensor in tensors(batch))
        return map_tensors(batch, lambda tensor: self._device.move(tensor, pinned))

    def _kept_for_compute(self, tensor: torch.Tensor) -> torch.Tensor:
        self._device.keep_for(tensor, self._stream)
        return tensor

    def _compute(self, batch: Any) -> None:
        inputs, targets = batch
        try:
            with self._device.libraries(self._cudnn), self._device.on(self._stream):
                self.workload.step(inputs, targets)
        except torch.OutOfMemoryError as error:
            raise MeasureError(
                f"the step does not fit in the device's memory: {first_line(error)}",
                "make loader.batch_size smaller, or set accelerator.amp=true",
            ) from error

    def finished(self) -> list[StepTimes]:
        """Return the steps whose last event has passed; asks the driver and never waits."""
        done = [StepTimes(step) for step, _ in self._untimed]
        self._untimed.clear()
        while self._pending and self._pending[0].compute_end.query():
            marks = self._pending.popleft()
            done.append(_times(marks))
            self._ended_parts += _part_times(marks)
        return done

    def parts(self) -> list[PartTimes]:
        """Return the parts of the steps that `finished` has returned since the last call."""
        ended, self._ended_parts = self._ended_parts, []
        return ended

    def synchronize(self) -> None:
        """Wait for the compute stream, and so for the copies that it waits for."""
        self._stream.synchronize()

    def describe(self) -> AcceleratorMeta:
        """Return facts about the device and its streams."""
        index = self._device.index()
        return replace(
            self._device.facts(index),
            queue_depth=None,  # the driver's, some thousand launches: the host is not held back by steps
            synchronises=self._sync,
            copies_overlap=self._copy_stream is not self._stream,
            memory_bytes=self._device.memory_bytes(index),
        )

    def describe_model(self) -> ModelMeta:
        """Return the network as it is trained."""
        return self.workload.describe()


def _times(marks: _Marks) -> StepTimes:
    """Put the events of a finished step on the host's clock. All of them have passed."""
    at = marks.anchor.at
    return StepTimes(
        marks.step,
        at(marks.copy_start),
        at(marks.copy_end),
        at(marks.compute_start),
        at(marks.compute_end),
        elapsed_ns(marks.requested, marks.arrived),
    )


def _part_times(marks: _Marks) -> list[PartTimes]:
    at = marks.anchor.at
    begins = [at(event) for _, event in marks.parts]
    ends = [*begins[1:], at(marks.compute_end)]
    return [
        PartTimes(marks.step, part, begin, end)
        for (part, _), begin, end in zip(marks.parts, begins, ends, strict=False)  # none if not marked
    ]
