"""Looking at workers from outside leaves nothing open of those that are gone."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from pipeprof.measure.session.session import Session
from pipeprof.measure.session.worker_state import WorkerStates
from tests.measure.session import loader_cases as cases


def open_files() -> int:
    """Of other processes, in this one."""
    found = 0
    for fd in Path("/proc/self/fd").iterdir():
        try:
            found += fd.readlink().name in ("stat", "wchan")
        except OSError:
            continue
    return found


class Watch:
    workers = 1

    def __init__(self, thread: int) -> None:
        self.thread = thread

    def threads(self) -> list[int]:
        return [self.thread]

    def busy_threads(self) -> list[tuple[int, int]]:
        return [(0, self.thread)]


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_the_files_of_a_thread_are_open_as_long_as_someone_watches_it() -> None:
    states, before = WorkerStates(), open_files()
    watch = Watch(os.getpid())
    states.look([watch])
    states.look([watch, Watch(os.getppid())])
    assert open_files() == before + 4
    states.look([watch])
    assert open_files() == before + 2
    states.look([])
    assert open_files() == before
    states.close()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_epochs_leave_no_files_of_their_workers(tmp_path: Path) -> None:
    before = open_files()
    with Session(tmp_path / "run") as session:
        loader = session.loader(cases.Slow(2), num_workers=1)
        most = 0
        for _ in range(3):
            list(loader)  # 0.1 s, in which a worker is looked at
            most = max(most, open_files() - before)
        session.flush()
        deadline = time.monotonic() + 10
        while open_files() > before and time.monotonic() < deadline:
            time.sleep(0.02)
        assert most >= 2
        assert open_files() == before
