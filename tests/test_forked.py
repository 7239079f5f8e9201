"""Programs in processes of their own: none outlives its test, and signals reach them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import children, kill
from tests.forked import Program


def never_ends() -> None:
    print("here", flush=True)
    os.fork()  # with a child of its own
    Path(f"ready-{os.getpid()}").touch()
    while True:
        time.sleep(0.01)


def started(directory: Path) -> Program:
    program = Program(never_ends, directory)
    while len(list(directory.glob("ready-*"))) < 2:
        assert program.alive
        time.sleep(0.01)
    return program


def test_a_program_that_hangs_fails_the_test_and_is_gone(tmp_path: Path) -> None:
    before = set(children())
    program = started(tmp_path)
    with pytest.raises(AssertionError, match=r"still running after 0.3 s; it had said: \['here"):
        program.finished(timeout_s=0.3)
    assert not program.alive
    assert set(children()) <= before


def test_what_a_test_leaves_running_is_killed(tmp_path: Path) -> None:
    program = started(tmp_path)
    kill(children())
    program.process.join(10)
    assert program.finished().returncode == -signal.SIGKILL


@pytest.fixture
def ctrl_c_ignored() -> Iterator[None]:
    """As a shell has it for what it starts in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_reaches_a_program_although_the_suite_ignores_it(ctrl_c_ignored: None, tmp_path: Path) -> None:
    program = started(tmp_path)
    os.killpg(program.pid, signal.SIGINT)
    done = program.finished(timeout_s=30)
    assert done.returncode != 0
    assert "KeyboardInterrupt" in done.stderr
