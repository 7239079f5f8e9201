"""Telemetry: sensors that work, fail and are not there; none of it ends a run."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch.utils.data import DataLoader

import pipeprof
from pipeprof.errors import MeasureError
from pipeprof.measure import machine, sensors
from pipeprof.measure.sensors import SENSORS, Plain, Processes, Rates
from pipeprof.measure.telemetry import Telemetry
from pipeprof.trace import load
from tests.measure.loader_cases import Squares

Rows = list[tuple[int, str, float]]


class Sink:
    def __init__(self) -> None:
        self.rows: Rows = []

    def __call__(self, time_ns: int, values: Mapping[str, float]) -> None:
        self.rows += [(time_ns, name, value) for name, value in values.items()]


class Failing(Plain):
    """Works twice, then fails for good."""

    def __init__(self) -> None:
        super().__init__(lambda: {"flaky": 1.0})
        self.left, self.closed = 2, False

    def read(self) -> dict[str, float]:
        self.left -= 1
        if self.left < 0:
            raise OSError("sensor unplugged")
        return super().read()

    def close(self) -> None:
        self.closed = True


def test_a_failing_sensor_is_not_observed_once_and_the_others_go_on() -> None:
    flaky, sink, clock = Failing(), Sink(), iter(range(100, 200))
    telemetry = Telemetry(
        sink, {"flaky": flaky, "steady": Plain(lambda: {"steady": 7.0})}, clock=lambda: next(clock)
    )
    telemetry.open()
    for _ in range(5):
        telemetry.sample()
    assert [name for _, name, _ in sink.rows].count("flaky") == 2
    assert [name for _, name, _ in sink.rows].count("steady") == 5
    assert telemetry.not_observed == {"flaky": "OSError: sensor unplugged"}
    assert flaky.closed


def test_counters_become_rates_from_the_second_reading_on() -> None:
    counters, clock = iter([{"x": 10.0}, {"x": 16.0, "new": 5.0}]), iter([1.0, 3.0])
    rates = Rates(lambda: next(counters), clock=lambda: next(clock))
    assert rates.read() == {}
    assert rates.read() == {"x": 3.0}


def test_the_thread_samples_at_its_rate_and_ends_with_the_block() -> None:
    sink = Sink()
    with Telemetry(sink, {"steady": Plain(lambda: {"steady": 1.0})}, rate_hz=50):
        deadline = time.monotonic() + 5
        while len(sink.rows) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    count = len(sink.rows)
    assert count >= 3
    time.sleep(0.06)
    assert len(sink.rows) == count


class FailingToClose(Failing):
    def close(self) -> None:
        raise OSError("the driver is gone")


def test_a_sensor_that_cannot_be_closed_ends_neither_the_others_nor_the_run() -> None:
    sink = Sink()
    sensors = {"lost": FailingToClose(), "steady": Plain(lambda: {"steady": 7.0})}
    with Telemetry(sink, sensors, rate_hz=100):
        deadline = time.monotonic() + 5
        while [name for _, name, _ in sink.rows].count("steady") < 5 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert [name for _, name, _ in sink.rows].count("steady") >= 5
    with Telemetry(Sink(), {"whole": FailingToClose()}, rate_hz=1):
        pass


def test_a_sensor_that_hangs_does_not_hang_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeprof.measure.telemetry.JOIN_S", 0.05)
    asked, answer = threading.Event(), threading.Event()

    def hang() -> dict[str, float]:
        asked.set()
        answer.wait()
        return {}

    telemetry = Telemetry(Sink(), {"steady": Plain(lambda: {"steady": 7.0}), "gpu": Plain(hang)}, rate_hz=1)
    with telemetry:
        assert asked.wait(5)
    assert telemetry.not_observed == {"gpu": "did not answer when the run ended"}
    answer.set()
    assert telemetry._thread is not None
    telemetry._thread.join()


def test_turned_off_it_reads_nothing_and_says_so() -> None:
    sink = Sink()
    with Telemetry(sink, rate_hz=0) as telemetry:
        assert "pipeprof-telemetry" not in [thread.name for thread in threading.enumerate()]
    assert sink.rows == []
    meta: dict[str, Any] = {"not_observed": ["something"]}
    telemetry.tell(meta)
    assert meta["telemetry"] == {"rate_hz": 0, "cpu_ns": 0}
    assert meta["not_observed"] == ["something", f"{', '.join(sensors.GROUPS)}: telemetry is turned off"]


def test_a_forked_process_leaves_the_block_without_closing_what_is_the_parents() -> None:
    flaky = Failing()
    with Telemetry(Sink(), {"flaky": flaky}, rate_hz=1) as telemetry:
        pid = os.fork()
        if pid == 0:
            telemetry.__exit__()
            os._exit(int(flaky.closed))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert flaky.closed


@pytest.mark.parametrize("rate", [0.0, 50.0])
def test_the_wrapper_reads_sensors_on_request(rate: float, tmp_path: Path) -> None:
    def slowly() -> Iterator[int]:
        for number in range(10):
            time.sleep(0.02)
            yield number

    with pipeprof.profile(slowly(), out=tmp_path / "run", telemetry_hz=rate) as numbers:
        assert list(numbers) == list(range(10))
    run = load(tmp_path / "run")
    seen = run.table("telemetry")["sensor"].to_pylist()
    assert ("memory.used_bytes" in seen) == (rate > 0)
    assert run.meta.get("telemetry", {}).get("rate_hz", 0.0) == rate


def test_the_wrapper_refuses_a_rate_that_cannot_be_before_it_writes(tmp_path: Path) -> None:
    for rate in (-1.0, 101.0, float("nan")):
        with (
            pytest.raises(MeasureError, match="telemetry_hz is"),
            pipeprof.profile([1], out=tmp_path / "run", telemetry_hz=rate),
        ):
            pass
    assert not list(tmp_path.iterdir())


def test_this_machine_tells_of_its_cpu_memory_and_processes() -> None:
    sink = Sink()
    telemetry = Telemetry(sink)
    telemetry.open()
    sum(i * i for i in range(2_000_000))
    telemetry.sample()
    read = {name: value for _, name, value in sink.rows}
    telemetry.__exit__()
    assert {"cpu.machine", "cpu.main", "memory.available_bytes", "memory.main_bytes"} <= set(read)
    assert read["cpu.main"] > 0
    assert 1e6 < read["memory.main_bytes"] < read["memory.used_bytes"] + read["memory.available_bytes"]
    known = {name.partition("<")[0] for name in SENSORS}
    assert all(any(name.startswith(k) for k in known) for name in read)


def test_child_processes_are_found_and_their_cpu_counted() -> None:
    pid = os.fork()
    if pid == 0:
        while True:
            pass
    try:
        assert pid in sensors.children(os.getpid())
        processes = Processes()
        processes.read()
        time.sleep(0.3)
        read = processes.read()
        assert read[f"cpu.worker.{pid}"] > 0.05
        assert read["cpu.workers"] >= read[f"cpu.worker.{pid}"]
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    assert f"cpu.worker.{pid}" not in processes.read()


def test_a_fork_servers_workers_are_among_the_runs_processes() -> None:
    told, tell = os.pipe()
    server = os.fork()
    if server == 0:
        worker = os.fork()
        while worker == 0:
            pass
        os.write(tell, worker.to_bytes(4, "little"))
        signal.pause()
    worker = int.from_bytes(os.read(told, 4), "little")
    try:
        assert {server, worker} <= set(sensors.children(os.getpid()))
        processes = Processes()
        processes.read()
        time.sleep(0.3)
        assert processes.read()[f"cpu.worker.{worker}"] > 0.05
    finally:
        for pid in (worker, server):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(server, 0)
        os.close(told)
        os.close(tell)


@pytest.mark.slow
def test_workers_of_torchs_loader_under_a_fork_server() -> None:
    loader = DataLoader(Squares(8), num_workers=2, multiprocessing_context="forkserver")
    batches = iter(loader)
    next(batches)
    assert {worker.pid for worker in batches._workers} <= set(sensors.children(os.getpid()))


def test_each_byte_of_a_disk_is_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A volume (dm) on a RAID (md) on two disks, of which one has a partition; and a loop in a file on it."""
    for name in ("sda", "sdb", "md0", "dm-0", "loop0", "zram0", "cciss!c0d0"):
        (tmp_path / name / "slaves").mkdir(parents=True)
    for upper, lower in (("md0", "sda"), ("md0", "sdb"), ("dm-0", "md0")):
        (tmp_path / upper / "slaves" / lower).symlink_to(tmp_path / lower)
    names = ("sda", "sda1", "sdb", "md0", "dm-0", "loop0", "zram0", "cciss/c0d0")
    told = {name: SimpleNamespace(read_bytes=10, write_bytes=1, busy_time=0) for name in names}
    monkeypatch.setattr(sensors.psutil, "disk_io_counters", lambda perdisk: told)
    found = sensors.disks(tmp_path)
    assert set(found) == {"sda", "sdb", "cciss/c0d0"}
    assert set(sensors.disks(tmp_path / "none")) == set(names), "elsewhere psutil names whole disks"
    monkeypatch.setattr(sensors, "disks", lambda: found)
    assert sensors._disk_bytes() == {"disk.read_bytes_per_s": 30, "disk.write_bytes_per_s": 3}


