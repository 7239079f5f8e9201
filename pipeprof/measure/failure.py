"""What went wrong in a run, said so that a user can act on it. Foreign errors are translated here."""

from __future__ import annotations

import errno
import re
from contextlib import suppress
from typing import Final

import psutil
import torch

from pipeprof.errors import MeasureError, PipeprofError, TraceError

_WORKER: Final = re.compile(r"DataLoader worker \(pid(?:\(s\))? (?P<pids>[\d, ]+)\) (?P<end>[^\n]*)")


def translated(error: BaseException) -> BaseException:
    """`error` as a `PipeprofError` that says what to do; what is no failure (Ctrl-C) comes back as it is."""
    if isinstance(error, PipeprofError) or not isinstance(error, Exception):
        return error
    lost = lost_worker(error)
    if lost is not None:
        return MeasureError(
            lost,
            "the usual reason is memory: try fewer loader.workers or a smaller loader.batch_size, and look "
            "for `Out of memory` in the kernel's log. What was measured until then is kept",
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


def lost_worker(error: BaseException) -> str | None:
    """`a loader worker (process 123) is killed by signal: Killed`, where torch's error says such a thing."""
    found = _WORKER.search(str(error))
    if found is not None:
        return f"a loader worker (process {found['pids'].strip()}) {found['end'].strip().rstrip('.')}"
    if isinstance(error, (ConnectionError, EOFError)):  # it died while a batch was being handed over
        dead = ", ".join(str(pid) for pid in dead_children())
        return f"a loader worker (process {dead or 'unknown'}) is gone and left its connection broken"
    return None


def dead_children() -> list[int]:
    """Child processes that have ended and that nobody has waited for."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if child.status() == psutil.STATUS_ZOMBIE:
                found.append(child.pid)
    return found


def disk_is_full(error: BaseException) -> bool:
    """Whether `error` is the system's or Arrow's way to say so."""
    return (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)) or (
        "No space left on device" in str(error)
    )


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its class where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]
