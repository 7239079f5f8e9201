"""Puts the times of a device's events on the host's clock.

An anchor is the same instant on both clocks: an event on an idle stream, awaited, between two readings of the
host's clock. It is renewed every few seconds, because the two clocks drift and because CUDA's `elapsed_time`
is a 32-bit float of milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from pipeprof.errors import first_line
from pipeprof.measure.device.contract import Device

ANCHOR_TRIES: Final = 4
"""The host may lose its core between an event and the reading of its clock: the quickest try counts."""
ANCHOR_AGE_NS: Final = 5_000_000_000
"""At 5 s a 32-bit float of milliseconds still resolves 0.5 us, CUDA's own resolution."""


class Anchor(NamedTuple):
    """The same instant on both clocks."""

    event: Any
    time_ns: int
    error_ns: int
    """The most by which `time_ns` can be off: half the time between the two readings."""

    def at(self, event: Any) -> int:
        """Return the host's time of an event that has passed."""
        return self.time_ns + elapsed_ns(self.event, event)


def elapsed_ns(first: Any, second: Any) -> int:
    """Return the device's nanoseconds between two events that have passed."""
    return round(float(first.elapsed_time(second)) * 1e6)


class DeviceClock:
    """Makes anchors on `stream`, which should be idle."""

    def __init__(self, device: Device, stream: Any, clock: Callable[[], int]) -> None:
        self._device, self._stream, self._clock = device, stream, clock
        self.anchor = self._new()

    def _new(self) -> Anchor:
        tries = []
        for _ in range(ANCHOR_TRIES):
            before_ns = self._clock()
            event = self._device.event()
            event.record(self._stream)
            event.synchronize()
            after_ns = self._clock()
            tries.append(Anchor(event, (before_ns + after_ns) // 2, (after_ns - before_ns) // 2))
        return min(tries, key=lambda anchor: anchor.error_ns)

    @property
    def old(self) -> bool:
        """Return whether the anchor should be renewed."""
        return self._clock() - self.anchor.time_ns > ANCHOR_AGE_NS

    def renew(self) -> None:
        """Make a new anchor: waits for the stream."""
        self.anchor = self._new()


def clock_of(device: Device, clock: Callable[[], int]) -> tuple[DeviceClock | None, str | None]:
    """Return a clock of `device`, or the reason why its events have no times."""
    try:
        stream = device.new_stream() if device.side_streams else device.current_stream()
        made = DeviceClock(device, stream, clock)
        first, second = device.event(), device.event()
        first.record(stream)
        second.record(stream)
        second.synchronize()
        elapsed_ns(first, second)
    except (NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        return None, f"{device.kind} has no timed events: {first_line(error)}"
    return made, None
