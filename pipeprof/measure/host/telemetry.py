"""Samples the machine, the run's own processes and the GPUs, ten times a second by default.

A sensor that fails becomes "not observed" for the rest of the run, and never ends it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Final

from pipeprof.errors import MeasureError
from pipeprof.measure.host.sensors.contract import Sensor, reason
from pipeprof.measure.host.sensors.registry import GROUPS, working_sensors
from pipeprof.record.meta import RunMeta, TelemetryMeta
from pipeprof.record.names.sensors import SensorName
from pipeprof.vocabulary.arguments import MOST_TELEMETRY_HZ

RATE_HZ: Final = 10.0
JOIN_S: Final = 5.0
"""Longest time that the end of a run waits for a sensor being read; a driver may hang forever."""

Sink = Callable[[int, Mapping[SensorName, float]], None]
"""Takes the values that were read at a `CLOCK_MONOTONIC` time; called in the telemetry's thread."""


def check_rate(rate_hz: float) -> None:
    """Raise `MeasureError` for an impossible rate, before there is a run."""
    if not 0 <= rate_hz <= MOST_TELEMETRY_HZ:
        raise MeasureError(
            f"telemetry_hz is {rate_hz:g}", f"give looks a second: up to {MOST_TELEMETRY_HZ:g}, or 0 for none"
        )


class Telemetry:
    """Reads sensors in a thread, `rate_hz` times a second of the block, and passes their values to `sink`.

    A rate of 0 reads none. `not_observed` names the sensors that are absent, have failed or are turned off,
    with the reason; `cpu_ns` is what the thread itself has cost. A process that is forked in the block leaves
    it without touching any of this. Tests pass `sensors` and `clock`, and call `sample` themselves.
    """

    def __init__(
        self,
        sink: Sink,
        sensors: Mapping[str, Sensor] | None = None,
        rate_hz: float = RATE_HZ,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.rate_hz = rate_hz
        self.not_observed: dict[str, str] = {}
        self.cpu_ns = 0
        self._sink, self._given, self._clock = sink, sensors, clock
        self._sensors: dict[str, Sensor] = {}
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._reading: tuple[str, ...] = ()
        self._pid = os.getpid()

    def __enter__(self) -> Telemetry:
        if self.rate_hz == 0:
            self.not_observed.update(dict.fromkeys(GROUPS, "telemetry is turned off"))
            return self
        self._thread = threading.Thread(target=self._run, name="pipeprof-telemetry", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if os.getpid() != self._pid:
            return
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(JOIN_S)
            if self._thread.is_alive():  # what it reads may not be closed under its hands
                self.not_observed.update(dict.fromkeys(self._reading, "did not answer when the run ended"))
                return
        for sensor in self._sensors.values():
            _close(sensor)

    def _run(self) -> None:
        self.open()
        due = time.monotonic()
        while not self._stopped.wait(max(0.0, due - time.monotonic())):
            self.sample()
            self.cpu_ns = time.thread_time_ns()
            due = max(due + 1 / self.rate_hz, time.monotonic())

    def open(self) -> None:
        """Find the sensors; those that are absent are not observed from the start."""
        if self._given is not None:
            self._sensors = dict(self._given)
            return
        self._reading = GROUPS
        self._sensors, missing = working_sensors()
        self.not_observed.update(missing)

    def sample(self) -> None:
        """Read each sensor once."""
        for name, sensor in list(self._sensors.items()):
            self._reading = (name,)
            try:
                values = sensor.read()
            except Exception as error:  # drivers raise what they like
                self.not_observed[name] = reason(error)
                _close(self._sensors.pop(name))
            else:
                if values:
                    self._sink(self._clock(), values)

    def entered(self, meta: RunMeta) -> RunMeta:
        """Return `meta` with what was read, and what was not observed and why."""
        reasons: dict[str, list[str]] = {}
        unseen = dict(self.not_observed)
        for sensor in list(self._sensors.values()):
            unseen.update(sensor.unavailable())
        for name, why in unseen.items():
            reasons.setdefault(why, []).append(name)
        missing = (f"{', '.join(names)}: {why}" for why, names in reasons.items())
        return replace(meta, telemetry=self.describe(), not_observed=(*meta.not_observed, *missing))

    def describe(self) -> TelemetryMeta:
        """Return the rate, the CPU time it cost, and the facts of single sensors."""
        facts = TelemetryMeta(rate_hz=self.rate_hz, cpu_ns=self.cpu_ns)
        for sensor in list(self._sensors.values()):
            facts = sensor.described(facts)
        return facts


def _close(sensor: Sensor) -> None:
    with suppress(Exception):  # a driver that failed may fail here too
        sensor.close()
