"""Reads files of `/proc` and `/sys`, again and again while a run lasts."""

from __future__ import annotations

import os
from typing import Final

_PIECE_BYTES: Final = 1 << 16


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Return a file's content, for a third of what pathlib takes. Raises `OSError`."""
    file = os.open(path, os.O_RDONLY)
    try:
        content = b""
        while piece := os.read(file, _PIECE_BYTES):  # the kernel gives a page or so at a time
            content += piece
        return content
    finally:
        os.close(file)


def waited_s(pressure: str | os.PathLike[str]) -> float:
    """Return the seconds for which some task waited, from a file of Linux PSI.

    Raises `OSError` if there is none, `ValueError` or `IndexError` if it is another file.
    """
    return int(read_bytes(pressure).splitlines()[0].rpartition(b"total=")[2]) / 1e6
