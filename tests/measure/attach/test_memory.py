"""Memory that the allocators keep goes back to the system."""

from __future__ import annotations

import ctypes
import sys
import threading
from pathlib import Path

import pyarrow as pa
import pytest

from pipeprof.measure.attach.memory import give_back

PIECE_BYTES, PIECES = 60_000, 500


def anonymous_bytes() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Anonymous:"))


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="of glibc's heaps"
)
def test_what_a_thread_has_freed_goes_back() -> None:
    """One piece at the end that stays keeps all before it in its heap."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    last = []

    def use() -> None:
        pieces = [libc.malloc(PIECE_BYTES) for _ in range(PIECES)]
        for piece in pieces:
            ctypes.memset(piece, 1, PIECE_BYTES)
        last.append(pieces.pop())
        for piece in pieces:
            libc.free(piece)

    give_back()
    before = anonymous_bytes()
    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    whole = PIECES * PIECE_BYTES
    assert anonymous_bytes() > before + 0.9 * whole
    give_back()
    assert anonymous_bytes() < before + 0.1 * whole
    libc.free(last[0])


def test_arrow_gives_back(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Pool:
        def release_unused(self) -> None:
            asked.append(True)

    monkeypatch.setattr(pa, "default_memory_pool", Pool)
    give_back()
    assert asked == [True]
