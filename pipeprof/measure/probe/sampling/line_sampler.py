"""Samples the Python stack of one thread some fifty times a second, from a separate thread.

The sampling thread needs the GIL. If native code holds it, the sample comes late, and finds the sampled
thread still on the line that made the call: it then stands for all the time since the last sample, so that a
call of 60 ms counts as 60 ms and not as one sample. Time on the CPU is left to a `CpuSampler` if there is
one: a thread that computes in Python is seen from another thread only where it lets go of the GIL. So is the
time that it waits for a core, holding the GIL: that passes wherever it computes. The sampling thread keeps
account of its own CPU time.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from time import monotonic_ns, thread_time_ns
from types import CodeType
from typing import Final

from pipeprof.measure.probe.sampling.call_tree import CallTree
from pipeprof.measure.probe.sampling.lock_state import LockState
from pipeprof.measure.probe.sampling.lock_watch import LockWatch

HZ: Final = 50
"""Samples a second, at most."""
BUDGET: Final = 0.002
"""Share of one core that a sampling thread may take; it samples more seldom if one look costs more."""
MOST_NS: Final = 1_000_000_000
"""The most that one sample stands for: beyond it the process was stopped, or the machine asleep."""
FLUSH_NS: Final = 1_000_000_000
EARLY_NS: Final = FLUSH_NS // 8
"""Time to the second flush; it doubles until it is `FLUSH_NS`. A worker may end soon, or be left soon by who
has attached to it, and what was not sent by then is lost."""
SHORT_NS: Final = 2_000_000
"""Time off the CPU below which a look at the stack is deferred, if time on the CPU is sampled in another way.
A thread that computes is off it for fractions of a millisecond; a stack costs more than these are worth."""


class LineSampler:
    """Samples one thread into a `CallTree` until it is stopped.

    `stage()` names what the thread does now, or is None while nothing is to be counted. `flush()` is called
    from the sampling thread about once a second, more often at first, and once at the end.
    """

    def __init__(
        self,
        thread: int,
        stage: Callable[[], str | None],
        flush: Callable[[CallTree], None],
        is_edge: Callable[[CodeType], bool],
        hz: float = HZ,
        cpu_is_sampled: Callable[[], bool] = lambda: False,
        queued: Callable[[int], None] = lambda ns: None,
        lock: LockWatch | None = None,
        is_asked: Callable[[], bool] = lambda: False,
    ) -> None:
        """Make the sampler. While `cpu_is_sampled()`, samples stand for the time off the CPU alone, without
        that of waiting for a core, which `queued(ns)` is told.

        With `lock` it looks for waits for the GIL too, within the same budget. When `is_asked()`, it flushes
        after the next look.
        """
        self._lock, self._is_asked = lock, is_asked
        self._cpu_is_sampled, self._queued = cpu_is_sampled, queued
        self.tree = CallTree(is_edge, is_ours)
        self.own_cpu_ns = 0
        self._thread, self._stage, self._flush = thread, stage, flush
        self._period_s = self._least_s = 1 / hz
        self._looks = 0
        self._stopped = False
        self._clock, self._native = _cpu_clock(thread), _native_id(thread)
        self._kernel = LockState()
        self._last_ns = self._last_cpu_ns = self._last_runq_ns = self._looks_cpu_ns = self._off_ns = 0
        self._running: threading.Thread | None = None

    def start(self) -> None:
        """Begin to sample."""
        self._running = threading.Thread(target=self._run_quietly, name="pipeprof-lines", daemon=True)
        self._running.start()

    def stop(self) -> None:
        """Stop sampling; what was counted is flushed."""
        self._stopped = True
        if self._running is not None and self._running is not threading.current_thread():
            self._running.join(timeout=1)

    def _run_quietly(self) -> None:
        with suppress(Exception):  # lines are not worth a traceback among what the user's program prints
            self._run()
        self._kernel.close()
        self._lock = None
        self._queued = _nothing
        self._cpu_is_sampled = self._is_asked = _never  # what made it has it, and it would keep that
        self._stage = self._flush = _nothing

    def _run(self) -> None:
        self._last_ns = monotonic_ns()
        flushed_ns, wait_ns = self._last_ns, 0  # the first look is sent at once: a worker may not live long
        self._kernel.open()
        self._last_cpu_ns, self._last_runq_ns = self._cpu_ns(), self._runq_ns()
        while not self._stopped:
            time.sleep(self._period_s)  # an Event's timed wait would cost more than the sample
            now_ns, cpu_ns = monotonic_ns(), thread_time_ns()
            self._sample(now_ns)
            if self._lock is not None:
                self._lock.look()
            self._looks_cpu_ns += thread_time_ns() - cpu_ns
            if now_ns - flushed_ns >= wait_ns or self._is_asked():
                flushed_ns, wait_ns = now_ns, min(max(EARLY_NS, 2 * wait_ns), FLUSH_NS)
                if self._lock is not None:
                    self._lock.choose()
                self._flush(self.tree)
                self._keep_to_budget()
        if self._lock is not None:
            self._lock.close()
        self.own_cpu_ns = thread_time_ns()
        self._flush(self.tree)

    def _keep_to_budget(self) -> None:
        """Sample at the rate that `BUDGET` allows, given what a look has cost so far on this machine.

        What is sent with the samples, once a second, does not count: after the first look it would be all,
        and the next would come when the worker has ended.
        """
        self.own_cpu_ns = thread_time_ns()
        self._period_s = max(self._least_s, self._looks_cpu_ns / self._looks / 1e9 / BUDGET)

    def _sample(self, now_ns: int) -> None:
        self._looks += 1
        stage = self._stage()
        cpu_ns = self._cpu_ns()
        wall_ns, used_ns = min(now_ns - self._last_ns, MOST_NS), cpu_ns - self._last_cpu_ns
        runq_ns = self._runq_ns()
        queued_ns = runq_ns - self._last_runq_ns
        self._last_ns, self._last_cpu_ns, self._last_runq_ns = now_ns, cpu_ns, runq_ns
        if stage is not None:
            used_ns = min(used_ns, wall_ns) if cpu_ns >= 0 else -1
            if used_ns >= 0 and self._cpu_is_sampled():
                queued_ns = max(0, min(queued_ns, wall_ns - used_ns))
                self._queued(queued_ns)
                self._off_ns += wall_ns - used_ns - queued_ns
                if self._off_ns < SHORT_NS:
                    return
                wall_ns, used_ns, self._off_ns = self._off_ns, 0, 0
            if wall_ns > 0:
                self.tree.add(sys._current_frames().get(self._thread), stage, wall_ns, used_ns)

    def _cpu_ns(self) -> int:
        """Return the CPU time of the sampled thread; -1 if this system does not report it."""
        if self._clock is None:
            return -1
        try:
            return time.clock_gettime_ns(self._clock)
        except OSError:  # the thread has ended
            self._clock = None
            return -1

    def _runq_ns(self) -> int:
        """Return the time that the sampled thread has waited for a core; 0 if that is not known."""
        return 0 if self._native is None else self._kernel.runq_ns(self._native) or 0


def _native_id(thread: int) -> int | None:
    return next((each.native_id for each in threading.enumerate() if each.ident == thread), None)


def _cpu_clock(thread: int) -> int | None:
    try:
        return time.pthread_getcpuclockid(thread)
    except (AttributeError, OSError, OverflowError):
        return None


def is_ours(code: CodeType) -> bool:
    """Return whether code is pipeprof's, which stands between the user's frames and is not theirs."""
    return code.co_filename.startswith(_PACKAGE)


_PACKAGE: Final = __file__.rpartition("measure")[0]


def _never() -> bool:
    return False


def _nothing(*arguments: object) -> None:
    """Do nothing."""
