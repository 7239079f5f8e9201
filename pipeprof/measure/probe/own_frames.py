"""Tracebacks of the user's errors without our frames, as they are without pipeprof."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from pipeprof.measure.probe.patches import patch

OWN: Final = tuple(f"{Path(__file__).parent.parent / room}/" for room in ("probe", "session", "attach"))
"""Folders with all code of ours that calls the user's, or torch's."""


def without_own_frames(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback without our frames, in the same order."""
    kept = []
    while trace is not None:
        if not trace.tb_frame.f_code.co_filename.startswith(OWN):
            kept.append(trace)
        trace = trace.tb_next
    theirs: TracebackType | None = None
    for each in reversed(kept):
        theirs = TracebackType(theirs, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return theirs


def hide_own_frames(error: BaseException) -> None:
    """Take our frames out of an error, of those that it came from, and of those in its group."""
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        each.__traceback__ = without_own_frames(each.__traceback__)
        waiting += [each.__cause__, each.__context__]
        if isinstance(each, BaseExceptionGroup):
            waiting += each.exceptions


def hide_in_worker(holder: str) -> None:
    """Have torch's worker, which is this process, send the user's errors without our frames in their text.

    It sends a traceback as text. Until `patches.release(holder)`. A private name of torch, seen in 2.6 to
    2.15: without it the frames stay.
    """
    worker = sys.modules.get("torch.utils.data._utils.worker")
    if worker is not None and isinstance(getattr(worker, "ExceptionWrapper", None), type):
        patch(holder, worker, "ExceptionWrapper", lambda wrap: partial(_wrapped, wrap))


def _wrapped(wrap: Callable[..., Any], exc_info: Any = None, where: str = "in background") -> Any:
    info = sys.exc_info() if exc_info is None else exc_info
    if isinstance(info[1], BaseException):
        hide_own_frames(info[1])
        info = (info[0], info[1], info[1].__traceback__)
    return wrap(info, where)
