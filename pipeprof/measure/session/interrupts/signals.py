"""Ends the run of a script whose process is ended by a signal that the script has no handler for.

Python's default for SIGTERM and SIGHUP is to die at once, which would lose the last second of the record and
the verdict. `Stops` replaces that default if nothing else does: it closes the run, reports, and then lets the
signal end the process as it would have. No code of the script runs after the signal, and a second signal ends
the process at once. The script cannot see it: `signal.getsignal` and `signal.signal` return SIG_DFL instead.
A process that is inside one native call ends when that call does. A forked child has the default answer.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

ENDING: Final = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if os.name == "posix" and hasattr(signal, name)
)
"""Signals that end a process that does not handle them, and that users and schedulers send to end it."""


class Stops:
    """Handler of `ENDING` until it is withdrawn, if the process has the default one.

    `end` is called with the signal's name, in the main thread, at any point.
    """

    def __init__(self, end: Callable[[str], None]) -> None:
        self._end, self._pid = end, os.getpid()
        self._signal, self._getsignal = signal.signal, signal.getsignal
        self._hidden = self._hiding(self._signal), self._hiding(self._getsignal)
        self._taken: list[int] = []

    def take(self) -> None:
        """Stand in for the default answers. Do nothing outside the main thread, where Python has no
        handlers."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in ENDING:
            if self._getsignal(number) is signal.SIG_DFL:
                self._signal(number, self._answer)
                self._taken.append(number)
        if self._taken:
            _standing.append(self)
            signal.signal, signal.getsignal = self._hidden

    def answered(self) -> list[int]:
        """List the signals that are handled here, which the script has not taken over."""
        return [number for number in self._taken if self._getsignal(number) == self._answer]

    def withdraw(self) -> None:
        """Restore the default handlers that the script has not taken over."""
        for number in self.answered():
            self._signal(number, signal.SIG_DFL)
        self._taken = []
        if self in _standing:
            _standing.remove(self)
            if signal.signal is self._hidden[0]:  # else something has wrapped ours, which does nothing now
                signal.signal = self._signal
            if signal.getsignal is self._hidden[1]:
                signal.getsignal = self._getsignal

    def _hiding(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Return `original`, answering SIG_DFL where it would answer ours."""

        def call(*arguments: Any, **options: Any) -> Any:
            answer = original(*arguments, **options)
            return signal.SIG_DFL if answer == self._answer else answer

        call.__name__, call.__doc__ = original.__name__, original.__doc__
        return call

    def _answer(self, number: int, _: FrameType | None) -> None:
        self.withdraw()  # the next one ends the process at once
        try:
            if (
                os.getpid() == self._pid
            ):  # what has not come through `os.fork` does not know that it is a child
                self._end(signal.Signals(number).name)
        finally:
            os.kill(os.getpid(), number)


_HELD: Final = tuple(getattr(signal, name) for name in ("SIGCHLD", "SIGINT") if hasattr(signal, name))


class HeldSignals:
    """Keeps Ctrl-C, and torch's report of workers that have ended, from interrupting the closing of a run."""

    def __init__(self) -> None:
        self._interrupted = False
        self._before: dict[int, Any] = {}

    def begin(self) -> None:
        """Hold them from now on; what they raise meanwhile too. Nothing outside the main thread."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in _HELD:
            is_held = False
            while not is_held:
                try:
                    is_held = self._hold(number)
                except KeyboardInterrupt:
                    self._interrupted = True
                except RuntimeError:  # a worker that Ctrl-C has ended too
                    continue

    def _hold(self, number: int) -> bool:
        handler = signal.getsignal(number)
        if callable(handler) and handler != self._note:
            self._before[number] = handler
            signal.signal(number, self._note)
        return True

    def end(self) -> bool:
        """Put the handlers back; return True if Ctrl-C came meanwhile."""
        while self._before:
            signal.signal(*self._before.popitem())
        return self._interrupted

    def _note(self, number: int, _: FrameType | None) -> None:
        self._interrupted |= number == signal.SIGINT


_standing: Final[list[Stops]] = []


class _Forking:
    """Holds what `Stops` answers back in the thread that forks, until the child answers by default.

    A child whose handler is Python's, and that is ended before Python has come round in it, would live on:
    `PyOS_AfterFork_Child` clears what its handlers have noted. Under python it has no handler, and ends.
    What the script handles itself is left alone: its handler may raise, which a hook of `os.fork` must not.
    """

    def __init__(self) -> None:
        self._masks: dict[int, set[signal.Signals | int]] = {}
        """By thread: signals that were held back before."""

    def before(self) -> None:
        """Hold them back."""
        answered = [number for stops in _standing for number in stops.answered()]
        if answered:
            self._masks[threading.get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, answered)

    def in_parent(self) -> None:
        """Let them through again; one that has come is answered now."""
        mask = self._masks.pop(threading.get_ident(), None)
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def in_child(self) -> None:
        """Give the child the default handlers, since it has no run to end, and let the signals through."""
        for stops in list(_standing):
            stops.withdraw()
        self.in_parent()
        self._masks.clear()


if hasattr(os, "register_at_fork"):
    _forking = _Forking()
    os.register_at_fork(
        before=_forking.before, after_in_parent=_forking.in_parent, after_in_child=_forking.in_child
    )
