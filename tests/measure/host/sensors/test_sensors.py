"""Sensors in general: rates, the list of all, and those that work on this machine."""

from __future__ import annotations

from pipeprof.measure.host.sensors.contract import Rates
from pipeprof.measure.host.sensors.registry import GROUPS, working_sensors
from pipeprof.record.names.sensors import SENSORS


def test_counters_become_rates_from_the_second_reading_on() -> None:
    counters, clock = iter([{"x": 10.0}, {"x": 16.0, "new": 5.0}]), iter([1.0, 3.0])
    rates = Rates(lambda: next(counters), clock=lambda: next(clock))
    assert rates.read() == {}
    assert rates.read() == {"x": 3.0}


def test_this_machine_has_sensors_of_its_cpu_memory_and_processes() -> None:
    working, missing = working_sensors()
    assert set(working) | set(missing) == set(GROUPS)
    sum(i * i for i in range(2_000_000))
    values = {name: value for sensor in working.values() for name, value in sensor.read().items()}
    for sensor in working.values():
        sensor.close()
    assert {"cpu.machine", "cpu.main", "memory.available_bytes", "memory.main_bytes"} <= set(values)
    assert values["cpu.main"] > 0
    assert 1e6 < values["memory.main_bytes"] < values["memory.used_bytes"] + values["memory.available_bytes"]
    known = {name.partition("<")[0] for name in SENSORS}
    assert all(any(name.startswith(k) for k in known) for name in values)
