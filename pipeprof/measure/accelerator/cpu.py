"""The CPU as the accelerator: it really trains, on the cores that the workers decode with."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from pipeprof.measure.accelerator.workload import Workload
from pipeprof.record.meta import AcceleratorMeta, ModelMeta
from pipeprof.record.step_times import PartTimes, StepTimes


class CpuAccelerator:
    """Trains in `submit`, which returns when the step is done: a loop on the CPU always synchronises."""

    kind = "cpu"
    emulated = False
    pins = False
    why_untimed: str | None = None

    def __init__(self, workload: Workload, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self.workload = workload
        self._clock = clock
        self._requested_ns: int | None = None
        self._ended: list[StepTimes] = []
        self._marks: list[tuple[str, int]] = []
        self._ended_parts: list[PartTimes] = []
        workload.mark = self._mark

    def _mark(self, part: str) -> None:
        """Note that a part of the step begins."""
        self._marks.append((part, self._clock()))

    def request(self, step: int) -> None:
        """Note that the loop waits from now on: the device has been free since the last step ended."""
        if self._requested_ns is None:
            self._requested_ns = self._clock()

    def submit(self, step: int, batch: Any) -> None:
        """Train on `batch`, here and now. Nothing is copied."""
        inputs, targets = self.workload.prepare(batch)
        start = self._clock()
        since = start if self._requested_ns is None else self._requested_ns
        self._requested_ns = None
        self.workload.step(inputs, targets)
        end = self._clock()
        ends = [begin for _, begin in self._marks[1:]] + [end]
        self._ended_parts += [
            PartTimes(step, part, begin, until)
            for (part, begin), until in zip(self._marks, ends, strict=True)
        ]
        self._marks.clear()
        self._ended.append(
            StepTimes(
                step,
                copy_start_ns=start,
                copy_end_ns=start,
                compute_start_ns=start,
                compute_end_ns=end,
                device_wait_ns=start - since,
            )
        )

    def finished(self) -> list[StepTimes]:
        """Return all steps submitted since the last call."""
        ended, self._ended = self._ended, []
        return ended

    def parts(self) -> list[PartTimes]:
        """Return forward, backward and optimiser of all steps submitted since the last call."""
        ended, self._ended_parts = self._ended_parts, []
        return ended

    def synchronize(self) -> None:
        """Do nothing: no step is ever outstanding."""

    def describe(self) -> AcceleratorMeta:
        """Return the threads that torch trains with."""
        return AcceleratorMeta(
            kind=self.kind,
            name="cpu",
            emulated=False,
            queue_depth=1,
            synchronises=True,
            threads=torch.get_num_threads(),
        )

    def describe_model(self) -> ModelMeta:
        """Return the network as it is trained."""
        return self.workload.describe()
