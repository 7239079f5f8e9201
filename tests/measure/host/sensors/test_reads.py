"""Reads as the kernel counts them, from made files."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeprof.measure.host.sensors.processors import CORES_EVERY_S, SPIN_EVERY_S, Cores, CpuTimes, Spin
from pipeprof.measure.host.sensors.reads import Reads
from pipeprof.measure.session.pending import Pending
from pipeprof.record.meta import IoLimitMeta

DISK = "8 {} {} {} 0 {} {} 5 0 40 9 0 {} 0\n"
LOOP = "7 0 loop0 9 0 9 9 0 0 0 0 0 9 9\n"


class Made:
    """A machine of files."""

    def __init__(self, root: Path) -> None:
        self.proc, self.sys, self.group = root / "proc", root / "sys", root / "group"
        (self.proc / "pressure").mkdir(parents=True)
        for name in ("sda", "loop0"):
            (self.sys / "block" / name).mkdir(parents=True)
        self.group.mkdir()
        self.now_s = 100.0
        self.set(0, 0, 0, 0)

    def set(self, reads: int, sectors: int, read_ms: int, busy_ms: int, waited_us: int = 0) -> None:
        figures = (reads, sectors, read_ms, busy_ms)
        disks = DISK.format(0, "sda", *figures) + DISK.format(1, "sda1", *figures)
        (self.proc / "diskstats").write_text(disks + LOOP)
        (self.proc / "pressure" / "io").write_text(f"some avg10=0.0 total={waited_us}\nfull total=1\n")
        (self.group / "blkio.throttle.io_serviced").write_text(
            f"8:0 Read {reads}\n8:0 Write 7\n8:0 Total 9\n"
        )
        (self.group / "blkio.throttle.io_service_bytes").write_text(
            f"8:0 Read {sectors * 512}\n8:0 Write 7\n"
        )

    def sensor(self) -> Reads:
        limits = [IoLimitMeta("8:0", str(self.group), read_requests_per_s=300)]
        return Reads(limits, lambda: self.now_s, self.proc, self.sys)


def test_rates_of_the_disk_and_of_the_limited_group(tmp_path: Path) -> None:
    made = Made(tmp_path)
    made.set(1000, 8000, 500, 200)
    sensor = made.sensor()
    made.now_s += 2.0
    made.set(1600, 8000 + 4096, 500 + 3000, 200 + 1500, waited_us=500_000)
    seen = sensor.read()
    seen.pop("pressure.io.group", None)  # of this very process
    assert seen == pytest.approx(
        {
            "device.reads_per_s": 300.0,
            "device.read_bytes_per_s": 2048 * 512,
            "device.reads_in_flight": 1.5,
            "device.busy": 0.75,
            "group.reads_per_s": 300.0,
            "group.read_bytes_per_s": 2048 * 512,
            "pressure.io.machine": 0.25,
        }
    )


def test_what_is_not_here_is_left_out(tmp_path: Path) -> None:
    now = iter(range(100))
    assert set(Reads((), lambda: float(next(now)), tmp_path, tmp_path).read()) <= {"pressure.io.group"}


def test_a_spin_is_taken_when_it_is_due() -> None:
    now = [10.0]
    spin = Spin(lambda: now[0])
    assert spin.read()["host.spin"] > 0
    assert spin.read() == {}
    now[0] += SPIN_EVERY_S
    assert spin.read()["host.spin"] > 0


def test_the_cores_that_are_busy_are_told_once_a_second_and_only_those() -> None:
    now = [0.0]
    cores = Cores(lambda: now[0])
    assert cores.read(CpuTimes(10.0, None)) == {}, "a rate needs two readings"
    now[0] += CORES_EVERY_S / 2
    assert cores.read(CpuTimes(11.0, None)) == {}, "it is not due"
    assert cores.read(None) == {}, "the machine does not tell"
    now[0] += CORES_EVERY_S / 2
    read = cores.read(CpuTimes(10.0 + 1.5 * CORES_EVERY_S, None))
    assert set(read) == {"cpu.machine", "cpu.main", "cpu.workers"}
    assert read["cpu.machine"] == pytest.approx(1.5)


def test_telemetry_that_counts_the_cores_is_noted() -> None:
    pending = Pending()
    pending.sensed(1, {"cpu.machine": 1.0})
    assert not pending.counts_cores
    pending.telemetry(2, {"memory.used_bytes": 1.0})
    assert not pending.counts_cores
    pending.telemetry(3, {"cpu.machine": 1.0})
    assert pending.counts_cores