def test_fresh_memory_costs_more_than_memory_that_is_there() -> None:
    assert machine.fresh_byte_ns() > 0, "a page's first touch is work for the kernel"


def group(root: Path, **files: str) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (root / name.replace("__", ".")).write_text(text)
    return root


def test_cpu_quota_of_cgroup_v2_is_the_tightest_on_the_way_up(tmp_path: Path) -> None:
    group(tmp_path / "a", cpu__max="150000 100000")
    group(tmp_path / "a" / "b", cpu__max="max 100000", memory__max="1000000")
    (tmp_path / "membership").write_text("0::/a/b\n")
    assert machine.cpu_quota_cores(tmp_path, tmp_path / "membership") == 1.5
    assert machine.usable_memory_bytes(tmp_path, tmp_path / "membership") == 1_000_000


def test_cpu_quota_of_cgroup_v1(tmp_path: Path) -> None:
    group(tmp_path / "cpu,cpuacct" / "job", cpu__cfs_quota_us="50000", cpu__cfs_period_us="100000")
    group(tmp_path / "memory" / "job", memory__limit_in_bytes="2000000")
    (tmp_path / "membership").write_text("4:memory:/job\n1:cpu,cpuacct:/job\n0::/\n")
    assert machine.cpu_quota_cores(tmp_path, tmp_path / "membership") == 0.5
    assert machine.usable_memory_bytes(tmp_path, tmp_path / "membership") == 2_000_000


def test_a_container_that_sees_its_group_as_the_root(tmp_path: Path) -> None:
    group(tmp_path, cpu__max="200000 100000")
    (tmp_path / "membership").write_text("0::/host/path/that/is/not/here\n")
    assert machine.cpu_quota_cores(tmp_path, tmp_path / "membership") == 2


def test_no_quota_is_none(tmp_path: Path) -> None:
    group(tmp_path / "cpu" / "job", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    (tmp_path / "membership").write_text("1:cpu:/job\n")
    assert machine.cpu_quota_cores(tmp_path, tmp_path / "membership") is None


def test_usable_cores_follow_the_affinity() -> None:
    assert machine.usable_cores() <= len(os.sched_getaffinity(0))
    assert machine.machine_facts()["memory_bytes"] > 2**20
