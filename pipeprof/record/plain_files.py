"""Refusal of files that are not regular, before opening: a FIFO blocks its reader, a device never ends."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Final

from pipeprof.errors import TraceError

MOST_TEXT_BYTES: Final = 64 << 20
"""Size of the longest `run.json` that is read. Usual are 5 KB, and the scenario in it."""


def check_plain(path: Path) -> None:
    """Raise `TraceError` if `path` leads to anything but a plain file, `OSError` if it leads to nothing."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise TraceError(f"{path} is not a regular file", "give the run directory as it was written")


def read_text(path: Path) -> str:
    """Return the text of a plain file.

    Raises `TraceError` for anything else and for one of more than `MOST_TEXT_BYTES`, `OSError` if it cannot
    be read, `UnicodeDecodeError` if it is not UTF-8.
    """
    check_plain(path)
    if path.stat().st_size > MOST_TEXT_BYTES:
        raise TraceError(f"{path} is larger than {MOST_TEXT_BYTES >> 20} MiB", "it is not a run of pipeprof")
    return path.read_text(encoding="utf-8")
