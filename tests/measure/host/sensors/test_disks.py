"""The sensors of disks."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeprof.measure.host.sensors import disks


def test_each_byte_of_a_disk_is_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A volume (dm) on a RAID (md) on two disks, of which one has a partition; and a loop in a file on it."""
    for name in ("sda", "sdb", "md0", "dm-0", "loop0", "zram0", "cciss!c0d0"):
        (tmp_path / name / "slaves").mkdir(parents=True)
    for upper, lower in (("md0", "sda"), ("md0", "sdb"), ("dm-0", "md0")):
        (tmp_path / upper / "slaves" / lower).symlink_to(tmp_path / lower)
    names = ("sda", "sda1", "sdb", "md0", "dm-0", "loop0", "zram0", "cciss/c0d0")
    counters = {name: SimpleNamespace(read_bytes=10, write_bytes=1, busy_time=0) for name in names}
    monkeypatch.setattr(disks.psutil, "disk_io_counters", lambda perdisk: counters)
    whole = disks.disks(tmp_path)
    assert set(whole) == {"sda", "sdb", "cciss/c0d0"}
    assert set(disks.disks(tmp_path / "none")) == set(names), "elsewhere psutil names whole disks"
    monkeypatch.setattr(disks, "disks", lambda: whole)
    assert disks.disk_bytes() == {"disk.read_bytes_per_s": 30, "disk.write_bytes_per_s": 3}
