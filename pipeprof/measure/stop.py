"""Ctrl-C and SIGTERM end a run in order: what is there is kept and reported."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

GRACE_S: Final = 3.0
"""How long a step may still take once a stop was asked for; then it is broken off."""
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """The user, or whoever manages this process, has asked it to stop."""


class Stop:
    """Whether someone has asked the run to stop."""

    def __init__(self) -> None:
        self.requested = False
        self._timer: threading.Timer | None = None

    def handle(self, number: int, _: FrameType | None) -> None:
        """The first signal asks for an end between two steps; the next, or the end of grace, breaks off."""
        if self.requested:
            raise Stopped(signal.Signals(number).name)
        self.requested = True
        main = threading.main_thread().ident
        assert main is not None
        self._timer = threading.Timer(GRACE_S, signal.pthread_kill, (main, number))
        self._timer.daemon = True
        self._timer.start()

    def close(self) -> None:
        """No more signals from the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Take SIGINT and SIGTERM while the block lasts; ends with `Stopped` where one came.

    An error after a signal is taken for its consequence. Outside the main thread, where Python takes no
    signals, nothing is caught.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before: dict[int, Any] = {number: signal.signal(number, stop.handle) for number in _SIGNALS}
    try:
        yield stop
    except Exception as error:
        if stop.requested:
            raise Stopped from error
        raise
    finally:
        stop.close()
        for number, handler in before.items():
            signal.signal(number, handler)
    if stop.requested:
        raise Stopped


def leave_signals_to_the_loop(_: int) -> None:
    """For a worker's start: Ctrl-C goes to the whole terminal, and the loop ends its workers itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def joined(thread: threading.Thread) -> BaseException | None:
    """Wait for `thread` to end, whatever handlers of signals raise meanwhile; returns the last of that."""
    raised = None
    while thread.is_alive():
        try:
            thread.join()
        except BaseException as error:  # Ctrl-C, or torch's word of a lost worker
            raised = error
    return raised
