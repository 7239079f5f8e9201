"""Remains of a killed process: its temporary run directory, the names of its shared memory."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

PREFIX: Final = "pipeprof-run-"


def new_scratch() -> Path:
    """Make a temporary directory that names this process; those of dead processes are removed first."""
    _remove_leftovers(Path(tempfile.gettempdir()))
    return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))


def remove_scratch(directory: Path) -> None:
    """Remove a directory of `new_scratch`."""
    shutil.rmtree(directory, ignore_errors=True)


def remove_unfinished(pid: int, shared: Path = Path("/dev/shm")) -> None:
    """Remove the blocks that torch had begun to share from process `pid` when it was killed.

    torch unlinks a block right after making it; a worker that is killed in between leaves the name.
    """
    for block in shared.glob(f"torch_{pid}_*"):
        with suppress(OSError):
            block.unlink()


def _remove_leftovers(parent: Path) -> None:
    for directory in parent.glob(f"{PREFIX}*-*"):
        pid = directory.name.removeprefix(PREFIX).split("-")[0]
        with suppress(ValueError, OSError):
            if not psutil.pid_exists(int(pid)):  # on Windows a signal 0 would be a Ctrl-C
                remove_scratch(directory)
