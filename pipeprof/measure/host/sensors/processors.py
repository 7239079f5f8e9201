"""Sensors of the CPU: the machine's cores, what a hypervisor takes of them, and the run's own processes."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Final, NamedTuple

import psutil

from pipeprof.measure.host.sensors.contract import Rates
from pipeprof.measure.host.sensors.proc import read_bytes, waited_s
from pipeprof.record.meta import TelemetryMeta
from pipeprof.record.names.sensors import (
    CPU_MACHINE,
    CPU_MAIN,
    CPU_WORKERS,
    FAULTS_MAJOR,
    FAULTS_MINOR,
    MEMORY_MAIN,
    MEMORY_WORKERS,
    PSI_CPU,
    PSI_IO,
    PSI_MEMORY,
    SPIN,
    STEAL,
    SensorName,
    cpu_of_process,
)

# /proc is read with these, and if there is no sysconf there is no /proc
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


class CpuTimes(NamedTuple):
    """CPU seconds of all cores together since the machine started."""

    busy_s: float
    """Seconds in use, stolen ones included."""
    stolen_s: float | None
    """Seconds that a hypervisor gave to other machines; None if the kernel does not count them."""


def cpu_times() -> CpuTimes | None:
    """Read the machine's CPU times; None if they cannot be read, as in a sandbox without /proc/stat."""
    try:
        return _cpu_times()
    except (OSError, RuntimeError, ValueError):
        return None


def _cpu_times() -> CpuTimes:
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)  # in `user` and `nice` too
    return CpuTimes(float(sum(times) - idle - guests), getattr(times, "steal", None))  # Linux alone has it


def machine_cpu() -> dict[SensorName, float]:
    """Count the CPU seconds that all cores together have spent."""
    return {CPU_MACHINE: _cpu_times().busy_s}


class Steal:
    """The CPU time that a hypervisor gave to other machines.

    A thread of a virtual machine may be running and have no core. The kernel subtracts such time from the
    thread's CPU time and does not count it as run-queue delay either, so that it would pass for blocked time.
    """

    def __init__(self) -> None:
        self._last = cpu_times()

    def read(self, now: CpuTimes | None) -> dict[SensorName, float]:
        """Return `host.steal`, the stolen share of the CPU time asked for since the last reading until `now`.

        Empty if the machine does not count it.
        """
        last, self._last = self._last, now
        if last is None or now is None or last.stolen_s is None or now.stolen_s is None:
            return {}
        stolen_s = now.stolen_s - last.stolen_s
        return {STEAL: stolen_s / (now.busy_s - last.busy_s) if stolen_s > 0 else 0.0}


_BLOCK: Final = bytes(1 << 16)
_ROUNDS: Final = 16
SPIN_EVERY_S: Final = 1.5


class Spin:
    """The speed of the cores, as the CPU time of a fixed piece of work of about 1 ms.

    It hashes a block that stays in a core's own cache, without the interpreter's lock. What makes it slower
    from one run to the next - a lower clock, a busy sibling of the core, another guest - makes all work
    slower.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due_s = clock()

    def read(self) -> dict[SensorName, float]:
        """Return `host.spin` in ns; empty if it is not due yet."""
        now_s = self._clock()
        if now_s < self._due_s:
            return {}
        self._due_s = now_s + SPIN_EVERY_S
        began_ns = time.thread_time_ns()
        for _ in range(_ROUNDS):
            hashlib.blake2b(_BLOCK)
        return {SPIN: float(time.thread_time_ns() - began_ns)}


CORES_EVERY_S: Final = 0.75


class Cores:
    """The cores that the run's processes, and all of the machine's, keep busy, about once a second.

    For runs without telemetry: there is no other way to know what other programs take of the cores.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._due_s = clock, clock()
        self._machine: Rates[SensorName] = Rates(clock=clock)
        self._processes = Processes(clock=clock)

    def read(self, now: CpuTimes | None) -> dict[SensorName, float]:
        """Return `cpu.machine`, `cpu.main` and `cpu.workers` until `now`; empty if it is not due."""
        now_s = self._clock()
        if now_s < self._due_s or now is None:
            return {}
        self._due_s = now_s + CORES_EVERY_S
        try:
            rates = self._machine.of({CPU_MACHINE: now.busy_s}) | self._processes.read()
        except (OSError, RuntimeError, ValueError):  # a sandbox without /proc
            return {}
        return {name: rates[name] for name in (CPU_MACHINE, CPU_MAIN, CPU_WORKERS) if name in rates}


