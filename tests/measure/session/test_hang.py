"""Say of a loop that hangs which worker holds its batch, on which sample, where, and what it waits for."""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from pipeprof.analyse.analysis import load
from pipeprof.measure.attach.attach import Wanted, attach
from pipeprof.measure.host.stacks import native_frame, stack_of_stopped
from pipeprof.measure.session.hang import HANG_TXT
from pipeprof.measure.session.session import Session
from tests.forked import Program
from tests.measure.attach import jobs

HANGS_AT = 45
BATCH = 4


class Hanging(Dataset[Any]):
    """A data set of which one sample never comes."""

    def __init__(self, hang: Callable[[], Any], floats: int = 4) -> None:
        self.hang, self.floats = hang, floats

    def __len__(self) -> int:
        return 400

    def __getitem__(self, index: int) -> Any:
        time.sleep(0.001)
        if index == HANGS_AT:
            self.hang()
        return torch.zeros(self.floats)


def asleep() -> Any:
    return time.sleep


def lock_of_the_dead() -> Any:
    lock = multiprocessing.get_context("fork").Lock()
    holder = multiprocessing.get_context("fork").Process(target=lock.acquire)
    holder.start()
    holder.join()
    return lock.acquire


def fifo(directory: Path) -> Any:
    os.mkfifo(directory / "fifo")
    return (directory / "fifo").read_bytes


def silent_server() -> Any:
    server = socket.create_server(("127.0.0.1", 0))
    return lambda: (socket.create_connection(server.getsockname()).recv(1), server)


def endless() -> None:
    while True:
        pass


def pool() -> Any:
    workers = ThreadPoolExecutor(1)
    workers.submit(int).result()  # its thread does not come along into a fork
    return lambda: workers.submit(int).result()


def stopped() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


PLANTED: dict[str, tuple[Callable[[Path], Callable[[], Any]], str, str]] = {
    "a sample that sleeps": (lambda d: lambda: time.sleep(600), "waits for the end of a sleep", "<lambda>"),
    "a lock held by a dead process": (
        lambda d: lock_of_the_dead(),
        "waits for a lock",
        "Hanging.__getitem__",
    ),
    "a read from a FIFO": (fifo, "waits for a pipe or FIFO", "Path.read_bytes"),
    "a socket that never answers": (lambda d: silent_server(), "waits for a socket", "silent_server"),
    "an endless loop": (lambda d: endless, "computes", "endless"),
    "a pool after a fork": (lambda d: pool(), "waits for a lock", "Future.result"),
    "a stopped worker": (lambda d: stopped, "is stopped", ""),
}
QUICK = ("a lock held by a dead process",)


def stacked(samples: list[Any]) -> Any:
    return torch.stack(samples)


def run(
    hang: Callable[[], Any], directory: Path, workers: int, floats: int = 4, collate: Any = stacked
) -> None:
    loader: DataLoader[Any] = DataLoader(
        Hanging(hang, floats), BATCH, num_workers=workers, collate_fn=collate
    )
    with Session(directory, "trace", lines=True) as session:
        session.watch_hangs(1.0)
        for _ in session.observe(loader):
            pass


