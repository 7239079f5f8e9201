"""Ctrl-C and SIGTERM end a run in order: what is there is kept and reported."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn


class Stopped(KeyboardInterrupt):
    """The user, or whoever manages this process, has asked it to stop."""


@contextmanager
def stoppable() -> Iterator[None]:
    """While the block lasts the first SIGINT or SIGTERM raises `Stopped` in it; a second acts as ever.

    Ctrl-C reaches the workers as well, so that their end may show first, as an error: that is `Stopped` too.
    Outside the main thread, where Python takes no signals, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {}
    caught: list[int] = []

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)
        before.clear()

    def stop(number: int, _: FrameType | None) -> NoReturn:
        caught.append(number)
        restore()
        raise Stopped(signal.Signals(number).name)

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, stop)
    try:
        yield
    except Exception as error:
        if caught:
            raise Stopped(signal.Signals(caught[0]).name) from error
        raise
    finally:
        restore()
