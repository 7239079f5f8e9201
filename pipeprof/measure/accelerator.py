"""The Accelerator contract: something that takes a batch and computes on it. CPU, CUDA, emulated."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol


class StepTimes(NamedTuple):
    """When the device copied and computed one step: `CLOCK_MONOTONIC` ns; None is not observed."""

    step: int
    copy_start_ns: int | None = None
    copy_end_ns: int | None = None
    compute_start_ns: int | None = None
    compute_end_ns: int | None = None
    device_wait_ns: int | None = None


class Accelerator(Protocol):
    """A device with a queue. `submit` returns when the host may go on, which may be before the step ends."""

    kind: str
    emulated: bool

    def request(self, step: int) -> None:
        """The loop is about to ask for the batch of `step` (CUDA marks the stream here)."""
        ...

    def submit(self, step: int, batch: Any) -> None:
        """Copy `batch` to the device and launch its step."""
        ...

    def finished(self) -> list[StepTimes]:
        """The steps whose times have become known since the last call, in order. Never waits."""
        ...

    def synchronize(self) -> None:
        """Wait until every submitted step has ended; `finished` then tells all the rest."""
        ...

    def describe(self) -> dict[str, Any]:
        """Facts for `run.json`: kind, name, emulated, figures, source, queue_depth, synchronises."""
        ...
