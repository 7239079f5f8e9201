"""Closes a run in endings that no handler of Python's sees: `os._exit`, and the end of a forked child."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from multiprocessing import util
from typing import Any, Final

from pipeprof.measure.probe.patches import patch, release

_HOLDER: Final = "endings"
_closers: Final[dict[int, Callable[[int], None]]] = {}
"""By process: what to do before it ends at once."""
_PATIENCE_S: Final = 20.0
"""Time after which a process that wants to end at once ends, whatever still delays its run."""
_PRIORITY: Final = 100
"""Before multiprocessing ends the children of a child."""


def before_exit(close: Callable[[int], None]) -> None:
    """Have `close` called with the exit code before this process ends by `os._exit`, until `forget`."""
    _closers[os.getpid()] = close
    patch(_HOLDER, os, "_exit", _closing)


def forget() -> None:
    """Call nothing before this process ends."""
    _closers.pop(os.getpid(), None)
    if not _closers:
        release(_HOLDER)


def at_end_of_child(close: Callable[[BaseException | None], None]) -> None:
    """Have `close` called with the error, if any, at the end of a process that multiprocessing has started.

    It ends without what is registered with `atexit` if it was forked. Elsewhere nothing is done.
    """
    if multiprocessing.parent_process() is not None:
        # while an error goes through multiprocessing's own `finally`, it is the one being handled
        util.Finalize(None, lambda: close(sys.exc_info()[1]), exitpriority=_PRIORITY)


def _closing(original: Callable[[int], Any]) -> Callable[[int], Any]:
    def _exit(status: int) -> Any:
        close = _closers.pop(os.getpid(), None)  # of this process, and not of the one that it was forked from
        if close is not None:
            watchdog = threading.Timer(_PATIENCE_S, original, [status])
            watchdog.daemon = True
            watchdog.start()
            try:
                close(status)
            except BaseException as error:  # the program ends as it wanted to
                print(f"pipeprof: the run was not closed: {error}", file=sys.stderr)
        return original(status)

    return _exit
