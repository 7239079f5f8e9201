"""An emulated storage device: a cost model whose timeline all processes of a run share.

Each read reserves its service time on the device (`devices.StorageModel` over shared memory, guarded by an
flock that the kernel drops when its holder dies), reads the real bytes from a warm file meanwhile, and sleeps
until its turn has ended.

A sleep always ends late. So that this does not slow the device down, the next request of the same thread
arrives as much earlier as its last one completed too late. The credit is bounded: a thread that was late
because it found no core was really late, and above about 10,000 requests a second Python itself is the limit.
Time that the bound cuts off for a reason other than the lack of a core is counted and recorded.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from contextlib import suppress
from typing import Any, Final, NamedTuple

from pipeprof.devices import Request, StorageModel
from pipeprof.measure.probe.counting.counters import RunQueue
from pipeprof.measure.storage.shared_cells import SharedCells
from pipeprof.record.meta import EmulatorMeta
from pipeprof.units import NS_PER_S

CREDIT_NS: Final = 1_000_000
"""Largest amount by which a late completion shifts the next arrival back."""
LIMITED_SHARE: Final = 0.02
"""Share of lost time above which the emulator, not its model, set the pace."""
_REQUESTS, _SERVED_NS, _LOST_NS, _COUNTERS = 0, 1, 2, 3
_PR_SET_TIMERSLACK: Final = 29


class MonotonicClock:
    """The real clock. Tests use one whose sleep advances a number."""

    def now_ns(self) -> int:
        """Return `CLOCK_MONOTONIC` in nanoseconds."""
        return time.monotonic_ns()

    def sleep_until(self, end_ns: int) -> bool:
        """Return at `end_ns` or a little later. False if that time had passed already."""
        _lower_timer_slack()
        remaining = end_ns - time.monotonic_ns()
        if remaining > 0:
            time.sleep(remaining / NS_PER_S)
        return remaining > 0


_thread = threading.local()


def _lower_timer_slack() -> None:
    """Ask the kernel for sleeps that end within 1 ns instead of 50 µs, once a thread; Linux only."""
    if getattr(_thread, "slack_pid", None) == os.getpid():
        return
    _thread.slack_pid = os.getpid()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(1), 0, 0, 0)


def _queued_ns() -> int:
    """Return how long this thread has been runnable without a core; 0 if that is not observed."""
    if not hasattr(_thread, "run_queue"):
        _thread.run_queue = RunQueue()
    queue: RunQueue = _thread.run_queue
    return max(0, queue.read())


class Turn(NamedTuple):
    """A reservation on the device's timeline."""

    arrival_ns: int
    begin_ns: int
    end_ns: int

    @property
    def queue_ns(self) -> int:
        """Return the time that the request waits behind others."""
        return self.begin_ns - self.arrival_ns


class EmulatedDevice:
    """The timeline of one device. Fork or pickle it to share it: all copies queue behind each other."""

    def __init__(self, model: StorageModel, clock: MonotonicClock | None = None) -> None:
        self.model = model
        self._clock = clock or MonotonicClock()
        self.shared = SharedCells(model.state_size + _COUNTERS, "pipeprof-storage")
        self._counts_at = model.state_size
        self._late = threading.local()
        self._closed: EmulatorMeta | None = None
        for index, value in enumerate(model.new_state()):
            self.shared.cells[index] = value

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_late"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _late=threading.local())

    def now_ns(self) -> int:
        """Return the time of the device's clock."""
        return self._clock.now_ns()

    def begin(self, request: Request, arrival_ns: int) -> Turn:
        """Reserve the device for `request`, which arrived at `arrival_ns`. Does not wait for the device."""
        arrival = arrival_ns - getattr(self._late, "ns", 0)
        with self.shared.locked():
            service = self.model.serve(self.shared.cells, arrival, request)
            self._count(_REQUESTS, 1)
            self._count(_SERVED_NS, service.end_ns - arrival)
        return Turn(arrival, service.begin_ns, service.end_ns)

    def wait(self, turn: Turn) -> None:
        """Return when the device has served `turn`."""
        self._late.slept = self._clock.sleep_until(turn.end_ns)

    def completed(self, turn: Turn) -> None:
        """Note that the reader continues now: its delay since the end of `turn` is not the device's.

        It is called last, so that the cost of recording the read is excluded too.
        """
        late = max(0, self._clock.now_ns() - turn.end_ns)
        self._late.ns = min(late, CREDIT_NS)
        short = turn.end_ns - turn.begin_ns < CREDIT_NS
        if late > CREDIT_NS and short and not self._late.slept:
            # Without the lock: a count lost to a race once in a while changes no verdict.
            self._count(_LOST_NS, max(0, late - CREDIT_NS - self._without_core_ns()))

    def _count(self, counter: int, amount: int) -> None:
        self.shared.cells[self._counts_at + counter] += amount

    def _without_core_ns(self) -> int:
        """Return how long this thread found no core since the last call, which delays a real reader too."""
        before, now = getattr(self._late, "queued_ns", 0), _queued_ns()
        self._late.queued_ns = now
        return max(0, now - before)

    def facts(self) -> EmulatorMeta:
        """Return what all processes have received from the device so far; after `close`, up to then."""
        if self._closed is not None:
            return self._closed
        requests, served, lost = self.shared.cells[self._counts_at : self._counts_at + _COUNTERS]
        return EmulatorMeta(
            requests=requests,
            served_ns=served,
            lost_ns=lost,
            limited_by_emulator=lost > LIMITED_SHARE * (served + lost),
        )

    def close(self) -> None:
        """Release the shared memory of this process."""
        self._closed = self.facts()
        self.shared.close()
