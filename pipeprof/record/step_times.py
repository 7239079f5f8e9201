"""The times of one training step on its device, as the table `steps` keeps them."""

from __future__ import annotations

from typing import Final, NamedTuple

FORWARD: Final = "forward"
BACKWARD: Final = "backward"
OPTIMIZER: Final = "optimizer"
COLLECTIVES: Final = "collectives"
PARTS: Final = (FORWARD, BACKWARD, OPTIMIZER, COLLECTIVES)
"""Words of the table `parts`, in the order of a step."""


class StepTimes(NamedTuple):
    """Times at which the device copied and computed one step: `CLOCK_MONOTONIC` ns; None is not observed."""

    step: int
    copy_start_ns: int | None = None
    copy_end_ns: int | None = None
    compute_start_ns: int | None = None
    compute_end_ns: int | None = None
    device_wait_ns: int | None = None
    """Nanoseconds in which the device had nothing to do before this step, because its batch was not there."""


class PartTimes(NamedTuple):
    """Part of one step on its device, as the table `parts` keeps it: `CLOCK_MONOTONIC` ns."""

    step: int
    part: str
    """A word of `PARTS`."""
    start_ns: int
    end_ns: int