def told(directory: Path, of: str = f"batch {HANGS_AT // BATCH} of ", patience_s: float = 60.0) -> str:
    """What was said of the hang that was planted; a busy machine may have others, as at the start."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        text = (directory / HANG_TXT).read_text() if (directory / HANG_TXT).exists() else ""
        for part in text.split("\n\n")[:-1]:
            if of in part:
                return part
        time.sleep(0.05)
    raise AssertionError("nothing was said of the hang")


@pytest.mark.usefixtures("ptrace_right")
@pytest.mark.parametrize(
    "what", [name if name in QUICK else pytest.param(name, marks=pytest.mark.heavy) for name in PLANTED]
)
def test_a_hang_is_told_with_worker_sample_and_line(tmp_path: Path, what: str) -> None:
    plant, state, function = PLANTED[what]
    out = tmp_path / "run"
    program = Program(lambda: run(plant(tmp_path), out, workers=2), tmp_path)
    try:
        text = told(out)
        batch = HANGS_AT // BATCH
        first, *rest = text.splitlines()
        assert first.startswith("no batch for ")
        assert f"the loop waits for batch {batch} of epoch 0 of loader0, which worker {batch % 2} " in first
        assert f"  worker {batch % 2} {state}" in text
        if what == "a stopped worker" and shutil.which("py-spy"):
            assert f"is stopped (kill -CONT lets it go on), in batch {batch}, sample {HANGS_AT}" in rest[0]
            assert "test_hang.py" in rest[1] and rest[1].endswith("in stopped")
        if function:
            assert f"in batch {batch} since" in rest[0]
            assert f"sample {HANGS_AT}" in rest[0]
            assert any(line.endswith(f"in {function}") or function in line for line in rest[1:4])
            assert any("test_hang.py" in line and "Hanging.__getitem__" in line for line in rest)
            assert not any("_worker_loop" in line or "pipeprof/measure" in line for line in rest)
        assert f"  worker {1 - batch % 2} has no batch to make" in rest
        assert program.alive, "the job goes on"
        deadline = time.monotonic() + 30
        while not any(e["kind"] == "hang" for e in load(out).run.table("events").to_pylist()):
            assert time.monotonic() < deadline
            time.sleep(0.2)
    finally:
        program.kill()


@pytest.mark.usefixtures("ptrace_right")
def test_a_hang_that_ends_leaves_the_job_as_it_was(tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = Program(lambda: run(lambda: time.sleep(3), out, workers=1), tmp_path).finished()
    assert done.returncode == 0
    assert done.stderr.count(f"batch {HANGS_AT // BATCH} of ") == 1
    assert told(out) in done.stderr
    found = load(out)
    assert found.run.status == "complete"
    assert found.run.table("steps").num_rows == 100


def with_full_shared_memory(out: Path, collate: Any) -> None:
    """Train with a /dev/shm of this process's own, which one sample fills."""
    new_mounts = 0x20000  # CLONE_NEWNS
    if ctypes.CDLL(None, use_errno=True).unshare(new_mounts):
        raise OSError(ctypes.get_errno(), "unshare")
    for command in (
        ["mount", "--make-rprivate", "/"],
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", "/dev/shm"],
    ):
        subprocess.run(command, check=True)

    def fill() -> None:
        time.sleep(0.5)  # until the other worker's batches are handed over, which would be lost too
        with suppress(OSError), Path("/dev/shm/full").open("wb", buffering=0) as file:
            while True:
                file.write(b"0" * 4096)

    run(fill, out, workers=2, floats=25_000, collate=collate)


LOST = f"worker 1 lost batch {HANGS_AT // BATCH} of epoch 0 (4 samples: 44, 45, 46, 47)"
NO_ROOM = " of 8.39 MB free: give the container more, as with `docker run --shm-size=8g`"


@pytest.mark.heavy
@pytest.mark.skipif(os.getuid() != 0, reason="a /dev/shm of its own needs root")
def test_shared_memory_that_is_full_is_told_with_the_batch_that_is_lost(tmp_path: Path) -> None:
    """A batch that the worker's queue thread copies: no code of the user's runs then, and the loop hangs."""
    out = tmp_path / "run"
    program = Program(lambda: with_full_shared_memory(out, stacked), tmp_path)
    try:
        text = told(out)
        assert "which worker 1 " in text.splitlines()[0]
        assert f"  {LOST} as it was handed over" in text
        assert "No space left on device" in text and NO_ROOM in text
        assert "its line is not observed" in text and f"{__file__}:" in text and "in stacked" in text
        assert "  /dev/shm is full: has " in text
        assert program.alive
    finally:
        program.kill()


@pytest.mark.heavy
@pytest.mark.skipif(os.getuid() != 0, reason="a /dev/shm of its own needs root")
def test_shared_memory_that_is_full_as_torch_collates(tmp_path: Path) -> None:
    """torch's own collate makes its batch in shared memory, and its error ends the loop."""
    out = tmp_path / "run"
    assert Program(lambda: with_full_shared_memory(out, None), tmp_path).finished().returncode == 1
    (warning,) = [each for each in load(out).run.meta.warnings if NO_ROOM in each and "worker 1" in each]
    assert f"{LOST} as it was collated" in warning
    assert "No space left on device" in warning and "torch/storage.py:" in warning


