"""The CPU as the accelerator: it really trains, on the cores that the workers decode with."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from pipeprof.measure.accelerator import StepTimes
from pipeprof.measure.workload import Workload


class CpuAccelerator:
    """Trains in `submit`, which returns when the step is done: a loop on the CPU always synchronises."""

    kind = "cpu"
    emulated = False

    def __init__(self, workload: Workload, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self.workload = workload
        self._clock = clock
        self._requested_ns: int | None = None
        self._told: list[StepTimes] = []

    def request(self, step: int) -> None:
        """The device has been free since the last step ended."""
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
        self._told.append(
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
        """All steps submitted since the last call."""
        told, self._told = self._told, []
        return told

    def synchronize(self) -> None:
        """Nothing is ever outstanding."""

    def describe(self) -> dict[str, Any]:
        """Threads that torch trains with, and the model."""
        return {
            "kind": self.kind,
            "name": "cpu",
            "emulated": False,
            "queue_depth": 1,
            "synchronises": True,
            "threads": torch.get_num_threads(),
            "model": self.workload.describe(),
        }
