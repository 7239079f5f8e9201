"""Files that are whole or not there. Everything written to a record goes through `open_new`."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

NO_LINKS: Final = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS})
"""Errors by which a file system says that it has no hard links."""


def open_new(path: Path) -> BinaryIO:
    """Open a file to be written from its beginning. Raises `OSError` if that cannot be."""
    return path.open("wb")


def create_whole(path: Path, text: str) -> None:
    """Write a text file that is whole from its first moment. Raises `FileExistsError` if there is one."""
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}")
    try:
        _write(temporary, text)
        try:
            path.hardlink_to(temporary)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            with path.open("x", encoding="utf-8") as file:  # this file system knows no links: nearly as good
                file.write(text)
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_atomically(path: Path, text: str) -> None:
    """Write a whole text file or nothing: a temporary neighbour, renamed over `path`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        _write(temporary, text)
        temporary.replace(path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def _write(path: Path, text: str) -> None:
    with open_new(path) as file:
        file.write(text.encode())
