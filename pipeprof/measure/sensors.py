"""The sensors of this machine: CPU, memory, disks, pressure, the run's own processes, NVIDIA GPUs.

`SENSORS` says what each value means. Counters become rates over the time since the sensor's last reading, so
that its first reading gives none.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol

import psutil

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
    "host.steal": "share of the CPU time asked for that a hypervisor gave to others (`measure.steal`)",
    "worker<N>.state.<what>": "share of the looks at a worker in which it was so (`measure.worker_state`)",
    "gpu<i>.utilization": "share of NVML's sample period in which any kernel ran, 0 to 1",
    "gpu<i>.memory_bytes": "device memory in use",
    "gpu<i>.power_watts": "power drawn",
    "gpu<i>.sm_clock_hz": "clock of the multiprocessors",
    "gpu<i>.pcie_rx_bytes_per_s": "bytes that the GPU received over PCIe, in a window of 20 ms",
    "gpu<i>.pcie_tx_bytes_per_s": "bytes that the GPU sent over PCIe, in a window of 20 ms",
}
"""Name of each value in the table `telemetry` to what it means. The session itself reads `host.steal` and the
workers' states, whatever the telemetry's rate."""

# /proc is read with these, and where there is no sysconf there is no /proc
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
_NO_DISKS: Final = ("loop", "ram", "zram")
"""Block devices that keep their bytes in a file or in memory."""


class Sensor(Protocol):
    """Something that can be read again and again."""

    def read(self) -> dict[str, float]:
        """Values by name; raises whatever its source raises."""
        ...

    def describe(self) -> dict[str, Any]:
        """What is to be known about its values, for `run.json`; empty where nothing is."""
        ...

    def untold(self) -> dict[str, str]:
        """Values that it cannot tell although it tells others, and why not."""
        ...

    def close(self) -> None:
        """Let go of what it holds."""
        ...


class Plain:
    """A sensor that is a function and holds nothing."""

    def __init__(self, function: Callable[[], dict[str, float]]) -> None:
        self._function = function

    def read(self) -> dict[str, float]:
        """What the function returns."""
        return self._function()

    def describe(self) -> dict[str, Any]:
        """Nothing to add."""
        return {}

    def untold(self) -> dict[str, str]:
        """None: it tells all or fails."""
        return {}

    def close(self) -> None:
        """Nothing to let go of."""


class Rates(Plain):
    """Counters as rates per second. The first reading gives nothing, and a counter that is new gives none."""

    def __init__(
        self, counters: Callable[[], dict[str, float]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(counters)
        self._clock = clock
        self._before: dict[str, float] = {}
        self._then = 0.0

    def read(self) -> dict[str, float]:
        """Change of each counter a second since the last reading."""
        now, counters = self._clock(), self._function()
        elapsed, before = now - self._then, self._before
        self._then, self._before = now, counters
        if elapsed <= 0:
            return {}
        return {name: (value - before[name]) / elapsed for name, value in counters.items() if name in before}


def sensors_of_this_machine() -> tuple[dict[str, Sensor], dict[str, str]]:
    """The sensors that work here by name, and why each of the others does not."""
    found: dict[str, Sensor] = {}
    missing: dict[str, str] = {}
    for name, make in _MAKERS.items():
        try:
            sensor = make()
        except Exception as error:  # a sensor may fail in any way that its driver knows
            missing[name] = told(error)
            continue
        try:
            sensor.read()
        except Exception as error:
            missing[name] = told(error)
            with suppress(Exception):
                sensor.close()
        else:
            found[name] = sensor
    return found, missing


def told(error: Exception) -> str:
    """Why a sensor is not observed: the error's text, with its class where a foreign one is terse."""
    return str(error) if type(error).__module__.startswith("pipeprof") else f"{type(error).__name__}: {error}"


def _machine_cpu() -> dict[str, float]:
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    # Time of guests is counted in `user` already.
    guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    return {"cpu.machine": sum(times) - idle - guests}


def _memory() -> dict[str, float]:
    memory = psutil.virtual_memory()
    return {"memory.used_bytes": memory.used, "memory.available_bytes": memory.available}


def disks(block: Path = Path("/sys/block")) -> dict[str, Any]:
    """psutil's counters of each whole disk. What lies on other disks (LVM, RAID, loops) is counted there."""
    every: dict[str, Any] = psutil.disk_io_counters(perdisk=True) or {}
    if not block.is_dir():  # not Linux: psutil names whole disks
        return every
    return {name: told for name, told in every.items() if _is_disk(block / name.replace("/", "!"))}


@functools.cache  # asked for each device at each look, and devices stay what they are
def _is_disk(entry: Path) -> bool:
    if not entry.is_dir() or entry.name.startswith(_NO_DISKS):  # a partition has no entry of its own
        return False
    slaves = entry / "slaves"
    return not (slaves.is_dir() and any(slaves.iterdir()))


