"""A program in a process of its own, without the start of an interpreter: a copy of the test's process.

Importing torch takes an interpreter seconds. Where a test wants a process to kill, to interrupt or to look
at from outside, a copy of this one does. Where it wants a fresh interpreter it starts one, mostly as `slow`.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

for _what in ("torchvision", "altair", "vl_convert", "pipeprof.measure.run", "pipeprof.report.html"):
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

    def finished(self, timeout_s: float = 110.0) -> subprocess.CompletedProcess[str]:
        """What it came to; a signal's number is negative, as with `subprocess`."""
        self.process.join(timeout_s)
        code = self.process.exitcode
        assert code is not None, f"still running after {timeout_s:g} s"
        texts = []
        for file in (self._out, self._err):
            file.seek(0)
            texts.append(file.read())
            file.close()
        return subprocess.CompletedProcess([], code, *texts)


def _become(main: Callable[[], Any], cwd: Path, descriptors: tuple[int, int]) -> None:
    os.setsid()
    os.chdir(cwd)
    for target, descriptor in enumerate(descriptors, start=1):
        os.dup2(descriptor, target)
    sys.stdout, sys.stderr = (open(fd, "w", closefd=False, buffering=1) for fd in (1, 2))  # noqa: SIM115
    torch.set_num_threads(1)  # the threads of the parent's pool did not come along
    main()
