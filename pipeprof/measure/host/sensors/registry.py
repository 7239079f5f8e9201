"""Lists the sensors that work on this machine."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from pipeprof.measure.host.sensors.contract import Plain, Rates, Sensor, reason
from pipeprof.measure.host.sensors.disks import BusiestDisk, disk_bytes
from pipeprof.measure.host.sensors.gpus import device_sensor
from pipeprof.measure.host.sensors.memory import memory
from pipeprof.measure.host.sensors.processors import Processes, machine_cpu, pressure

_MAKERS: Final[dict[str, Callable[[], Sensor]]] = {
    "cpu": lambda: Plain(Rates(machine_cpu).read),
    "processes": Processes,
    "memory": lambda: Plain(memory),
    "disk": lambda: Plain(Rates(disk_bytes).read),
    "disk busy time": BusiestDisk,
    "pressure": lambda: Plain(Rates(pressure).read),
    "gpu": device_sensor,
}

GROUPS: Final = tuple(_MAKERS)
"""Names of the sensors, under which they are reported if they are not observed."""


def working_sensors() -> tuple[dict[str, Sensor], dict[str, str]]:
    """Return the sensors that can be read here by name, and the reason for each that cannot."""
    working: dict[str, Sensor] = {}
    missing: dict[str, str] = {}
    for name, make in _MAKERS.items():
        try:
            sensor = make()
        except Exception as error:  # a sensor may fail in any way that its driver knows
            missing[name] = reason(error)
            continue
        try:
            sensor.read()
        except Exception as error:
            missing[name] = reason(error)
            with suppress(Exception):
                sensor.close()
        else:
            working[name] = sensor
    return working, missing
