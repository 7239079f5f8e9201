"""Keeps no more than some bytes of a data set in the page cache while it is read: the oldest file goes first.

That reproduces a set larger than memory on a machine that could hold it. The list of what was read is shared
by all workers, and is in shared memory; the worker that closes one file too many drops a file. While it is
open all of it may be in memory: our data sets read a file from front to back once, and do not read any of it
again.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from pipeprof.measure.host.page_cache import evict_open
from pipeprof.measure.probe.shared_memory import SharedBlock

_SLOTS: Final = 2**16
"""Number of files that are remembered; with more in memory, the oldest is dropped although it would fit."""
_SLOT_BYTES: Final = 512
_HEADER: Final = struct.Struct("qqq")
"""Oldest slot, next slot, bytes held."""
_SLOT: Final = struct.Struct("qq")
"""Size of the file, length of its path, which follows."""


class CacheLimit:
    """Shared by the processes that it is forked or pickled to. `limit_bytes` of 0 keeps nothing."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._block = SharedBlock(_SLOT_BYTES * (_SLOTS + 1), "pipeprof-eviction")

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__

    def read(self, path: str, fd: int, size_bytes: int) -> None:
        """Count `path`, open as `fd` and about to be closed, as read from its device; evict the excess."""
        name = os.fsencode(os.path.abspath(path))  # noqa: PTH100 - no symbolic links
        if self.limit_bytes == 0 or len(name) > _SLOT_BYTES - _SLOT.size:
            evict_open(fd)
            return
        for old in self._note(name, size_bytes):
            _evict(old)

    def _note(self, name: bytes, size_bytes: int) -> list[str]:
        """Add a file; returns those that have to go."""
        gone = []
        with self._block.locked() as block:
            first, following, held = _HEADER.unpack_from(block, 0)
            at = _SLOT_BYTES * (1 + following % _SLOTS)
            _SLOT.pack_into(block, at, size_bytes, len(name))
            block[at + _SLOT.size : at + _SLOT.size + len(name)] = name
            following, held = following + 1, held + size_bytes
            while held > self.limit_bytes or following - first >= _SLOTS:
                at = _SLOT_BYTES * (1 + first % _SLOTS)
                old_size, length = _SLOT.unpack_from(block, at)
                gone.append(os.fsdecode(block[at + _SLOT.size : at + _SLOT.size + length]))
                first, held = first + 1, held - old_size
            _HEADER.pack_into(block, 0, first, following, held)
        return gone

    def close(self) -> None:
        """Release the shared memory of this process."""
        self._block.close()


def _evict(path: str) -> None:
    with suppress(OSError):  # gone meanwhile
        fd = os.open(Path(path), os.O_RDONLY | os.O_CLOEXEC)
        try:
            evict_open(fd)
        finally:
            os.close(fd)
