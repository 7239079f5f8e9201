"""Samples the main thread of a process while it computes, by the kernel's timer of CPU time (SIGPROF).

A thread that samples another needs the GIL, and a thread that computes in Python gives it up where it waits:
such samples fall on the waits, and none on short pieces of work between them. The handler of a signal runs in
the main thread itself, at its next bytecode, wherever that is. Its samples stand for the time of waiting for
a core too, which passes wherever the thread computes. The timer runs on CPU time alone, so that a process
that only sleeps or waits is not interrupted; calls that the kernel can restart are restarted.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from time import thread_time_ns
from types import CodeType, FrameType
from typing import Any, Final

from pipeprof.measure.probe.patches import patch, release
from pipeprof.measure.probe.sampling.call_tree import CallTree

EVERY_S: Final = 0.02
"""CPU time of the process between two samples."""
_HOLDER: Final = "cpu samples"
_EXEC: Final = ("execv", "execve")
"""Functions that put another program in this one's place; the timer would go on, and its signal end that."""


class CpuSampler:
    """Samples the main thread into a `CallTree`, by its own CPU time, until it is stopped."""

    def __init__(self, stage: Callable[[], str | None], tree: CallTree) -> None:
        self.tree = tree
        self.own_cpu_ns = 0
        """CPU time that the samples have cost."""
        self._stage = stage
        self._cpu_ns = self._queued_ns = 0
        self._running = False

    def start(self) -> bool:
        """Begin to sample. False if that cannot be: another thread, another user of signal or timer."""
        if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
            return False
        try:
            if signal.getsignal(signal.SIGPROF) != signal.SIG_DFL or any(
                signal.getitimer(signal.ITIMER_PROF)
            ):
                return False
            signal.signal(signal.SIGPROF, self._sample)
            signal.siginterrupt(signal.SIGPROF, False)
        except (ValueError, OSError):
            return False
        self._running, self._cpu_ns = True, thread_time_ns()
        _samplers.append(self)
        for name in _EXEC:
            patch(_HOLDER, os, name, _pausing)
        patch(_HOLDER, signal, "signal", _yielding(signal.SIGPROF))
        patch(_HOLDER, signal, "setitimer", _yielding(signal.ITIMER_PROF))
        _set_timer(EVERY_S)
        return True

    def is_running(self) -> bool:
        """Return whether it samples: not if a user's own signal or timer has taken its place."""
        return self._running

    def queued(self, ns: int) -> None:
        """Take time in which the main thread waited for a core: the next sample stands for it too."""
        self._queued_ns += ns

    def stop(self) -> None:
        """Stop sampling. The handler stays if a thread other than the main one asks: it does nothing."""
        if self._running:
            self._running = False
            _set_timer(0)
            _samplers.remove(self)
            if not _samplers:
                release(_HOLDER)
        self._stage = _nowhere  # what made it has it, and it would keep that
        if threading.current_thread() is threading.main_thread():
            try:
                self._take_last()
            finally:
                self._withdraw()

    def _take_last(self) -> None:
        """Let a signal that has come and was not yet handled go to our handler, which no longer does
        anything.

        Python reports one that reaches no handler, with a traceback. Such a signal waits if this runs in
        another signal's handler, as of one that ends the program; a further one makes Python look for both.
        What handlers of the user's raise there is the user's.
        """
        is_ours = False
        with suppress(AttributeError, ValueError, OSError):
            is_ours = signal.getsignal(signal.SIGPROF) == self._sample
        if is_ours:
            signal.raise_signal(signal.SIGPROF)

    def _withdraw(self) -> None:
        """Put the default handler back, if ours is in place."""
        with suppress(AttributeError, ValueError, OSError):
            if signal.getsignal(signal.SIGPROF) == self._sample:
                # A signal that is on its way to another thread would end the process: ignoring drops it.
                signal.signal(signal.SIGPROF, signal.SIG_IGN)
                signal.signal(signal.SIGPROF, signal.SIG_DFL)

    def forked(self) -> None:
        """Leave nothing of ours in a forked child, which has the handler and not the timer."""
        self._running = False
        self._withdraw()

    def _sample(self, number: int, frame: FrameType | None) -> None:
        if not self._running:
            return
        now_ns = thread_time_ns()
        used_ns, self._cpu_ns = now_ns - self._cpu_ns, now_ns
        queued_ns, self._queued_ns = self._queued_ns, 0
        stage = self._stage()
        if stage is not None and used_ns > 0:
            self.tree.add(frame, stage, used_ns + queued_ns, used_ns)
        self.own_cpu_ns += thread_time_ns() - now_ns


def _nowhere() -> None:
    """Name no stage."""


_samplers: Final[list[CpuSampler]] = []
"""Those that run in this process: one, as a process has one timer of CPU time."""


def _set_timer(every_s: float) -> None:
    with suppress(ValueError, OSError):
        _setitimer(signal.ITIMER_PROF, every_s, every_s)


_setitimer: Final[Callable[..., Any]] = getattr(signal, "setitimer", lambda *arguments: None)


def _yielding(what: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a wrapper that gives way to a user who wants the signal or the timer for other programs."""

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if arguments and arguments[0] == what:
                for sampler in list(_samplers):
                    sampler.stop()
            return original(*arguments, **options)

        return call

    return wrap


def _pausing(original: Callable[..., Any]) -> Callable[..., Any]:
    """Stop the timer before another program takes this one's place; go on if it could not."""

    def call(*arguments: Any, **options: Any) -> Any:
        _set_timer(0)
        try:
            return original(*arguments, **options)
        finally:
            if _samplers:
                _set_timer(EVERY_S)

    return call


def _forked() -> None:
    while _samplers:
        _samplers.pop().forked()
    release(_HOLDER)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def make_tree(is_edge: Callable[[CodeType], bool], is_ours: Callable[[CodeType], bool]) -> CallTree:
    """Return the tree of a `CpuSampler`: its numbers are apart from those of a `LineSampler`'s."""
    return CallTree(is_edge, is_ours, first_number=1_000_000)
