"""Sensors of the CPU: the machine's, a hypervisor's share, and the run's own processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import psutil
import pytest
from torch.utils.data import DataLoader

from pipeprof.measure.host.sensors import processors
from pipeprof.measure.host.sensors.processors import Processes, children
from pipeprof.measure.session import run_meta
from pipeprof.record.names.sensors import SENSORS
from tests.measure.session.loader_cases import Squares

SPUN_S = 0.1
PATIENCE_S = 30.0


def spin() -> None:
    while True:
        pass


@contextmanager
def child(main: object = spin) -> Iterator[int]:
    """A process that runs `main` until the block ends."""
    pid = os.fork()
    if pid == 0:
        try:
            main()  # type: ignore[operator]
        finally:
            os._exit(1)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def cpu_s(pid: int) -> float:
    return sum(psutil.Process(pid).cpu_times()[:2])


def wait_for_cpu(pid: int) -> None:
    """Return when `pid` has had SPUN_S more of CPU time, however busy the machine is."""
    end_s, deadline_s = cpu_s(pid) + SPUN_S, time.monotonic() + PATIENCE_S
    while cpu_s(pid) < end_s:
        assert time.monotonic() < deadline_s, "no core in 30 s"
        time.sleep(0.01)


def cores_of(pid: int) -> tuple[float, float, dict[str, float]]:
    """Bounds of the CPU seconds that the sensor counts of `pid`, and its reading over 1 s of its clock."""
    processes = Processes(clock=iter([1.0, 2.0]).__next__)
    most_s = -cpu_s(pid)
    processes.read()
    least_s = -cpu_s(pid)
    wait_for_cpu(pid)
    least_s += cpu_s(pid)
    reading = processes.read()
    return least_s, most_s + cpu_s(pid), reading


def test_child_processes_are_listed_and_their_cpu_time_counted() -> None:
    with child() as pid:
        assert pid in children(os.getpid())
        least, most, reading = cores_of(pid)
        assert least - 1e-6 <= reading[f"cpu.worker.{pid}"] <= most + 1e-6
        assert reading["cpu.workers"] + 1e-6 >= reading[f"cpu.worker.{pid}"] >= SPUN_S - 1e-6
    assert pid not in children(os.getpid())


def test_a_child_that_lived_between_two_readings_is_counted() -> None:
    """Workers of short epochs are new at each reading: their work would be taken for other programs'."""
    processes = Processes(clock=iter([1.0, 2.0, 3.0]).__next__)
    processes.read()
    with child() as pid:
        wait_for_cpu(pid)
    reading = processes.read()
    assert f"cpu.worker.{pid}" not in reading
    assert SPUN_S - 0.02 <= reading["cpu.workers"] < PATIENCE_S
    assert processes.read()["cpu.workers"] == pytest.approx(0.0, abs=0.011)  # a tick


def test_workers_of_a_fork_server_are_among_the_runs_processes() -> None:
    reader, writer = os.pipe()

    def server() -> None:
        worker = os.fork()
        if worker == 0:
            spin()
        os.write(writer, worker.to_bytes(4, "little"))
        signal.pause()

    with child(server) as pid:
        worker = int.from_bytes(os.read(reader, 4), "little")
        try:
            assert {pid, worker} <= set(children(os.getpid()))
            least, most, reading = cores_of(worker)
            assert least - 1e-6 <= reading[f"cpu.worker.{worker}"] <= most + 1e-6
        finally:
            os.kill(worker, signal.SIGKILL)
    os.close(reader)
    os.close(writer)


@pytest.mark.slow
def test_workers_of_torchs_loader_under_a_fork_server() -> None:
    loader = DataLoader(Squares(8), num_workers=2, multiprocessing_context="forkserver")
    batches = iter(loader)
    next(batches)
    assert {worker.pid for worker in batches._workers} <= set(children(os.getpid()))


def times(user: float, idle: float, stolen: float | None = None) -> object:
    values = {"user": user, "idle": idle, "guest": 0.0}
    if stolen is not None:
        values["steal"] = stolen

    class Times(SimpleNamespace):
        def __iter__(self):  # type: ignore[no-untyped-def]
            return iter(values.values())

    return Times(**values)


def test_steal_is_a_share_of_the_cpu_time_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = iter([times(10, 5, 1), times(13, 50, 2), times(13, 60, 2)])
    monkeypatch.setattr(processors.psutil, "cpu_times", lambda: next(looks))
    sensor = processors.Steal()
    assert sensor.read(processors.cpu_times()) == {"host.steal": pytest.approx(0.25)}
    assert sensor.read(processors.cpu_times()) == {"host.steal": 0.0}


def test_where_no_kernel_counts_steal_it_is_not_observed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processors.psutil, "cpu_times", lambda: times(10, 5))
    assert processors.Steal().read(processors.cpu_times()) == {}
    assert any("hypervisor" in what for what in run_meta.not_observed_here())


def test_steal_is_in_the_list_of_all_sensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processors.psutil, "cpu_times", lambda: times(10, 5, 1))
    assert set(processors.Steal().read(processors.cpu_times())) <= set(SENSORS)
    assert not any("hypervisor" in what for what in run_meta.not_observed_here())
