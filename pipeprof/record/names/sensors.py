"""Names of sensors: the column `sensor` of the table `telemetry`.

The session itself reads the workers' states and what begins with `host`, `device`, `group` and `pressure`,
whatever the telemetry's rate.
"""

from __future__ import annotations

import re
from typing import Final, Literal, NewType, cast

SensorName = NewType("SensorName", str)
SENSORS: Final[dict[str, str]] = {}
"""Each sensor's meaning, by its name; of one that there may be several of, by its pattern."""


def _sensor(name: str, meaning: str) -> SensorName:
    SENSORS[name] = meaning
    return SensorName(name)


CPU_MACHINE: Final = _sensor("cpu.machine", "cores busy on the whole machine")
CPU_MAIN: Final = _sensor("cpu.main", "cores that the training loop's process keeps busy")
CPU_WORKERS: Final = _sensor("cpu.workers", "cores that the processes below it keep busy, together")
_sensor("cpu.worker.<pid>", "cores that one process below it keeps busy")
MEMORY_USED: Final = _sensor("memory.used_bytes", "memory in use on the machine, page cache not counted")
MEMORY_AVAILABLE: Final = _sensor(
    "memory.available_bytes", "memory that a new program could get without swapping"
)
MEMORY_MAIN: Final = _sensor("memory.main_bytes", "resident memory of the training loop's process")
MEMORY_WORKERS: Final = _sensor(
    "memory.workers_bytes", "resident memory of the processes below it; shared pages count once in each"
)
FAULTS_MAJOR: Final = _sensor(
    "faults.major_per_s", "page faults of the run's processes that had to wait for a disk"
)
FAULTS_MINOR: Final = _sensor(
    "faults.minor_per_s", "page faults of the run's processes that memory could answer"
)
DISK_READ: Final = _sensor(
    "disk.read_bytes_per_s", "bytes read from all disks of the machine, each byte counted once"
)
DISK_WRITTEN: Final = _sensor("disk.write_bytes_per_s", "bytes written to all disks of the machine")
DISK_BUSY: Final = _sensor("disk.busy", "share of the time in which the busiest disk had a request, 0 to 1")
PSI_CPU: Final = _sensor(
    "psi.cpu", "share of the time in which some task of the machine waited for a core (Linux PSI, some)"
)
PSI_IO: Final = _sensor("psi.io", "share of the time in which some task waited for I/O")
PSI_MEMORY: Final = _sensor("psi.memory", "share of the time in which some task waited for memory")
STEAL: Final = _sensor(
    "host.steal", "share of the CPU time asked for that a hypervisor gave to others (`processors.Steal`)"
)
SPIN: Final = _sensor(
    "host.spin", "time of a fixed piece of work, in ns of CPU: the speed of the cores (`processors.Spin`)"
)
DEVICE_READS: Final = _sensor(
    "device.reads_per_s", "reads that the disk which served most bytes completed (`sensors.reads`)"
)
DEVICE_READ_BYTES: Final = _sensor("device.read_bytes_per_s", "bytes that it read")
DEVICE_IN_FLIGHT: Final = _sensor("device.reads_in_flight", "reads in its queue and being served, on average")
DEVICE_BUSY: Final = _sensor("device.busy", "share of the time in which it had a request, 0 to 1")
GROUP_READS: Final = _sensor(
    "group.reads_per_s", "reads of the control group that limits them, where one does"
)
GROUP_READ_BYTES: Final = _sensor("group.read_bytes_per_s", "bytes that it read")
PRESSURE_MACHINE: Final = _sensor(
    "pressure.io.machine", "share of the time in which some task waited for I/O (Linux PSI, some)"
)
PRESSURE_GROUP: Final = _sensor("pressure.io.group", "the same of this process's control group")
_sensor("worker<N>.state.<what>", "share of the looks at a worker that found it so (`session.worker_state`)")
_sensor("gpu<i>.utilization", "share of the driver's sample period in which any kernel ran, 0 to 1")
_sensor("gpu<i>.memory_bytes", "device memory in use")
_sensor("gpu<i>.power_watts", "power drawn")
_sensor("gpu<i>.sm_clock_hz", "clock of the multiprocessors")
_sensor("gpu<i>.torch_bytes", "device memory that torch holds, where neither NVML nor amdsmi is there")
_sensor("gpu<i>.pcie_rx_bytes_per_s", "bytes that the GPU received over PCIe, in a window of 20 ms")
_sensor("gpu<i>.pcie_tx_bytes_per_s", "bytes that the GPU sent over PCIe, in a window of 20 ms")

GpuQuantity = Literal[
    "utilization",
    "memory_bytes",
    "power_watts",
    "sm_clock_hz",
    "torch_bytes",
    "pcie_rx_bytes_per_s",
    "pcie_tx_bytes_per_s",
]
WorkerState = Literal["run", "disk", "lock", "socket", "sleep", "pipe", "other"]
"""What a worker does while it makes a batch: it runs, or waits."""


def cpu_of_process(pid: int) -> SensorName:
    """Return the sensor of the cores that the process `pid`, below the loop's, keeps busy."""
    return SensorName(f"cpu.worker.{pid}")


def of_gpu(gpu: str, quantity: GpuQuantity) -> SensorName:
    """Return the sensor of a quantity of `gpu`, which is called `gpu0`, `gpu1`, …"""
    return SensorName(f"{gpu}.{quantity}")


def gpu_of(sensor: str, quantity: GpuQuantity) -> str | None:
    """Return the name of the GPU whose `quantity` a sensor reads; None for any other sensor."""
    gpu, _, what = sensor.partition(".")
    return gpu if what == quantity and gpu.startswith("gpu") else None


def worker_state(worker: int, state: WorkerState) -> SensorName:
    """Return the sensor of the share of looks that found a worker in `state`."""
    return SensorName(f"worker{worker}.state.{state}")


_STATE: Final = re.compile(r"worker\d+\.state\.(\w+)")


def state_of(sensor: str) -> WorkerState | None:
    """Return the state that a sensor of `worker_state` counts; None for any other sensor."""
    match = _STATE.fullmatch(sensor)
    return cast("WorkerState", match[1]) if match else None
