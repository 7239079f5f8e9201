"""A program in a process of its own, without the start of an interpreter: a copy of the test's process.

Importing torch takes an interpreter seconds. Where a test wants a process to kill, to interrupt or to look
at from outside, a copy of this one does. Where it wants a fresh interpreter it starts one, mostly as `slow`.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import forkserver, get_context
from pathlib import Path
from typing import Any

import torch

for _what in (
    "torchvision",
    "altair",
    "pipeprof.measure.bench.run",
    "pipeprof.report.page.html",
):
    importlib.import_module(_what)  # once, and not in each copy


def verb(*arguments: str) -> Callable[[], None]:
    """`pipeprof ARGUMENTS`, from the door to the exit code."""

    def main() -> None:
        from pipeprof.cli import main as door

        sys.argv = ["pipeprof", *arguments]
        sys.path.insert(0, "")  # as `python -m pipeprof` has it: the working directory
        door()

    return main


class Program:
    """Runs `main` in a copy of this process, in a session of its own, with its output kept."""

    def __init__(self, main: Callable[[], Any], cwd: Path, stderr: int | None = None) -> None:
        self._out, self._err = (tempfile.TemporaryFile("w+") for _ in range(2))  # noqa: SIM115
        descriptors = self._out.fileno(), self._err.fileno() if stderr is None else stderr
        self.process = get_context("fork").Process(target=_become, args=(main, cwd, descriptors))
        self.process.start()
        assert self.process.pid is not None
        self.pid: int = self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.is_alive()

    def finished(self, timeout_s: float = 100.0) -> subprocess.CompletedProcess[str]:
        """What it came to; a signal's number is negative, as with `subprocess`.

        A program that goes on is killed with all that it started, and the test fails: pytest would otherwise
        wait for it at its own end.
        """
        self.process.join(timeout_s)
        hung = self.process.exitcode is None
        if hung:
            self.kill()
        code = self.process.exitcode
        texts = []
        for file in (self._out, self._err):
            file.seek(0)
            texts.append(file.read())
            file.close()
        assert not hung, f"still running after {timeout_s:g} s; it had said: {texts}"
        assert code is not None
        return subprocess.CompletedProcess([], code, *texts)

    def kill(self) -> None:
        """End the program and all processes of its session."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.join()


def _become(main: Callable[[], Any], cwd: Path, descriptors: tuple[int, int]) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what it starts with `&`
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.chdir(cwd)
    for target, descriptor in enumerate(descriptors, start=1):
        os.dup2(descriptor, target)
    sys.stdout, sys.stderr = (open(fd, "w", closefd=False, buffering=1) for fd in (1, 2))  # noqa: SIM115
    torch.set_num_threads(1)  # the threads of the parent's pool did not come along
    forkserver._forkserver._forkserver_pid = None  # type: ignore[attr-defined] # the parent's child, not ours
    main()
