"""Nothing may outlive a test: no process, no thread, no shared memory, no temporary run directory."""

from __future__ import annotations

import gc
import os
import re
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.timing import Timing, excuses

_HELPERS = ("resource_tracker", "forkserver")
"""multiprocessing's own processes, one each, which live as long as the interpreter."""
_PATIENCE_S = 10.0


def pytest_configure() -> None:
    """Answer Ctrl-C also where the shell ignores it, as it does for what it starts in the background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _childless() -> bool:
    """Told by the kernel at once; psutil looks at every process of the machine, twice for each test."""
    try:
        tasks = [Path(entry.path, "children").read_bytes() for entry in os.scandir("/proc/self/task")]
    except OSError:
        return False
    return not any(tasks)


def children() -> list[str]:
    if _childless():
        return []
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            command = " ".join(child.cmdline())
            if child.status() != psutil.STATUS_ZOMBIE and not any(name in command for name in _HELPERS):
                found.append(f"{child.pid}: {command}")
        except psutil.Error:
            continue
    return found


def kill(processes: list[str]) -> None:
    """End what `children` has listed, each with its group: pytest would wait for some of them at its end."""
    pids = [int(process.partition(":")[0]) for process in processes]
    for pid in pids:
        with suppress(ProcessLookupError):
            (os.killpg if os.getpgid(pid) == pid else os.kill)(pid, signal.SIGKILL)
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        with suppress(RuntimeError):  # torch's word of a lost worker, which belongs to the test that left it
            if not any(process in processes for process in children()):
                return
            time.sleep(0.01)


def threads() -> list[str]:
    return [
        thread.name
        for thread in threading.enumerate()
        if thread is not threading.main_thread() and (not thread.daemon or thread.name.startswith("pipeprof"))
    ]


def autograd_threads() -> list[str]:
    """Those of torch for devices, after which no copy of this process can train (`tests/forked.py`)."""
    names = []
    for task in Path("/proc/self/task").glob("*/comm"):
        with suppress(OSError):  # it has ended
            names.append(task.read_text().strip())
    return [name for name in names if name.startswith("pt_autograd")]


def shared_memory() -> list[str]:
    """Blocks of this process, named or not."""
    own = re.compile(rf"(?<!\d){os.getpid()}(?!\d)")
    named = [str(path) for path in Path("/dev/shm").iterdir() if own.search(path.name)]
    unnamed = []
    for fd in Path("/proc/self/fd").glob("*"):
        try:
            target = str(fd.readlink())
        except OSError:
            continue
        if "memfd:pipeprof" in target:
            unnamed.append(target)
    return named + unnamed


def temporary_runs() -> list[str]:
    own = re.compile(rf"pipeprof-(.*\D)?{os.getpid()}-")
    return [str(path) for path in Path(tempfile.gettempdir()).glob("pipeprof-*") if own.match(path.name)]


CHECKS: dict[str, Callable[[], list[str]]] = {
    "process": children,
    "thread": threads,
    "thread of autograd": autograd_threads,
    "shared memory": shared_memory,
    "temporary directory": temporary_runs,
}


def pytest_collection_finish() -> None:
    """What has been imported stays: no collection has to look through torch and its friends again."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()
    kill(children())  # multiprocessing waits for its own at the interpreter's end


@pytest.fixture
def timing() -> Timing:
    """For tests that compare durations: see `tests/timing.py`."""
    return Timing()


@pytest.fixture
def of_any_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests whose made runs are shorter than a verdict asks for, and that are about something else."""
    for module in ("doubts", "job.merge"):
        monkeypatch.setattr(f"pipeprof.analyse.{module}.MIN_WALL_NS", 0)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Skip a test that passed in all but durations that other programs, or slow cores, have spoilt.

    It fails instead where all that fails is run again alone.
    """
    result = yield
    timing = getattr(item, "funcargs", {}).get("timing")
    if isinstance(timing, Timing) and timing.excuse is not None:
        (pytest.skip if excuses() else pytest.fail)(timing.excuse)
    return result


@pytest.fixture(autouse=True)
def nothing_outlives_the_test() -> Iterator[None]:
    before = {what: set(find()) for what, find in CHECKS.items()}
    yield

    def left() -> dict[str, list[str]]:
        new = {what: sorted(set(find()) - before[what]) for what, find in CHECKS.items()}
        return {what: found for what, found in new.items() if found}

    try:
        deadline = time.monotonic() + _PATIENCE_S
        while left() and time.monotonic() < deadline:
            gc.collect()
            time.sleep(0.05)
        if rest := left():
            pytest.fail("outlived the test: " + "; ".join(f"{k}: {v}" for k, v in rest.items()))
    finally:
        kill(sorted(set(children()) - before["process"]))  # also where the test's own time is over
