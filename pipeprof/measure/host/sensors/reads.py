"""Sensors of reads as the kernel counts them: at the disk, at a limited control group, and tasks that wait.

Each reading is three small files of `/proc` and `/sys`, some 0.1 ms of CPU, and is taken at each flush.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from pipeprof.measure.host.cgroups import groups_of
from pipeprof.measure.host.sensors.disks import is_whole_disk
from pipeprof.measure.host.sensors.proc import read_bytes, waited_s
from pipeprof.record.meta import IoLimitMeta
from pipeprof.record.names.sensors import (
    DEVICE_BUSY,
    DEVICE_IN_FLIGHT,
    DEVICE_READ_BYTES,
    DEVICE_READS,
    GROUP_READ_BYTES,
    GROUP_READS,
    PRESSURE_GROUP,
    PRESSURE_MACHINE,
    SensorName,
)

_SECTOR_BYTES: Final = 512
"""Unit of `/proc/diskstats`, whatever the disk's own sectors are."""
_PROC: Final = Path("/proc")
_SYS: Final = Path("/sys")


class _Counts(NamedTuple):
    """Counts of one disk since the machine started."""

    reads: int
    bytes: int
    read_ms: int
    """Time of all reads added up, from their hand-over to the disk's queue to their end."""
    busy_ms: int


class Reads:
    """Reads of the disk that served most bytes since the last reading, and waiting for I/O.

    `limits` are those of the process's control groups: the reads of each limited group are counted too. What
    is not here is left out.
    """

    def __init__(
        self,
        limits: Sequence[IoLimitMeta] = (),
        clock: Callable[[], float] = time.monotonic,
        proc: Path = _PROC,
        sys: Path = _SYS,
    ) -> None:
        self._clock, self._sys = clock, sys
        self._diskstats = proc / "diskstats"
        self._groups = tuple(dict.fromkeys(Path(each.group) for each in limits if each.group))
        pressures = [group / "io.pressure" for group in groups_of("")]
        pressure = next((path for path in pressures if path.is_file()), None)
        self._pressures = ((PRESSURE_MACHINE, proc / "pressure" / "io"), (PRESSURE_GROUP, pressure))
        self._last_s = clock()
        self._disks, self._counters = self._read_disks(), self._read_counters()

    def read(self) -> dict[SensorName, float]:
        """Return the sensors `device.*`, `group.*` and `pressure.*` over the time since the last reading."""
        now_s, disks, counters = self._clock(), self._read_disks(), self._read_counters()
        elapsed_s = now_s - self._last_s
        if elapsed_s <= 0:
            return {}
        values = _of_busiest(self._disks, disks, elapsed_s)
        values |= {
            name: (count - self._counters[name]) / elapsed_s
            for name, count in counters.items()
            if count >= self._counters.get(name, count + 1)
        }
        self._last_s, self._disks, self._counters = now_s, disks, counters
        return values

    def _read_disks(self) -> dict[str, _Counts]:
        counts = {}
        with suppress(OSError, ValueError, IndexError):
            for line in read_bytes(self._diskstats).decode().splitlines():
                fields = line.split()
                if fields[3] != "0" and is_whole_disk(self._sys / "block" / fields[2].replace("/", "!")):
                    reads, _, sectors, read_ms = map(int, fields[3:7])
                    counts[fields[2]] = _Counts(reads, sectors * _SECTOR_BYTES, read_ms, int(fields[12]))
        return counts

    def _read_counters(self) -> dict[SensorName, float]:
        counters: dict[SensorName, float] = {}
        for name, path in self._pressures:
            if path is not None:
                with suppress(OSError, ValueError, IndexError):
                    counters[name] = waited_s(path)
        if self._groups:  # the tightest limit is the innermost, and comes first
            for name, file, key in _GROUP_COUNTS:
                with suppress(OSError, ValueError):
                    counters[name] = _counted(read_bytes(self._groups[0] / file).decode(), key)
        return counters


_GROUP_COUNTS: Final = (
    (GROUP_READS, "blkio.throttle.io_serviced", "Read"),
    (GROUP_READ_BYTES, "blkio.throttle.io_service_bytes", "Read"),
    (GROUP_READS, "io.stat", "rios"),
    (GROUP_READ_BYTES, "io.stat", "rbytes"),
)
"""Sensor, file of a control group (v1 and v2), and the word before its count of reads."""


def _counted(text: str, key: str) -> float:
    """Add up the values after `key`, for all devices: `8:0 Read 12` or `8:0 rios=12`."""
    words = pairwise(text.replace("=", " ").split())
    return float(sum(int(count) for word, count in words if word == key))


def _of_busiest(
    before: dict[str, _Counts], now: dict[str, _Counts], elapsed_s: float
) -> dict[SensorName, float]:
    """Return the rates of the disk that served most bytes; empty if none is counted."""
    moved = {
        name: [b - a for a, b in zip(before[name], now[name], strict=True)] for name in now if name in before
    }
    if not moved:
        return {}
    reads, size_bytes, read_ms, busy_ms = max(moved.values(), key=lambda counts: counts[1])
    return {
        DEVICE_READS: reads / elapsed_s,
        DEVICE_READ_BYTES: size_bytes / elapsed_s,
        DEVICE_IN_FLIGHT: read_ms / 1e3 / elapsed_s,
        DEVICE_BUSY: min(1.0, busy_ms / 1e3 / elapsed_s),
    }
