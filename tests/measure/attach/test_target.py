"""Say with one error why a process cannot be attached to, and leave it alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeprof.errors import MeasureError
from pipeprof.measure.attach import attach, target
from pipeprof.measure.attach.control import Control
from pipeprof.measure.host import ptrace
from pipeprof.measure.host.elf import PAGE_BYTES
from tests.forked import Program, verb


@pytest.fixture
def idle() -> Iterator[subprocess.Popen[str]]:
    """A Python without torch that counts how often it woke up, 20 times a second."""
    source = "import time, sys\nsys.hits = 0\nwhile sys.hits < 3: time.sleep(0.2)\nprint(sys.hits)"
    process = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True)
    while target.python_version(process.pid) is None or "site" not in maps(process.pid):
        time.sleep(0.01)
    yield process
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def maps(pid: int) -> str:
    """The libraries of a Python that has come to its program."""
    children = Path(f"/proc/{pid}/wchan").read_text()
    return "site" if "nanosleep" in children else ""


def refused(pid: int) -> str:
    with pytest.raises(MeasureError) as error:
        attach.check(pid)
    assert error.value.exit_code == 2
    assert error.value.remedy
    return error.value.problem


def test_no_such_process() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    assert refused(pid) == f"there is no process {pid}"


def test_itself() -> None:
    assert "is pipeprof itself" in refused(os.getpid())


def test_another_users_process(monkeypatch: pytest.MonkeyPatch, idle: subprocess.Popen[str]) -> None:
    uid = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    assert refused(idle.pid) == f"process {idle.pid} belongs to another user (uid {uid})"


def test_no_python() -> None:
    process = subprocess.Popen(["sleep", "60"])
    try:
        deadline = time.monotonic() + 10  # the fork is a Python until it has become `sleep`
        while target.python_version(process.pid) is not None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert refused(process.pid) == f"process {process.pid} is not a Python program"
    finally:
        process.kill()
        process.wait()


def test_another_python(monkeypatch: pytest.MonkeyPatch, idle: subprocess.Popen[str]) -> None:
    monkeypatch.setattr(target, "python_version", lambda pid: (3, 8))
    assert f"process {idle.pid} runs Python 3.8" in refused(idle.pid)


def test_the_version_is_read(idle: subprocess.Popen[str]) -> None:
    assert target.python_version(idle.pid) == sys.version_info[:2]


def test_a_stopped_job(idle: subprocess.Popen[str]) -> None:
    os.kill(idle.pid, signal.SIGSTOP)
    os.waitpid(idle.pid, os.WUNTRACED)
    assert refused(idle.pid) == f"process {idle.pid} is stopped"


@pytest.mark.usefixtures("ptrace_right")
def test_a_job_in_a_debugger(idle: subprocess.Popen[str]) -> None:
    thread = ptrace._Thread(idle.pid)
    try:
        assert f"is traced by process {os.getpid()}" in refused(idle.pid)
    finally:
        thread.let_go()


@pytest.mark.parametrize(("scope", "capable"), [("1", False), ("3", True)])
def test_a_missing_right(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, idle: subprocess.Popen[str], scope: str, capable: bool
) -> None:
    (tmp_path / "scope").write_text(scope)
    monkeypatch.setattr(target, "_PTRACE_SCOPE", tmp_path / "scope")
    mask = f"{target._CAN_TRACE if capable else 0:016x}"
    real = target._status
    monkeypatch.setattr(target, "_status", lambda pid: {**real(pid), "CapEff": mask})
    assert "does not let pipeprof into process" in refused(idle.pid)


def test_another_processor(monkeypatch: pytest.MonkeyPatch, idle: subprocess.Popen[str]) -> None:
    monkeypatch.setattr(ptrace, "is_supported", lambda: False)
    if sys.version_info < (3, 14):
        assert "attach needs Python 3.14" in refused(idle.pid)


@pytest.mark.usefixtures("ptrace_right")
def test_a_python_without_a_loader_is_left_as_it_was(tmp_path: Path, idle: subprocess.Popen[str]) -> None:
    done = Program(verb("attach", str(idle.pid)), tmp_path).finished()
    assert done.returncode == 2
    assert done.stderr.startswith(f"pipeprof: process {idle.pid} has no DataLoader of torch\n")
    assert list(tmp_path.iterdir()) == [], "no run directory is left"
    assert idle.poll() is None


@pytest.mark.usefixtures("ptrace_right")
def test_pythons_own_way_in_is_taken_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, idle: subprocess.Popen[str]
) -> None:
    asked = []

    def remote_exec(pid: int, script: str) -> None:
        asked.append(pid)
        ptrace.run_in_main_thread(pid, f"exec(open({script!r}).read(), {{}})")

    monkeypatch.setattr(sys, "remote_exec", remote_exec, raising=False)
    with pytest.raises(MeasureError, match="has no DataLoader of torch"):
        attach.attach(idle.pid, attach.Wanted(tmp_path / "run"))
    assert asked == [idle.pid]


def test_a_python_that_lets_nobody_in_is_one_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, idle: subprocess.Popen[str]
) -> None:
    def remote_exec(pid: int, script: str) -> None:
        raise RuntimeError("Remote debugging is not enabled in the remote process")

    monkeypatch.setattr(sys, "remote_exec", remote_exec, raising=False)
    with pytest.raises(MeasureError, match=f"does not let pipeprof into process {idle.pid}: Remote"):
        attach.attach(idle.pid, attach.Wanted(tmp_path / "run"))


@pytest.mark.usefixtures("ptrace_right")
@pytest.mark.parametrize("at_once", [False, True])
def test_the_main_thread_runs_a_line(idle: subprocess.Popen[str], at_once: bool) -> None:
    for _ in range(3):
        ptrace.run_in_main_thread(idle.pid, "exec('import sys; sys.hits += 1', {})", at_once)
        time.sleep(0.2)
    assert idle.communicate(timeout=30)[0] == "3\n"
    assert idle.returncode == 0


@pytest.mark.usefixtures("ptrace_right")
def test_there_is_room_behind_the_code(idle: subprocess.Popen[str]) -> None:
    place = ptrace._Place(idle.pid)
    assert set(place.functions) == ptrace._NEEDED
    left = -place.address % PAGE_BYTES
    assert left >= ptrace.ROOM_BYTES
    for at_once in (False, True):
        assert len(ptrace._instructions(place, 0, at_once)) <= ptrace._TEXT_AT


def test_a_worker_that_has_ended_is_not_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loader's workers may end between its looks: they make no batch that would be missed."""

    def inject(pid: int, control: Control) -> None:
        raise MeasureError(f"process {pid} is not entered", "")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(attach, "inject", inject)
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert attach._enter_workers(Control.make({}), [ended.pid, os.getpid()]) == 1
