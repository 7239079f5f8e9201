"""The page cache: how much of a file it holds, and how to change that without root.

`cachestat` (Linux 6.5) if it is permitted, else `mincore`. Both refuse, or lie, about files that one neither
owns nor may write; those are not observed.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

_CACHESTAT: Final = 451
"""Number of the system call; the same on every architecture that has it."""
_CHUNK_BYTES: Final = 2**20
_libc: Final = ctypes.CDLL(None, use_errno=True) if os.name == "posix" else None


class Residency(NamedTuple):
    """Amount of some files that is in the page cache, together."""

    total_bytes: int
    resident_bytes: int
    """Counted for the files that could be observed."""
    unobserved_files: int

    @property
    def share(self) -> float | None:
        """Return the resident share; None if not every file could be observed, or there are none."""
        if self.unobserved_files or not self.total_bytes:
            return None
        return self.resident_bytes / self.total_bytes


class _Range(ctypes.Structure):
    _fields_ = (("offset", ctypes.c_uint64), ("length", ctypes.c_uint64))


class _Cachestat(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint64) for name in ("cache", "dirty", "writeback", "evicted", "recent"))


def residency(paths: Iterable[Path]) -> Residency:
    """Measure how much of the files is in the page cache. Raises `OSError` if a file cannot be opened."""
    total = resident = unobserved = 0
    for path in paths:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(fd).st_size
            held = resident_bytes(fd, size)
        finally:
            os.close(fd)
        total += size
        if held is None:
            unobserved += 1
        else:
            resident += held
    return Residency(total, resident, unobserved)


def resident_bytes(fd: int, size_bytes: int) -> int | None:
    """Return the bytes of an open file in the page cache, in whole pages cut at its end; None if unknown."""
    if size_bytes == 0:
        return 0
    if _libc is None:
        return None
    pages = _cachestat(fd)
    if pages is None:
        pages = _mincore(fd, size_bytes)
    return None if pages is None else min(size_bytes, pages * mmap.PAGESIZE)


def _cachestat(fd: int) -> int | None:
    whole, answer = _Range(0, 0), _Cachestat()
    assert _libc is not None
    failed = _libc.syscall(_CACHESTAT, fd, ctypes.byref(whole), ctypes.byref(answer), 0)
    return None if failed else int(answer.cache)


def _mincore(fd: int, size_bytes: int) -> int | None:
    facts = os.fstat(fd)
    if facts.st_uid != os.geteuid() and not os.access(f"/proc/self/fd/{fd}", os.W_OK):
        return None  # the kernel would say that all of it is resident
    with mmap.mmap(fd, size_bytes, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) as view:
        pages = -(-size_bytes // mmap.PAGESIZE)
        answer = (ctypes.c_ubyte * pages)()
        start = (ctypes.c_char * size_bytes).from_buffer(view)
        assert _libc is not None
        failed = _libc.mincore(ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(size_bytes), answer)
        del start  # a map with a pointer into it cannot be closed
        return None if failed else sum(page & 1 for page in answer)


def evict(paths: Iterable[Path]) -> None:
    """Ask the kernel to drop the files from memory. Pages that another process maps stay."""
    for path in paths:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fdatasync(fd)  # what has not been written yet cannot be dropped
            evict_open(fd)
        finally:
            os.close(fd)


def evict_open(fd: int) -> None:
    """Ask the kernel to drop one open file from memory; nothing if it cannot be asked."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def warm(paths: Iterable[Path]) -> None:
    """Read the files, so that they are in memory as far as it reaches."""
    buffer = bytearray(_CHUNK_BYTES)
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
