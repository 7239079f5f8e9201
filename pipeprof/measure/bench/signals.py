"""Ctrl-C, SIGTERM and SIGHUP end a run in order: what is there is kept and reported."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

GRACE_S: Final = 3.0
"""Longest time that a step may still take after a stop was requested; then it is broken off."""
_SIGNALS: Final = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


class Stopped(KeyboardInterrupt):
    """The user, or whoever manages this process, has asked it to stop, by the signal `name`."""

    def __init__(self, name: str = "SIGINT") -> None:
        super().__init__(name)
        self.name = name


class StopRequest:
    """A request to stop the run, by a signal."""

    def __init__(self) -> None:
        self.requested = False
        self.name = "SIGINT"
        """Name of the first signal that came."""
        self._timer: threading.Timer | None = None

    def handle(self, number: int, _: FrameType | None) -> None:
        """Ask for an end between two steps at the first signal; break off at the next, or after the grace."""
        if self.requested:
            raise Stopped(self.name)
        self.requested, self.name = True, signal.Signals(number).name
        main = threading.main_thread().ident
        assert main is not None
        self._timer = threading.Timer(GRACE_S, signal.pthread_kill, (main, number))
        self._timer.daemon = True
        self._timer.start()

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()


@contextmanager
def stoppable() -> Iterator[StopRequest]:
    """Take SIGINT, SIGTERM and SIGHUP while the block lasts; ends with `Stopped` if one came.

    A signal that is ignored, as under nohup, stays so. An error after a signal is taken for its consequence.
    Outside the main thread, where Python handles no signals, nothing is caught.
    """
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    heard = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before: dict[int, Any] = {number: signal.signal(number, stop.handle) for number in heard}
    try:
        yield stop
    except Exception as error:
        if stop.requested:
            raise Stopped(stop.name) from error
        raise
    finally:
        stop.close()
        for number, handler in before.items():
            signal.signal(number, handler)
    if stop.requested:
        raise Stopped(stop.name)


def leave_signals_to_the_loop(_: int) -> None:
    """Ignore Ctrl-C in a worker: it goes to the whole terminal, and the loop ends its workers itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
