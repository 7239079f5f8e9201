"""The Accelerator contract: a device that takes a batch and trains on it.

Each kind (`cpu`, a device of torch, `emulated`) reports its times on `CLOCK_MONOTONIC`, whatever clock it
keeps itself; `make` picks the one that a scenario names.
"""

from __future__ import annotations

from typing import Any, Protocol

from pipeprof.record.meta import AcceleratorMeta, ModelMeta
from pipeprof.record.step_times import PartTimes, StepTimes


class Accelerator(Protocol):
    """A device with a queue. `submit` returns when the host may go on, which may be before the step ends."""

    kind: str
    emulated: bool
    pins: bool
    """True if it copies from page-locked memory alongside the host's work."""
    why_untimed: str | None
    """Reason why its steps have no times of its own; None if they have."""

    def request(self, step: int) -> None:
        """Note that the loop is about to ask for the batch of `step`."""
        ...

    def submit(self, step: int, batch: Any) -> None:
        """Copy `batch` to the device and launch its step."""
        ...

    def finished(self) -> list[StepTimes]:
        """Return the steps whose times have become known since the last call, in order. Never wait."""
        ...

    def parts(self) -> list[PartTimes]:
        """Return the parts of the steps that `finished` has returned, if they are observed."""
        ...

    def synchronize(self) -> None:
        """Wait until every submitted step has ended; `finished` then returns the rest."""
        ...

    def describe(self) -> AcceleratorMeta:
        """Return facts for `run.json`: kind, name, emulated, figures, source, queue_depth, synchronises."""
        ...

    def describe_model(self) -> ModelMeta:
        """Return the network that it trains, for `run.json`; empty if it trains none."""
        ...
