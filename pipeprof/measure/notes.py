"""What a session is told beside its steps: sensors, events, meetings of ranks. Kept until the next flush."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic_ns
from typing import Any

from pipeprof.columns import by_name


class Notes:
    """Any thread may tell; only the one that flushes takes."""

    def __init__(self) -> None:
        self._telemetry: list[tuple[int, str, float]] = []
        self._collectives: list[tuple[int, int, int]] = []
        self._events: list[tuple[int, str, int | None, int | None, int | None, str | None]] = []

    def telemetry(self, time_ns: int, values: Mapping[str, float]) -> None:
        """Readings of sensors at one instant (`CLOCK_MONOTONIC`)."""
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
        """Something that happened once, a word of `trace.EVENTS`: now, or at `time_ns`."""
        when = monotonic_ns() if time_ns is None else time_ns
        self._events.append((when, kind, loader, epoch, worker, detail))

    def collective(self, step: int, start_ns: int, end_ns: int) -> None:
        """After `step` this rank met the others: it came at `start_ns` and went on at `end_ns`."""
        self._collectives.append((step, start_ns, end_ns))

    def taken(self) -> dict[str, dict[str, Any]]:
        """Columns of what was told since the last time, by table."""
        telemetry, self._telemetry = self._telemetry, []
        events, self._events = self._events, []
        collectives, self._collectives = self._collectives, []
        return {
            "telemetry": by_name(telemetry, ("time_ns", "sensor", "value")),
            "collectives": by_name(collectives, ("step", "start_ns", "end_ns")),
            "events": by_name(events, ("time_ns", "kind", "loader", "epoch", "worker", "detail")),
        }
