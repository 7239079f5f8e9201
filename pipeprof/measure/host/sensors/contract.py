"""The Sensor contract, and sensors made of one function. Counters become rates between two readings."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from pipeprof.record.meta import TelemetryMeta
from pipeprof.record.names.sensors import SensorName

Counted = TypeVar("Counted", bound=str)


class Sensor(Protocol):
    """A source of values that can be read again and again."""

    def read(self) -> dict[SensorName, float]:
        """Return values by name; raise whatever the source raises."""
        ...

    def described(self, facts: TelemetryMeta) -> TelemetryMeta:
        """Return `facts` with what is to be known of this sensor's values."""
        ...

    def unavailable(self) -> dict[str, str]:
        """Return the values that cannot be read although others can, with the reasons."""
        ...

    def close(self) -> None:
        """Release what the sensor holds."""
        ...


class Plain:
    """A sensor that is one function and holds nothing."""

    def __init__(self, function: Callable[[], dict[SensorName, float]]) -> None:
        self._function = function

    def read(self) -> dict[SensorName, float]:
        """Call the function."""
        return self._function()

    def described(self, facts: TelemetryMeta) -> TelemetryMeta:
        """Return `facts` as they are: the values need no explanation."""
        return facts

    def unavailable(self) -> dict[str, str]:
        """Return nothing: all values can be read, or none."""
        return {}

    def close(self) -> None:
        """Do nothing."""


class Rates(Generic[Counted]):
    """Counters as rates per second. The first reading gives none, nor does a counter that is new."""

    def __init__(
        self, counters: Callable[[], dict[Counted, float]] = dict, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._counters, self._clock = counters, clock
        self._last: dict[Counted, float] = {}
        self._last_s = 0.0

    def read(self) -> dict[Counted, float]:
        """Return the change of each counter per second since the last reading."""
        return self.of(self._counters())

    def of(self, counters: dict[Counted, float]) -> dict[Counted, float]:
        """Return the same of counters that were read just now."""
        now_s = self._clock()
        elapsed_s, last = now_s - self._last_s, self._last
        self._last_s, self._last = now_s, counters
        if elapsed_s <= 0:
            return {}
        return {name: (value - last[name]) / elapsed_s for name, value in counters.items() if name in last}


def reason(error: Exception) -> str:
    """Return why a sensor is not observed: the error's text, after its class if it is not our own."""
    return str(error) if type(error).__module__.startswith("pipeprof") else f"{type(error).__name__}: {error}"