def counts_steal() -> bool:
    """Return whether this machine counts stolen time."""
    times = cpu_times()
    return times is not None and times.stolen_s is not None


def pressure() -> dict[SensorName, float]:
    """Count the seconds for which some task waited, from Linux PSI. Raises `OSError` if there is none."""
    sensors = (("cpu", PSI_CPU), ("io", PSI_IO), ("memory", PSI_MEMORY))
    return {sensor: waited_s(f"/proc/pressure/{resource}") for resource, sensor in sensors}


_SUMS: Final = (CPU_WORKERS, FAULTS_MINOR, FAULTS_MAJOR)


class Processes:
    """The run's own processes: this one and those below it, from one line of `/proc` each."""

    def __init__(self, pid: int | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._pid = os.getpid() if pid is None else pid
        self._rates: Rates[SensorName] = Rates(clock=clock)
        self._most: dict[SensorName, float] = {}
        """The largest sums so far: one that ends between two lines of a reading is in neither."""
        self._memory = (0.0, 0.0)

    def read(self) -> dict[SensorName, float]:
        """Return cores busy, page faults per second and resident bytes."""
        counters = self._counters()
        self._most = {name: max(counters[name], self._most.get(name, 0.0)) for name in _SUMS}
        rates = self._rates.of(counters | self._most)
        main, workers = self._memory
        return {MEMORY_MAIN: main, MEMORY_WORKERS: workers, **rates}

    def _counters(self) -> dict[SensorName, float]:
        """Return the sums of all processes, those that have ended included: their parent has waited for them,
        and counts them. Workers may live for less than the time between two readings."""
        counters: dict[SensorName, float] = dict.fromkeys(_SUMS, 0.0)
        main = workers = 0.0
        for pid in (self._pid, *children(self._pid)):
            try:
                stat = read_bytes(f"/proc/{pid}/stat")
            except OSError:
                if pid == self._pid:
                    raise
                continue  # a worker that has just ended
            fields = stat.rpartition(b")")[2].split()  # from field 3 (state) of proc(5) on
            own_s, ended_s = ((int(fields[at]) + int(fields[at + 1])) / _TICKS_PER_S for at in (11, 13))
            counters[CPU_MAIN if pid == self._pid else cpu_of_process(pid)] = own_s
            counters[CPU_WORKERS] += ended_s if pid == self._pid else own_s + ended_s
            counters[FAULTS_MINOR] += int(fields[7]) + int(fields[8])
            counters[FAULTS_MAJOR] += int(fields[9]) + int(fields[10])
            resident = int(fields[21]) * _PAGE_BYTES
            main, workers = (resident, workers) if pid == self._pid else (main, workers + resident)
        self._memory = (main, workers)
        return counters

    def described(self, facts: TelemetryMeta) -> TelemetryMeta:
        """Return `facts` with the resolution of the kernel's CPU times."""
        return replace(facts, process_cpu_tick_s=1 / _TICKS_PER_S)

    def unavailable(self) -> dict[str, str]:
        """Return nothing: all values can be read, or none."""
        return {}

    def close(self) -> None:
        """Do nothing."""


def children(pid: int) -> list[int]:
    """List the processes below `pid` that have not ended, without looking at every process of the machine.

    Workers that a fork server has started are among them.
    """
    try:
        descendants = _started_by(pid)
    except FileNotFoundError:  # a kernel without that file
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    for child in descendants:  # grows as it goes
        with suppress(OSError):  # it has just ended
            descendants += _started_by(child)
    return descendants


def _started_by(pid: int) -> list[int]:
    pids: list[int] = []
    with os.scandir(f"/proc/{pid}/task") as tasks:
        for task in tasks:
            with open(f"{task.path}/children") as file:  # noqa: PTH123 - ten times a second for each process
                pids += map(int, file.read().split())
    return pids
