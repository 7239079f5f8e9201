"""Sensors of the CPU: the machine's cores, what a hypervisor takes of them, and the run's own processes."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import psutil

from pipeprof.measure.host.sensors.contract import Rates
from pipeprof.record.meta import TelemetryMeta

# /proc is read with these, and where there is no sysconf there is no /proc
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def machine_cpu() -> dict[str, float]:
    """Count the CPU seconds that all cores together have spent."""
    return {"cpu.machine": _busy_s(psutil.cpu_times())}


def _busy_s(times: Any) -> float:
    """Return the CPU seconds in use of psutil's `cpu_times`, stolen ones included."""
    idle = times.idle + getattr(times, "iowait", 0.0)
    guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)  # in `user` and `nice` too
    return float(sum(times) - idle - guests)


class Steal:
    """The CPU time that a hypervisor gave to other machines.

    A thread of a virtual machine may be running and have no core. The kernel subtracts such time from the
    thread's CPU time and does not count it as run-queue delay either, so that it would pass for blocked time.
    """

    def __init__(self) -> None:
        self._last = _used_and_stolen_s()

    def read(self) -> dict[str, float]:
        """Return `host.steal`, the stolen share of the CPU time asked for since the last reading.

        Empty where the machine does not count it.
        """
        last, now = self._last, _used_and_stolen_s()
        self._last = now
        if last is None or now is None:
            return {}
        used_s, stolen_s = now[0] - last[0], now[1] - last[1]
        return {"host.steal": stolen_s / (used_s + stolen_s) if stolen_s > 0 else 0.0}


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

    def read(self) -> dict[str, float]:
        """Return `host.spin` in ns; empty where it is not due yet."""
        now_s = self._clock()
        if now_s < self._due_s:
            return {}
        self._due_s = now_s + SPIN_EVERY_S
        began_ns = time.thread_time_ns()
        for _ in range(_ROUNDS):
            hashlib.blake2b(_BLOCK)
        return {"host.spin": float(time.thread_time_ns() - began_ns)}


CORES_EVERY_S: Final = 0.75


class Cores:
    """The cores that the run's processes, and all of the machine's, keep busy, about once a second.

    For runs without telemetry: what other programs take of the cores is known in no other way.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._due_s = clock, clock()
        self._machine, self._processes = Rates(machine_cpu, clock), Processes(clock=clock)

    def read(self) -> dict[str, float]:
        """Return `cpu.machine`, `cpu.main` and `cpu.workers`; empty where they are not due, or not told."""
        now_s = self._clock()
        if now_s < self._due_s:
            return {}
        self._due_s = now_s + CORES_EVERY_S
        try:
            rates = self._machine.read() | self._processes.read()
        except (OSError, RuntimeError, ValueError):  # a sandbox without /proc
            return {}
        return {name: rates[name] for name in ("cpu.machine", "cpu.main", "cpu.workers") if name in rates}


def counts_steal() -> bool:
    """Return whether this machine counts stolen time."""
    return _used_and_stolen_s() is not None


def _used_and_stolen_s() -> tuple[float, float] | None:
    try:
        times = psutil.cpu_times()
    except (OSError, RuntimeError, ValueError):  # a sandbox without /proc/stat
        return None
    stolen_s = getattr(times, "steal", None)  # Linux alone has it
    return None if stolen_s is None else (_busy_s(times) - stolen_s, stolen_s)


def pressure() -> dict[str, float]:
    """Count the seconds for which some task waited, from Linux PSI. Raises `OSError` where there is none."""
    waited_s = {}
    for resource in ("cpu", "io", "memory"):
        some = Path(f"/proc/pressure/{resource}").read_text().splitlines()[0]
        waited_s[f"psi.{resource}"] = int(some.rpartition("total=")[2]) / 1e6
    return waited_s


class Processes:
    """The run's own processes: this one and those below it, from one line of `/proc` each."""

    def __init__(self, pid: int | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._pid = os.getpid() if pid is None else pid
        self._rates = Rates(self._counters, clock)
        self._memory = (0.0, 0.0)

    def read(self) -> dict[str, float]:
        """Return cores busy, page faults per second and resident bytes."""
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