def _disk_bytes() -> dict[str, float]:
    found = disks().values()
    if not found:
        raise OSError("no disk tells its counters")
    read, written = sum(disk.read_bytes for disk in found), sum(disk.write_bytes for disk in found)
    return {"disk.read_bytes_per_s": read, "disk.write_bytes_per_s": written}


def _disk_busy() -> dict[str, float]:
    found = disks()
    if not found:
        raise OSError("no disk tells its busy time")
    return {name: disk.busy_time / 1e3 for name, disk in found.items()}


class BusiestDisk(Rates):
    """Busy share of the disk that is busiest."""

    def __init__(self) -> None:
        super().__init__(_disk_busy)

    def read(self) -> dict[str, float]:
        """`disk.busy`, 0 to 1."""
        shares = super().read()
        return {"disk.busy": min(1.0, max(shares.values()))} if shares else {}


def _pressure() -> dict[str, float]:
    """Seconds for which some task waited, from the running totals in microseconds."""
    found = {}
    for resource in ("cpu", "io", "memory"):
        some = Path(f"/proc/pressure/{resource}").read_text().splitlines()[0]
        found[f"psi.{resource}"] = int(some.rpartition("total=")[2]) / 1e6
    return found


class Processes:
    """The run's own processes: this one and those below it, from one line of `/proc` each."""

    def __init__(self, pid: int | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._pid = os.getpid() if pid is None else pid
        self._rates = Rates(self._counters, clock)
        self._memory = (0.0, 0.0)

    def read(self) -> dict[str, float]:
        """Cores busy, faults a second and resident bytes."""
        rates = self._rates.read()
        main, workers = self._memory
        values = {"memory.main_bytes": main, "memory.workers_bytes": workers}
        if not rates:
            return values
        each = {name: rate for name, rate in rates.items() if name.startswith("cpu.worker.")}
        faults = {
            f"faults.{kind}_per_s": sum(rate for name, rate in rates.items() if name.startswith(f"{kind}."))
            for kind in ("major", "minor")
        }
        return {**values, **faults, **each, "cpu.main": rates["cpu.main"], "cpu.workers": sum(each.values())}

    def _counters(self) -> dict[str, float]:
        counters: dict[str, float] = {}
        main = workers = 0.0
        for pid in (self._pid, *children(self._pid)):
            try:
                stat = Path(f"/proc/{pid}/stat").read_text()
            except OSError:
                if pid == self._pid:
                    raise
                continue  # a worker that has just ended
            fields = stat.rpartition(")")[2].split()  # from field 3 (state) of proc(5) on
            name = "cpu.main" if pid == self._pid else f"cpu.worker.{pid}"
            counters[name] = (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
            counters[f"minor.{pid}"], counters[f"major.{pid}"] = int(fields[7]), int(fields[9])
            resident = int(fields[21]) * _PAGE_BYTES
            main, workers = (resident, workers) if pid == self._pid else (main, workers + resident)
        self._memory = (main, workers)
        return counters

    def describe(self) -> dict[str, Any]:
        """How fine the kernel counts CPU time."""
        return {"process_cpu_tick_s": 1 / _TICKS_PER_S}

    def untold(self) -> dict[str, str]:
        """None: it tells all or fails."""
        return {}

    def close(self) -> None:
        """Nothing to let go of."""


def children(pid: int) -> list[int]:
    """Processes below `pid` that have not ended, without looking at every process there is.

    Those of a fork server are among them: it, and not the loop's process, has started the workers.
    """
    try:
        found = _started_by(pid)
    except FileNotFoundError:  # a kernel without that file
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    for child in found:  # grows as it goes
        with suppress(OSError):  # one that has just ended
            found += _started_by(child)
    return found


def _started_by(pid: int) -> list[int]:
    found: list[int] = []
    with os.scandir(f"/proc/{pid}/task") as tasks:
        for task in tasks:
            with open(f"{task.path}/children") as file:  # noqa: PTH123 - ten times a second for each process
                found += map(int, file.read().split())
    return found


def _gpus() -> Sensor:
    from pipeprof.measure.nvml import Gpus

    return Gpus()


_MAKERS: Final[dict[str, Callable[[], Sensor]]] = {
    "cpu": lambda: Rates(_machine_cpu),
    "processes": Processes,
    "memory": lambda: Plain(_memory),
    "disk": lambda: Rates(_disk_bytes),
    "disk busy time": BusiestDisk,
    "pressure": lambda: Rates(_pressure),
    "gpu": _gpus,
}

GROUPS: Final = tuple(_MAKERS)
"""The sensors by the names under which they are not observed."""
