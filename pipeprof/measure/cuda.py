"""A CUDA device: real training, timed by events in its streams. The loop is never synchronised for timing.

Each step leaves six events in the streams: when the loop asked for the batch, when the batch was there, and
the beginning and the end of copy and computation. An event takes the device's time at which the stream
reaches it, so that the first two lie apart by exactly the time for which the stream was dry: the stall.

Event times are turned into `CLOCK_MONOTONIC` through an anchor: an event on an idle stream, awaited, and the
host's clock before and after it. Anchors are renewed every few seconds, because the two clocks drift and
because `elapsed_time` is a 32-bit float of milliseconds.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, NamedTuple

import torch

from pipeprof.errors import MeasureError
from pipeprof.measure.accelerator import StepTimes, cuda_facts
from pipeprof.measure.batch import map_tensors, tensors
from pipeprof.measure.workload import Workload

ANCHOR_TRIES: Final = 4
"""The host may lose its core between an event and the reading of its clock: the quickest try counts."""
ANCHOR_AGE_NS: Final = 5_000_000_000
"""At 5 s a 32-bit float of milliseconds still resolves 0.5 us, CUDA's own resolution."""


class _Marks(NamedTuple):
    """The events of one step. All lie in the compute stream but the copy's, with `prefetch_to_device`."""

    step: int
    anchor: _Anchor
    requested: Any
    arrived: Any
    copy_start: Any
    copy_end: Any
    compute_start: Any
    compute_end: Any


class _Anchor(NamedTuple):
    """One instant on both clocks."""

    event: Any
    time_ns: int


class CudaAccelerator:
    """Copies and trains on the current CUDA device.

    Pinned batches are copied with `non_blocking=True`; pageable ones block the host, as torch has it. With
    `prefetch_to_device` copies go through a side stream, beside the computation of the step before; it takes
    pinned batches to gain anything. `cuda` and `clock` are handed in by tests.
    """

    kind = "cuda"
    emulated = False

    def __init__(
        self,
        workload: Workload,
        *,
        sync: bool = False,
        prefetch_to_device: bool = False,
        cudnn: bool = True,
        cuda: Any = torch.cuda,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.workload = workload
        self._sync, self._cudnn, self._cuda, self._clock = sync, cudnn, cuda, clock
        self._stream = cuda.current_stream()
        self._copy_stream = cuda.Stream() if prefetch_to_device else self._stream
        self._idle_stream = cuda.Stream()
        self._requested: Any = None
        self._pending: deque[_Marks] = deque()
        self._anchor = self._new_anchor()

    def _event(self, stream: Any) -> Any:
        event = self._cuda.Event(enable_timing=True)
        event.record(stream)
        return event

    def _new_anchor(self) -> _Anchor:
        tries = []
        for _ in range(ANCHOR_TRIES):
            before_ns = self._clock()
            event = self._event(self._idle_stream)
            event.synchronize()
            after_ns = self._clock()
            tries.append((after_ns - before_ns, _Anchor(event, (before_ns + after_ns) // 2)))
        return min(tries, key=lambda one: one[0])[1]

    def request(self, step: int) -> None:
        """Mark the stream where the loop begins to wait for a batch."""
        if self._requested is None:  # else the last request ended an epoch, and the wait goes on
            self._requested = self._event(self._stream)

    def submit(self, step: int, batch: Any) -> None:
        """Queue the copy and the computation of `batch`; waits only for pageable copies and with `sync`."""
        if self._clock() - self._anchor.time_ns > ANCHOR_AGE_NS:
            self._anchor = self._new_anchor()
        requested = self._requested or self._event(self._stream)
        arrived = self._event(self._stream)
        batch = self.workload.prepare(batch)
        on_device, copy_start, copy_end = self._copy(batch)
        compute_start = self._event(self._stream)
        self._compute(on_device)
        compute_end = self._event(self._stream)
        self._pending.append(
            _Marks(step, self._anchor, requested, arrived, copy_start, copy_end, compute_start, compute_end)
        )
        self._requested = None
        if self._sync:
            compute_end.synchronize()

    def _copy(self, batch: Any) -> tuple[Any, Any, Any]:
        """The batch on the device, and the events around its copy."""
        pinned = all(tensor.is_pinned() for tensor in tensors(batch))
        with self._cuda.stream(self._copy_stream):
            start = self._event(self._copy_stream)
            on_device = self.workload.to_device(batch, non_blocking=pinned)
            end = self._event(self._copy_stream)
        if self._copy_stream is not self._stream:
            self._stream.wait_event(end)
            # The copy's memory belongs to the side stream: it must not be reused before this step's end.
            map_tensors(on_device, self._kept_for_compute)
        return on_device, start, end

    def _kept_for_compute(self, tensor: torch.Tensor) -> torch.Tensor:
        tensor.record_stream(self._stream)
        return tensor

    def _compute(self, batch: Any) -> None:
        inputs, targets = batch
        try:
            with self._without_cudnn():
                self.workload.step(inputs, targets)
        except torch.OutOfMemoryError as error:
            raise MeasureError(
                f"the step does not fit in the GPU's memory: {str(error).splitlines()[0]}",
                "make loader.batch_size smaller, or set accelerator.amp=true",
            ) from error

    def _without_cudnn(self) -> AbstractContextManager[Any]:
        return nullcontext() if self._cudnn else torch.backends.cudnn.flags(enabled=False)

    def finished(self) -> list[StepTimes]:
        """The steps whose last event has passed; asks the driver and never waits."""
        done = []
        while self._pending and self._pending[0].compute_end.query():
            done.append(_times(self._pending.popleft()))
        return done

    def synchronize(self) -> None:
        """Wait for the compute stream, and so for the copies that it waits for."""
        self._stream.synchronize()

    def describe(self) -> dict[str, Any]:
        """The device, the streams, the model."""
        device = self._cuda.current_device()
        return {
            **cuda_facts(self._cuda, device),
            "queue_depth": None,  # the driver's, some thousand launches: the host is not held back by steps
            "synchronises": self._sync,
            "copies_overlap": self._copy_stream is not self._stream,
            "memory_bytes": self._cuda.get_device_properties(device).total_memory,
            "cuda": torch.version.cuda,
            "model": self.workload.describe(),
        }


def _times(marks: _Marks) -> StepTimes:
    """The events of a finished step on the host's clock. Raises nothing: all of them have passed."""

    def at(event: Any) -> int:
        return marks.anchor.time_ns + round(float(marks.anchor.event.elapsed_time(event)) * 1e6)

    return StepTimes(
        marks.step,
        at(marks.copy_start),
        at(marks.copy_end),
        at(marks.compute_start),
        at(marks.compute_end),
        round(marks.requested.elapsed_time(marks.arrived) * 1e6),
    )
