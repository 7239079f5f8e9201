"""Delays of a known kind and length: each second must be found in the column that tells its class.

The recorded classes agree with what was planted within 10 %. The classes of a batch are CPU time, run-queue
delay and the rest, blocked; what a blocked worker waited for is told by the bytes from a device, or by looks
at its state from outside.
"""

from __future__ import annotations

import http.server
import os
import random
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import Lock, Value
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader, Dataset

import pipeprof
from pipeprof.record.reader import load
from tests.timing import Timing

DELAY_S = 0.04
SAMPLES = 24


class Planted(Dataset[Any]):
    def __init__(self, work: Callable[[int], None], samples: int = SAMPLES) -> None:
        self.work, self.samples = work, samples

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> int:
        with pipeprof.stage("planted"):
            self.work(index)
        return index


def sleep(_: int) -> None:
    time.sleep(DELAY_S)


def spin(_: int) -> None:
    end = time.thread_time() + DELAY_S
    while time.thread_time() < end:
        pass


def classes(out: Path) -> dict[str, float]:
    """Seconds of all batches: wall, cpu, runq, blocked; and of the planted stage."""
    run = load(out)
    batches = run.table("batches").to_pylist()
    wall = sum(row["finish_ns"] - row["start_ns"] for row in batches)
    cpu, runq = (sum(row[name] for row in batches) for name in ("cpu_ns", "runq_ns"))
    stages = run.table("stages").to_pylist()
    planted = sum(row["wall_ns"] for row in stages if row["stage"] == "stage:planted")
    found = {"wall": wall, "cpu": cpu, "runq": runq, "blocked": wall - cpu - runq, "planted": planted}
    return {name: value / 1e9 for name, value in found.items()}


def states(out: Path) -> dict[str, float]:
    """What blocked workers were seen to wait for: shares of the looks that found one off its core."""
    found: dict[str, float] = {}
    for row in load(out).table("telemetry").to_pylist():
        if ".state." in row["sensor"] and not row["sensor"].endswith(".run"):
            what = row["sensor"].rpartition(".")[2]
            found[what] = found.get(what, 0.0) + row["value"]
    total = sum(found.values())
    return {what: value / total for what, value in found.items()}


def run(work: Callable[[int], None], out: Path, workers: int = 1, samples: int = SAMPLES) -> dict[str, float]:
    loader = DataLoader(Planted(work, samples), batch_size=4, num_workers=workers)
    with pipeprof.profile(loader, out=out):
        for _ in loader:
            pass
    return classes(out)


def test_a_sleep_is_blocked_on_a_timer(tmp_path: Path, timing: Timing) -> None:
    found = run(sleep, tmp_path / "run")
    with timing.compared():
        assert found["blocked"] == pytest.approx(found["planted"] - found["runq"], rel=0.1)
    assert found["planted"] >= SAMPLES * DELAY_S
    assert states(tmp_path / "run").get("sleep", 0) > 0.9


@pytest.mark.slow
def test_a_busy_loop_is_cpu(tmp_path: Path, timing: Timing) -> None:
    found = run(spin, tmp_path / "run")
    assert found["cpu"] >= SAMPLES * DELAY_S
    with timing.compared():
        assert found["cpu"] == pytest.approx(SAMPLES * DELAY_S, rel=0.1)
        assert found["cpu"] + found["runq"] == pytest.approx(found["wall"], rel=0.1)


