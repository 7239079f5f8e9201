"""Measures what a worker has allocated and kept between its batches: a cache grows, while everything else is
made again.

Resident memory does not show it. It includes memory that was freed and not given back: with a cache of 4 MB,
the buffers of decoding moved it by 8 MB to either side, from one epoch to the next.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any, Final

EVERY_NS: Final = 100_000_000
SMALL_OBJECT_BYTES: Final = 64
"""Taken for each small object of Python's own allocator, which reports only their number: 16 to 512 bytes."""
_FIELDS: Final = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"


class _MallInfo(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_size_t) for name in _FIELDS.split())


@cache
def _mallinfo() -> Callable[[], Any] | None:
    with suppress(OSError, AttributeError, TypeError):  # glibc has it since 2.33, other libraries do not
        mallinfo = ctypes.CDLL(None).mallinfo2
        mallinfo.restype = _MallInfo
        return mallinfo
    return None


def allocated_bytes() -> int | None:
    """Return the bytes that this process has allocated and not freed, in 15 µs; None if not known."""
    mallinfo = _mallinfo()
    if mallinfo is None:
        return None
    now = mallinfo()
    return int(now.uordblks + now.hblkhd) + SMALL_OBJECT_BYTES * sys.getallocatedblocks()


class AllocationLooks:
    """Reads the memory of a worker when a batch has ended: at the first, then at most ten times a second.

    What the making of the first batch takes, every worker needs. At the end of a worker its data set is gone.
    """

    def __init__(self) -> None:
        self._unsent: list[int] = []
        self._next_ns = 0

    def batch_ended(self, now_ns: int) -> None:
        """Look, if it is time."""
        if now_ns < self._next_ns:
            return
        self._next_ns = now_ns + EVERY_NS
        if (allocated := allocated_bytes()) is not None:
            self._unsent = [*self._unsent[:1], allocated]

    def take(self) -> list[int]:
        """Return the first and the last look since the call before, in bytes."""
        taken, self._unsent = self._unsent, []
        return taken