@pytest.mark.parametrize(
    ("answer", "told_as"),
    [
        (
            '[{"os_thread_id": PID, "frames": ['
            '{"name": "0x7f", "module": "libc.so.6", "short_filename": "libc.so.6"},'
            '{"name": "jpeg_read", "module": "/lib/libjpeg.so", "short_filename": "libjpeg.so"},'
            '{"name": "f", "module": null, "short_filename": "a.py"}]}]',
            "jpeg_read (libjpeg.so)",
        ),
        (
            '[{"os_thread_id": PID, "frames": [{"name": "f", "module": null, "short_filename": "a.py"}]}]',
            None,
        ),
        ("no JSON", None),
    ],
)
def test_the_native_frame_is_py_spys(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: str, told_as: str | None
) -> None:
    spy = tmp_path / "py-spy"
    spy.write_text(f"#!/bin/sh\ncat <<END\n{answer.replace('PID', str(os.getpid()))}\nEND\n")
    spy.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert native_frame(os.getpid()) == told_as


@pytest.mark.parametrize(("reading", "seq"), [("11", 11), ("<object>", None)])
def test_py_spy_reads_the_stack_of_a_stopped_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reading: str, seq: int | None
) -> None:
    frames = [
        {"name": "stopped", "filename": "/job/data.py", "line": 8, "locals": []},
        {
            "name": "fetch",
            "filename": "/torch/utils/data/_utils/fetch.py",
            "line": 54,
            "locals": [{"name": "idx", "repr": "45"}, {"name": "self", "repr": None}],
        },
        {
            "name": "_worker_loop",
            "filename": "/torch/utils/data/_utils/worker.py",
            "line": 1,
            "locals": [{"name": "idx", "repr": reading}],
        },
        {"name": "run", "filename": "/lib/process.py", "line": 2, "locals": []},
    ]
    spy = tmp_path / "py-spy"
    told = json.dumps([{"os_thread_id": os.getpid(), "frames": frames}])
    spy.write_text(f"#!/bin/sh\ncat <<'END'\n{told}\nEND\n")
    spy.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    stack = stack_of_stopped(os.getpid())
    assert stack is not None and (stack.sample, stack.seq, len(stack.frames)) == (45, seq, 3)
    assert stack.frames[0] == ("/job/data.py", 8, "stopped")


def test_a_hang_without_workers(tmp_path: Path) -> None:
    out = tmp_path / "run"
    program = Program(lambda: run(lambda: time.sleep(600), out, workers=0), tmp_path)
    try:
        text = told(out, "makes it")
        assert "loader0 makes it in the training process itself" in text
        assert "test_hang.py" in text.splitlines()[1]
    finally:
        program.kill()


@pytest.mark.heavy  # a worker that hangs is waited for, and a loop that waits looks up every 5 s
@pytest.mark.usefixtures("ptrace_right")
def test_attach_to_a_job_that_hangs(tmp_path: Path) -> None:
    lock = lock_of_the_dead()
    job = jobs.Job(lambda: [DataLoader(Hanging(lock), BATCH, num_workers=2)], tmp_path / "job")
    job.wait_for(HANGS_AT // BATCH)
    said: list[str] = []
    try:
        attach(job.pid, Wanted(tmp_path / "run", seconds=4.0, hang_after=1.0), on_hang=said.append)
        assert "waits for batch 11 of epoch 0" in said[0]
        assert "waits for a lock" in said[0]
        assert f"sample {HANGS_AT}" in said[0]
        assert job.program.alive
    finally:
        job.program.kill()


def killed(out: Path) -> None:
    torch.set_num_threads(1)

    def die() -> None:
        time.sleep(1.5)  # its memory is looked at once a second
        os.kill(os.getpid(), signal.SIGKILL)

    run(die, out, workers=1)


def test_a_killed_worker_is_told_with_its_memory(tmp_path: Path) -> None:
    out = tmp_path / "run"
    Program(lambda: killed(out), tmp_path).finished()
    events = load(out).run.table("events").to_pylist()
    (event,) = [event for event in events if event["kind"] == "worker_killed"]
    assert event["worker"] == 0
    assert "to itself; " in event["detail"]
