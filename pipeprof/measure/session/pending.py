"""Buffers telemetry, events, collectives, parts of steps and kernels until the next flush."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from time import monotonic_ns
from typing import Any

from pipeprof.record.columns import by_name
from pipeprof.record.names.sensors import CPU_MACHINE, SensorName
from pipeprof.record.step_times import PartTimes


class Pending:
    """Any thread may add to it; the one that flushes takes."""

    def __init__(self) -> None:
        self.counts_cores = False
        """True once the telemetry has shown how many cores are busy."""
        self._telemetry: list[tuple[int, SensorName, float]] = []
        self._collectives: list[tuple[int, int, int]] = []
        self._parts: list[PartTimes] = []
        self._kernels: list[tuple[str, int, int, int | None, int | None]] = []
        self._events: list[tuple[int, str, int | None, int | None, int | None, str | None]] = []

    def telemetry(self, time_ns: int, values: Mapping[SensorName, float]) -> None:
        """Add readings of the telemetry's sensors at one instant (`CLOCK_MONOTONIC`)."""
        self.counts_cores |= CPU_MACHINE in values
        self.sensed(time_ns, values)

    def sensed(self, time_ns: int, values: Mapping[SensorName, float]) -> None:
        """Add readings that a flush itself makes."""
        self._telemetry.extend((time_ns, sensor, value) for sensor, value in values.items())

    def event(
        self,
        kind: str,
        *,
        loader: int | None = None,
        epoch: int | None = None,
        worker: int | None = None,
        detail: str | None = None,
        time_ns: int | None = None,
    ) -> None:
        """Add an event, of a kind in `record.schema.EVENTS`: now, or at `time_ns`."""
        when = monotonic_ns() if time_ns is None else time_ns
        self._events.append((when, kind, loader, epoch, worker, detail))

    def collective(self, step: int, start_ns: int, end_ns: int) -> None:
        """Record that this rank met the others after `step`: it arrived at `start_ns` and continued at
        `end_ns`."""
        self._collectives.append((step, start_ns, end_ns))

    def parts(self, parts: Iterable[PartTimes]) -> None:
        """Add parts of steps on their device."""
        self._parts.extend(parts)

    def traced(
        self, first: int, steps: int, kernels: Iterable[tuple[str, int, int, int | None, int | None]]
    ) -> None:
        """Add kernels of `steps` steps from `first` on: name, start, length, device, stream of each."""
        self._kernels.extend(kernels)
        self.event("kernels_traced", detail=f"{first} {first + steps - 1}")

    def take(self) -> dict[str, dict[str, Any]]:
        """Return columns of what was added since the last time, by table."""
        telemetry, self._telemetry = self._telemetry, []
        events, self._events = self._events, []
        collectives, self._collectives = self._collectives, []
        parts, self._parts = self._parts, []
        kernels, self._kernels = self._kernels, []
        return {
            "telemetry": by_name(telemetry, ("time_ns", "sensor", "value")),
            "collectives": by_name(collectives, ("step", "start_ns", "end_ns")),
            "parts": by_name(parts, ("step", "part", "start_ns", "end_ns")),
            "kernels": by_name(kernels, ("kernel", "start_ns", "wall_ns", "device", "stream")),
            "events": by_name(events, ("time_ns", "kind", "loader", "epoch", "worker", "detail")),
        }
