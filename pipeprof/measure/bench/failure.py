"""Translates foreign errors of a run into problem and remedy."""

from __future__ import annotations

import errno
import re
from contextlib import suppress
from typing import Final

import psutil
import torch

from pipeprof import units
from pipeprof.errors import MeasureError, PipeprofError, TraceError, first_line
from pipeprof.measure.host.mounts import shared_memory_bytes

_WORKER: Final = re.compile(r"DataLoader worker \(pid(?:\(s\))? (?P<pids>[\d, ]+)\) (?P<end>[^\n]*)")


def translated(error: BaseException) -> BaseException:
    """Return `error` as a `PipeprofError` with a remedy; anything that is not a failure (Ctrl-C) is returned
    unchanged."""
    if isinstance(error, PipeprofError) or not isinstance(error, Exception):
        return error
    lost = lost_worker(error)
    if lost is not None:
        return MeasureError(
            lost,
            "the usual reason is memory: try fewer loader.workers or a smaller loader.batch_size, and look "
            "for `Out of memory` in the kernel's log. What was measured until then is kept",
        )
    if disk_is_full(error) and (room := shared_memory_bytes()) is not None and room[0] < LITTLE_ROOM_BYTES:
        return MeasureError(
            f"/dev/shm is full: {units.size(room[0])} of {units.size(room[1])} are left for batches",
            "give the container more, as with `docker run --shm-size=8g`, or use fewer loader.workers",
        )
    if disk_is_full(error):
        return TraceError(
            "the disk is full: the run could not be written to its end",
            "make room or choose another --out. What was written until then is kept",
        )
    if isinstance(error, torch.OutOfMemoryError):
        return MeasureError(
            f"the accelerator's memory is full: {first_line(error)}", "make loader.batch_size smaller"
        )
    return MeasureError(
        f"the run ended with {type(error).__name__}: {error}",
        "if this comes from your own dataset, try loader.workers=0 to see where. "
        "What was measured until then is kept",
    )


LITTLE_ROOM_BYTES: Final = 16 << 20


def lost_worker(error: BaseException) -> str | None:
    """Return `a loader worker (process 123) is killed by signal: Killed`, if torch's error says so."""
    match = _WORKER.search(str(error))
    if match is not None:
        return f"a loader worker (process {match['pids'].strip()}) {match['end'].strip().rstrip('.')}"
    if isinstance(error, (ConnectionError, EOFError)):  # it died while a batch was being handed over
        dead = ", ".join(str(pid) for pid in dead_children())
        return f"a loader worker (process {dead or 'unknown'}) is gone and left its connection broken"
    return None


def dead_children() -> list[int]:
    """List child processes that have ended and that have not been waited for."""
    dead = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if child.status() == psutil.STATUS_ZOMBIE:
                dead.append(child.pid)
    return dead


def disk_is_full(error: BaseException) -> bool:
    """Return whether `error` is the system's or Arrow's report of a full disk."""
    return (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)) or (
        "No space left on device" in str(error)
    )
