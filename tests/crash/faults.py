"""A disk that fails at the n-th write of a record, at the seam through which all of a record is written."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from unittest import mock

from pipeprof.record import files


class FailingDisk:
    """Fails the `nth` write, counted from 0, with `number`; all that follow too where it is `full`.

    As the kernel does, the write that meets the end of the disk is cut, and the next one fails.
    """

    def __init__(self, nth: int, number: int = errno.ENOSPC, full: bool = True) -> None:
        self.nth, self.number, self.full = nth, number, full
        self.writes = 0

    def allows(self, size_bytes: int) -> int:
        """Return how many of the bytes are written. Raises where none is."""
        at, self.writes = self.writes, self.writes + 1
        if at < self.nth or (at > self.nth and not self.full):
            return size_bytes
        if at == self.nth and self.full and size_bytes > 1:
            return size_bytes // 2
        raise OSError(self.number, os.strerror(self.number))

    @contextmanager
    def in_place(self, below: Path = Path("/")) -> Iterator[FailingDisk]:
        """Let all records, or those `below` a directory, be written to this disk while the block lasts."""
        plain = files.open_new

        def open_new(path: Path) -> BinaryIO:
            return (
                io.BufferedWriter(_File(path, self)) if path.absolute().is_relative_to(below) else plain(path)
            )

        with mock.patch.object(files, "open_new", open_new):
            yield self


class _File(io.FileIO):
    def __init__(self, path: Path, disk: FailingDisk) -> None:
        super().__init__(path, "w")
        self._disk = disk

    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        return super().write(view[: self._disk.allows(len(view))])