@pytest.mark.slow
def test_busy_workers_beyond_the_cores_wait_for_one(tmp_path: Path, timing: Timing) -> None:
    """Held to two cores, four workers that spin wait for a core half of the time."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(cores)[:2])
    try:
        found = run(spin, tmp_path / "run", workers=4, samples=64)
    finally:
        os.sched_setaffinity(0, cores)
    assert found["cpu"] >= 64 * DELAY_S
    assert found["runq"] > 0.5 * found["cpu"]
    with timing.compared():
        assert found["cpu"] == pytest.approx(64 * DELAY_S, rel=0.1)
        assert found["runq"] == pytest.approx(found["wall"] - found["cpu"], rel=0.1)


def take(lock: Any, _: int) -> None:
    lock.acquire()  # the other side lets go of it


@pytest.mark.slow
def test_a_lock_is_blocked_on_a_lock(tmp_path: Path, timing: Timing) -> None:
    lock = Lock()
    lock.acquire()

    def let_go_again_and_again() -> None:
        while not done.wait(DELAY_S):
            with suppress(ValueError):  # nobody holds it
                lock.release()

    done = threading.Event()
    thread = threading.Thread(target=let_go_again_and_again)
    thread.start()
    try:
        found = run(partial(take, lock), tmp_path / "run")
    finally:
        done.set()
        thread.join()
    with timing.compared():
        assert found["blocked"] == pytest.approx(found["planted"] - found["runq"], rel=0.1)
        assert found["blocked"] >= 0.9 * (SAMPLES - 1) * DELAY_S
    seen = states(tmp_path / "run")
    assert seen.get("lock", 0) > 0.9, seen


class SlowServer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        time.sleep(DELAY_S)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"x" * 100)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def served() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), SlowServer)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def fetch(address: str, _: int) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(address) as answer:
        assert len(answer.read()) == 100


@pytest.mark.slow
def test_a_slow_server_is_blocked_on_a_socket(tmp_path: Path, timing: Timing) -> None:
    with served() as address:
        found = run(partial(fetch, address), tmp_path / "run")
    assert found["planted"] >= SAMPLES * DELAY_S
    with timing.compared():
        assert found["blocked"] == pytest.approx(SAMPLES * DELAY_S, rel=0.1)
    seen = states(tmp_path / "run")
    assert seen.get("socket", 0) > 0.9, seen


FILE_BYTES = 4 << 20


def read_cold(folder: Path, index: int) -> None:
    path = folder / f"{index}.bin"
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
    with path.open("rb") as file:
        assert len(file.read()) == FILE_BYTES


@pytest.mark.slow
def test_a_cold_read_comes_from_the_device(tmp_path: Path, timing: Timing) -> None:
    for index in range(8):
        with (tmp_path / f"{index}.bin").open("wb") as file:
            file.write(os.urandom(FILE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    out = tmp_path / "run"
    found = run(partial(read_cold, tmp_path), out, samples=8)
    run_rows = load(out)
    device = sum(row["device_bytes"] or 0 for row in run_rows.table("batches").to_pylist())
    if device == 0:
        pytest.skip("this file system is not on a block device, or its cache cannot be dropped")
    stages = run_rows.table("stages").to_pylist()
    read = sum(row["wall_ns"] for row in stages if row["stage"] == "read") / 1e9
    assert device == pytest.approx(8 * FILE_BYTES, rel=0.1)
    assert sum(row["bytes"] or 0 for row in stages if row["stage"] == "read") == 8 * FILE_BYTES
    with timing.compared():
        assert read + found["planted"] == pytest.approx(found["wall"], rel=0.1)


def reads_at_random(path: Path, seconds: Any, index: int) -> None:
    """Small reads that find nothing in memory, for a while; what they were off the core is added up."""
    places = random.Random(index)
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    began, cpu = time.monotonic(), time.thread_time()
    while time.monotonic() - began < DELAY_S:
        os.pread(fd, 4096, places.randrange(path.stat().st_size // 4096) * 4096)
    seconds.value += time.monotonic() - began - (time.thread_time() - cpu)
    os.close(fd)


@pytest.mark.slow
def test_small_cold_reads_are_blocked_on_the_disk(tmp_path: Path, timing: Timing) -> None:
    path = tmp_path / "data.bin"
    with path.open("wb") as file:
        file.write(os.urandom(64 << 20))
        file.flush()
        os.fsync(file.fileno())

    def attempt(number: int) -> None:
        out = tmp_path / f"run{number}"
        off_core = Value("d", 0.0)
        found = run(partial(reads_at_random, path, off_core), out)
        if sum(row["device_bytes"] or 0 for row in load(out).table("batches").to_pylist()) == 0:
            pytest.skip("this file system is not on a block device, or its cache cannot be dropped")
        assert found["planted"] >= SAMPLES * DELAY_S
        with timing.compared():
            assert found["blocked"] + found["runq"] == pytest.approx(off_core.value, rel=0.1)
        seen = states(out)
        assert seen.get("disk", 0) > 0.9, seen

    timing.attempts(attempt)
