"""Temporary run directories: gone with their process, or at the next start where it was killed."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

PREFIX: Final = "pipeprof-run-"


def new_scratch() -> Path:
    """A new temporary directory that names this process; those of dead processes are removed first."""
    _remove_leftovers(Path(tempfile.gettempdir()))
    return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))


def remove_scratch(directory: Path) -> None:
    """Remove a directory of `new_scratch`."""
    shutil.rmtree(directory, ignore_errors=True)


def _remove_leftovers(parent: Path) -> None:
    for directory in parent.glob(f"{PREFIX}*-*"):
        pid = directory.name.removeprefix(PREFIX).split("-")[0]
        with suppress(ValueError, OSError):
            if not _alive(int(pid)):
                remove_scratch(directory)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
