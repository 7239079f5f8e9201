"""However a run ends, something readable is left and nothing that runs: real processes, killed for real."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from pipeprof.measure.bench import failure
from pipeprof.measure.session.scratch import remove_unfinished
from pipeprof.record import reader
from tests.forked import Program, verb
from tests.timing import Timing

SCENARIO = """
data: {format: tensor_files, samples: 128, sample_bytes: 4000}
storage: {tier: nvme}
loader: {batch_size: 4, workers: 2, persistent_workers: true}
accelerator: {kind: emulated, step_ms: 5}
run: {seconds: 100, warmup_steps: 5}
"""
PATIENCE_S = 60.0
ORPHANS_S = 10.0
"""torch's workers look for their parent every five seconds."""


def wait_for(what: Callable[[], bool], patience_s: float = PATIENCE_S) -> bool:
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        if what():
            return True
        time.sleep(0.05)
    return False


def steps_in(directory: Path) -> int:
    return reader.load(directory).table("steps").num_rows


class Running(NamedTuple):
    """`pipeprof run` in a session of its own, a second after its first flush."""

    process: Program
    directory: Path
    children: list[psutil.Process]

    def ended(self) -> tuple[int, str]:
        """Exit code and output."""
        done = self.process.finished(PATIENCE_S)
        return done.returncode, done.stdout + done.stderr

    def left(self) -> list[psutil.Process]:
        return [child for child in self.children if child.is_running() and child.status() != "zombie"]

    def shared_memory(self) -> list[str]:
        """Named blocks of torch's, which carry the process that made them."""
        pids = [self.process.pid, *(child.pid for child in self.children)]
        return [str(path) for pid in pids for path in Path("/dev/shm").glob(f"torch_{pid}_*")]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Running]]:
    monkeypatch.setenv("PIPEPROF_CACHE", str(tmp_path / "cache"))
    started: list[Program] = []

    def begin(directory: Path | None = None, *overrides: str) -> Running:
        (tmp_path / "short.yaml").write_text(SCENARIO)
        out = directory or tmp_path / "run"
        words = [word for override in overrides for word in ("--set", override)]
        process = Program(verb("run", "short.yaml", "--out", str(out), "--no-report", *words), tmp_path)
        started.append(process)
        assert wait_for(lambda: not process.alive or (out / "steps.arrows").exists())
        if process.alive:
            assert wait_for(lambda: not process.alive or steps_in(out) >= 30)
        children = psutil.Process(process.pid).children(recursive=True) if process.alive else []
        return Running(process, out, children)

    yield begin
    for process in started:
        process.kill()


@pytest.mark.parametrize(
    ("number", "to_group", "exit_code"),
    [
        pytest.param(signal.SIGINT, True, 130, id="Ctrl-C"),
        pytest.param(signal.SIGTERM, False, 143, id="SIGTERM", marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, True, 129, id="SIGHUP", marks=pytest.mark.slow),
    ],
)
def test_a_stopped_run_reports_what_is_there(
    start: Callable[..., Running], number: int, to_group: bool, exit_code: int
) -> None:
    running = start()
    (os.killpg if to_group else os.kill)(running.process.pid, number)
    code, output = running.ended()
    assert code == exit_code, output
    assert "Interrupted: the report is of what was measured until then" in output
    assert "Traceback" not in output
    found = reader.load(running.directory)
    assert (found.status, found.meta.signal) == ("interrupted", signal.Signals(number).name)
    assert found.table("steps").num_rows >= 30
    assert running.left() == []
    assert running.shared_memory() == []


@pytest.mark.slow
def test_sigkill_of_the_loop_leaves_a_partial_run_and_no_orphan(
    start: Callable[..., Running],
) -> None:
    running = start()
    assert len(running.children) == 2
    os.kill(running.process.pid, signal.SIGKILL)
    assert running.ended()[0] == -signal.SIGKILL
    found = reader.load(running.directory)
    assert found.status == "partial"
    assert found.table("steps").num_rows >= 30
    assert wait_for(lambda: running.left() == [], ORPHANS_S)
    assert running.shared_memory() == []


@pytest.mark.slow
def test_sigkill_loses_a_second_at_the_most(start: Callable[..., Running], timing: Timing) -> None:
    running = start()
    time.sleep(1.0)
    killed_ns = time.monotonic_ns()
    os.kill(running.process.pid, signal.SIGKILL)
    assert running.ended()[0] == -signal.SIGKILL
    taken = reader.load(running.directory).table("steps")["take_ns"].to_pylist()
    with timing.compared():
        assert killed_ns - taken[-1] < 1.0e9, "a flush every 0.6 s, and a step"


def test_sigkill_of_a_worker_is_one_clear_error(start: Callable[..., Running]) -> None:
    running = start()
    victim = running.children[0].pid
    os.kill(victim, signal.SIGKILL)
    code, output = running.ended()
    assert code == 2, output
    assert re.search(rf"a loader worker \(process {victim}\) (is killed by signal|is gone|exited)", output), (
        output
    )
    assert "fewer loader.workers" in output
    assert "Traceback" not in output
    found = reader.load(running.directory)
    assert found.status == "failed"
    assert "worker_lost" in found.table("events")["kind"].to_pylist()
    assert found.table("steps").num_rows >= 30
    assert running.left() == []
    assert running.shared_memory() == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    place = tmp_path / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount command here")
    if mounted.returncode != 0:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.slow
def test_a_full_disk_is_one_clear_error(start: Callable[..., Running], small_disk: Path) -> None:
    running = start(small_disk / "run")
    code, output = running.ended()
    assert code == 2, output
    assert "cannot be written any more: No space left on device" in output
    assert "Traceback" not in output
    found = reader.load(small_disk / "run")
    assert found.status in ("partial", "failed")
    assert found.table("batches").num_rows > 0
    assert running.left() == []
    assert running.shared_memory() == []


def test_the_names_of_a_killed_workers_memory_go_with_it(tmp_path: Path) -> None:
    for name in ("torch_41_1_2", "torch_41_1_3", "torch_412_1_2", "other"):
        (tmp_path / name).touch()
    remove_unfinished(41, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "torch_412_1_2"]


def test_a_full_dev_shm_is_told_from_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers have 64 MiB of it: the remedy is another one than for a disk."""
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(failure, "shared_memory_bytes", lambda: (1 << 20, 64 << 20))
    assert "/dev/shm is full: 1.05 MB of 67.1 MB" in str(failure.translated(full))
    assert "--shm-size" in str(failure.translated(full))
    monkeypatch.setattr(failure, "shared_memory_bytes", lambda: (60 << 20, 64 << 20))
    assert "the disk is full" in str(failure.translated(full))
