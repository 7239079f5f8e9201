"""The environment variables through which a process and its children are observed, and report back."""

from __future__ import annotations

import json
import os
from typing import Final

TRACE: Final = "PIPEPROF_TRACE"
"""Run directory. A Python process that is started with it observes its DataLoaders."""
LINES: Final = "PIPEPROF_TRACE_LINES"
"""`0` if no lines are to be sampled."""
EVERY_BATCH: Final = "PIPEPROF_TRACE_EVERY_BATCH"
"""`1` if batches are probed in a long run too, however much that costs."""
TRIAL: Final = "PIPEPROF_TRACE_TRIAL"
"""JSON of what is tried on the script, in each of its processes."""
RANKS: Final = "PIPEPROF_TRACE_RANKS"
"""Ranks of a job that are observed, as `0,8,16` or `every 8`; all without it."""
STARTED: Final = "PIPEPROF_TRACE_STARTED"
"""File of `pipeprof trace` in which each process that ran the start-up hook enters a line of JSON."""


class ThisProcess:
    """The process that this is."""

    is_settled = False
    """True if it is observed already, or is not to observe itself."""


def leave_alone() -> None:
    """Have the start-up hook leave this process alone: `pipeprof trace` observes it itself."""
    ThisProcess.is_settled = True


def enter(unobserved: str | None = None) -> None:
    """Tell `pipeprof trace` that this process ran the hook, and why it is not observed if it is not."""
    path = os.environ.get(STARTED)
    if not path:
        return
    line = json.dumps({"pid": os.getpid(), "unobserved": unobserved}) + "\n"
    try:
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
    except OSError:  # it has ended, or this process sees other files
        return
    try:
        os.write(file, line.encode())  # one write of a short line: processes do not mix theirs
    finally:
        os.close(file)
