"""The page cache of an emulated device: what a read finds in memory and need not request from the device.

The oldest bytes leave first. That needs no list: a piece is held as long as fewer than `limit_bytes` have
come in after it, so it is enough to know, for each piece, how many bytes had come in before. A read that
walks through a set larger than the limit, again and again in the same order, finds nothing (thrashing).
"""

from __future__ import annotations

from typing import Final

from pipeprof.devices import Request
from pipeprof.measure.storage.shared_cells import SharedCells
from pipeprof.record.meta import EmulatedCacheMeta

_SLOTS: Final = 2**18
"""Pieces that are remembered; 4 MiB of shared memory, of which only what is used becomes real."""
_TRIES: Final = 8
_CAME_IN, _HITS, _MISSES, _HEADER = 0, 1, 2, 4
_EMPTY: Final = 0


class EmulatedCache:
    """Shared by the processes that it is forked or pickled to.

    `limit_bytes`: how much is held; None holds everything and knows it from the start (a warm set).
    """

    def __init__(self, limit_bytes: int | None) -> None:
        self.limit_bytes = limit_bytes
        self.shared = SharedCells(_HEADER + 2 * _SLOTS, "pipeprof-cache")
        self._closed: EmulatedCacheMeta | None = None

    def holds(self, request: Request) -> bool:
        """Return whether the piece is in memory; afterwards it is."""
        with self.shared.locked():
            cells = self.shared.cells
            held = self.limit_bytes is None or self._touch(request)
            cells[_HITS if held else _MISSES] += request.size_bytes
        return held

    def _touch(self, request: Request) -> bool:
        assert self.limit_bytes is not None
        cells = self.shared.cells
        key = hash((request.file_id, request.offset)) | 1
        slot = self._slot(key)
        if cells[slot] == key and cells[_CAME_IN] - cells[slot + 1] <= self.limit_bytes:
            return True
        cells[_CAME_IN] += request.size_bytes
        cells[slot], cells[slot + 1] = key, cells[_CAME_IN] - request.size_bytes
        return False

    def _slot(self, key: int) -> int:
        """Return where `key` is or may be put: an empty slot, else the oldest of a few."""
        tries = [_HEADER + 2 * ((key // 2 + step) % _SLOTS) for step in range(_TRIES)]
        for slot in tries:
            if self.shared.cells[slot] in (key, _EMPTY):
                return slot
        return min(tries, key=lambda slot: self.shared.cells[slot + 1])

    def facts(self) -> EmulatedCacheMeta:
        """Return the bytes that were held and missed so far; after `close`, those by then."""
        return self._closed or EmulatedCacheMeta(
            limit_bytes=self.limit_bytes,
            bytes_from_memory=self.shared.cells[_HITS],
            bytes_from_device=self.shared.cells[_MISSES],
        )

    def close(self) -> None:
        """Release the shared memory of this process."""
        self._closed = self.facts()
        self.shared.close()
