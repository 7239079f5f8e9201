"""Nothing may outlive a test: no process, no thread, no shared memory, no temporary run directory."""

from __future__ import annotations

import gc
import os
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import psutil
import pytest

from tests.others import BUSY_CORES, Others

_HELPERS = ("resource_tracker", "forkserver")
"""multiprocessing's own processes, one each, which live as long as the interpreter."""
_PATIENCE_S = 10.0


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


def threads() -> list[str]:
    return [
        thread.name
        for thread in threading.enumerate()
        if thread is not threading.main_thread() and (not thread.daemon or thread.name.startswith("pipeprof"))
    ]


def shared_memory() -> list[str]:
    """Blocks of this process, named or not."""
    named = [str(path) for path in Path("/dev/shm").glob(f"*{os.getpid()}*")]
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
    return [str(path) for path in Path(tempfile.gettempdir()).glob(f"pipeprof-*{os.getpid()}-*")]


CHECKS: dict[str, Callable[[], list[str]]] = {
    "process": children,
    "thread": threads,
    "shared memory": shared_memory,
    "temporary directory": temporary_runs,
}


def pytest_collection_finish() -> None:
    """What has been imported stays: no collection has to look through torch and its friends again."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """A test marked `needs_cores` proves nothing by failing while others had them."""
    if item.get_closest_marker("needs_cores") is None:
        return (yield)
    others = Others()
    try:
        return (yield)
    except AssertionError:
        if (taken := others.cores()) > BUSY_CORES:
            pytest.skip(f"other programs kept {taken:.1f} cores busy meanwhile")
        raise


@pytest.fixture(autouse=True)
def nothing_outlives_the_test() -> Iterator[None]:
    before = {what: set(find()) for what, find in CHECKS.items()}
    yield
    deadline = time.monotonic() + _PATIENCE_S
    while any((left := {what: sorted(set(find()) - before[what]) for what, find in CHECKS.items()}).values()):
        if time.monotonic() > deadline:
            break
        gc.collect()
        time.sleep(0.05)
    else:
        return
    pytest.fail("outlived the test: " + "; ".join(f"{k}: {v}" for k, v in left.items() if v))
