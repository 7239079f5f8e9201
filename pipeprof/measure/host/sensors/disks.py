"""Sensors of the machine's disks, from psutil's counters."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Final

import psutil

from pipeprof.measure.host.sensors.contract import Plain, Rates
from pipeprof.record.names.sensors import DISK_BUSY, DISK_READ, DISK_WRITTEN, SensorName

_NO_DISKS: Final = ("loop", "ram", "zram")
"""Block devices that keep their bytes in a file or in memory."""


def disks(block: Path = Path("/sys/block")) -> dict[str, Any]:
    """Return psutil's counters of each whole disk.

    Devices made of other disks (LVM, RAID, loops) are left out: their bytes are counted on those.
    """
    every: dict[str, Any] = psutil.disk_io_counters(perdisk=True) or {}
    if not block.is_dir():  # not Linux: psutil names whole disks
        return every
    return {
        name: counters for name, counters in every.items() if is_whole_disk(block / name.replace("/", "!"))
    }


@functools.cache  # asked for each device at each reading, and devices do not change
def is_whole_disk(entry: Path) -> bool:
    """Return True for the entry in `/sys/block` of a disk that is not made of others."""
    if not entry.is_dir() or entry.name.startswith(_NO_DISKS):  # a partition has no entry of its own
        return False
    slaves = entry / "slaves"
    return not (slaves.is_dir() and any(slaves.iterdir()))


def disk_bytes() -> dict[SensorName, float]:
    """Count the bytes read from and written to all disks. Raises `OSError` if none has counters."""
    every = disks().values()
    if not every:
        raise OSError("no disk has byte counters")
    read, written = sum(disk.read_bytes for disk in every), sum(disk.write_bytes for disk in every)
    return {DISK_READ: read, DISK_WRITTEN: written}


class BusiestDisk(Plain):
    """Busy share of the busiest disk. Raises `OSError` if no disk counts its busy time."""

    def __init__(self) -> None:
        super().__init__(self._busiest)
        self._rates = Rates(_busy_s)

    def _busiest(self) -> dict[SensorName, float]:
        """Return the share, 0 to 1."""
        shares = self._rates.read()
        return {DISK_BUSY: min(1.0, max(shares.values()))} if shares else {}


def _busy_s() -> dict[str, float]:
    every = disks()
    if not every:
        raise OSError("no disk has a busy time")
    return {name: disk.busy_time / 1e3 for name, disk in every.items()}
