"""Find the ranks of a job by one of them, or by their launcher."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from pipeprof.errors import MeasureError
from pipeprof.measure.attach.ranks import ranks_of


def test_ranks_are_the_launchers_children() -> None:
    source = "import os, time\nif os.fork() == 0: time.sleep(60)\ntime.sleep(60)"  # a worker has a RANK too
    command = [sys.executable, "-S", "-c", source]
    ranks = [
        subprocess.Popen(command, env={**os.environ, "RANK": str(rank)}, start_new_session=True)
        for rank in (1, 0)
    ]
    try:
        pids = [process.pid for process in reversed(ranks)]
        deadline = time.monotonic() + 30
        while ranks_of(os.getpid()) != pids and time.monotonic() < deadline:
            time.sleep(0.05)
        assert ranks_of(os.getpid()) == pids
        assert ranks_of(pids[1]) == pids
    finally:
        for process in ranks:
            os.killpg(process.pid, 9)
            process.wait()


def test_a_process_without_ranks_is_one_error() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            with pytest.raises(MeasureError, match="is no rank of a job"):
                ranks_of(process.pid)
        finally:
            process.kill()
