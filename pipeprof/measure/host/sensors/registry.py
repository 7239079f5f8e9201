"""Lists the sensors: the values that a run may have, and those that work on this machine."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from pipeprof.measure.host.sensors.contract import Plain, Rates, Sensor, reason
from pipeprof.measure.host.sensors.disks import BusiestDisk, disk_bytes
from pipeprof.measure.host.sensors.gpus import device_sensor
from pipeprof.measure.host.sensors.memory import memory
from pipeprof.measure.host.sensors.processors import Processes, machine_cpu, pressure

SENSORS: Final[dict[str, str]] = {
    "cpu.machine": "cores busy on the whole machine",
    "cpu.main": "cores that the training loop's process keeps busy",
    "cpu.workers": "cores that the processes below it keep busy, together",
    "cpu.worker.<pid>": "cores that one process below it keeps busy",
    "memory.used_bytes": "memory in use on the machine, page cache not counted",
    "memory.available_bytes": "memory that a new program could get without swapping",
    "memory.main_bytes": "resident memory of the training loop's process",
    "memory.workers_bytes": "resident memory of the processes below it; shared pages count once in each",
    "faults.major_per_s": "page faults of the run's processes that had to wait for a disk",
    "faults.minor_per_s": "page faults of the run's processes that memory could answer",
    "disk.read_bytes_per_s": "bytes read from all disks of the machine, each byte counted once",
    "disk.write_bytes_per_s": "bytes written to all disks of the machine",
    "disk.busy": "share of the time in which the busiest disk had a request, 0 to 1",
    "psi.cpu": "share of the time in which some task of the machine waited for a core (Linux PSI, some)",
    "psi.io": "share of the time in which some task waited for I/O",
    "psi.memory": "share of the time in which some task waited for memory",
    "host.steal": "share of the CPU time asked for that a hypervisor gave to others (`processors.Steal`)",
    "host.spin": "time of a fixed piece of work, in ns of CPU: the speed of the cores (`processors.Spin`)",
    "device.reads_per_s": "reads that the disk which served most bytes completed (`sensors.reads`)",
    "device.read_bytes_per_s": "bytes that it read",
    "device.reads_in_flight": "reads in its queue and being served, on average",
    "device.busy": "share of the time in which it had a request, 0 to 1",
    "group.reads_per_s": "reads of the control group that limits them, where one does",
    "group.read_bytes_per_s": "bytes that it read",
    "pressure.io.machine": "share of the time in which some task waited for I/O (Linux PSI, some)",
    "pressure.io.group": "the same of this process's control group",
    "worker<N>.state.<what>": "share of the looks at a worker that found it so (`session.worker_state`)",
    "gpu<i>.utilization": "share of the driver's sample period in which any kernel ran, 0 to 1",
    "gpu<i>.memory_bytes": "device memory in use",
    "gpu<i>.power_watts": "power drawn",
    "gpu<i>.sm_clock_hz": "clock of the multiprocessors",
    "gpu<i>.torch_bytes": "device memory that torch holds, where neither NVML nor amdsmi is there",
    "gpu<i>.pcie_rx_bytes_per_s": "bytes that the GPU received over PCIe, in a window of 20 ms",
    "gpu<i>.pcie_tx_bytes_per_s": "bytes that the GPU sent over PCIe, in a window of 20 ms",
}
"""Name of each value in the table `telemetry`, and its meaning. The session itself reads the workers' states
and `host.*`, `device.*`, `group.*`, `pressure.*`, whatever the telemetry's rate."""

_MAKERS: Final[dict[str, Callable[[], Sensor]]] = {
    "cpu": lambda: Rates(machine_cpu),
    "processes": Processes,
    "memory": lambda: Plain(memory),
    "disk": lambda: Rates(disk_bytes),
    "disk busy time": BusiestDisk,
    "pressure": lambda: Rates(pressure),
    "gpu": device_sensor,
}

GROUPS: Final = tuple(_MAKERS)
"""Names of the sensors, under which they are reported where they are not observed."""


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
