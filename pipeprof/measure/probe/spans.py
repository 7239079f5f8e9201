"""Spans inside a worker or the training loop: a clock and a buffer, nothing else.

A thread that makes a batch, or runs the loop, has an active `Sink`; `stage`, `span` and `storage_read` add to
it, and do next to nothing if there is none. Who drains a sink, and when, is not known here.
"""

from __future__ import annotations

import os
import threading
from time import monotonic_ns, thread_time_ns
from types import TracebackType
from typing import Final

from pipeprof.measure.probe.counting.counters import RunQueue, difference
from pipeprof.record.schema import MISSING
from pipeprof.vocabulary import owners

READ: Final = owners.READ
DECODE: Final = owners.DECODE.name
GETITEM: Final = owners.UNNAMED
COLLATE: Final = owners.COLLATE.name
_STAGES: Final = owners.STAGE.called("")
"""Begins the names of users' own stages; kept here, since `stage` is used in inner loops."""

_MOST_NESTED: Final = 100
"""Spans that are looked through: one that is entered again inside itself closes the chain to a ring."""


class Totals:
    """Time, count and bytes of one stage in one batch or step. `MISSING` is not observed."""

    __slots__ = ("bytes", "count", "cpu_ns", "queue_ns", "runq_ns", "wall_ns")

    def __init__(self) -> None:
        self.wall_ns = self.count = 0
        self.cpu_ns = self.runq_ns = self.queue_ns = self.bytes = MISSING

    def add_counters(self, cpu_ns: int, runq_ns: int) -> None:
        """Add what was observed of CPU time and run-queue delay."""
        if cpu_ns != MISSING:
            self.cpu_ns = max(self.cpu_ns, 0) + cpu_ns
        if runq_ns != MISSING:
            self.runq_ns = max(self.runq_ns, 0) + runq_ns


class Mark:
    """A piece of work that is going on in a sink: a span, or what represents one if its cost counts."""

    __slots__ = ("name", "outer")

    def __init__(self, name: str, outer: Mark | None = None) -> None:
        self.name = name
        self.outer = outer or self
        """Mark of the work during which it began; `NOWHERE` if that is not known."""


NOWHERE: Final = Mark("")
"""In no span."""


class Sink:
    """Adds up the spans of one thread at a time."""

    def __init__(self) -> None:
        self.totals: dict[str, Totals] = {}
        self.current = NOWHERE
        """The innermost open span."""
        self.is_over = False
        """True if what it adds up is no longer taken."""
        self.inner_ns = self.inner_cpu_ns = self.inner_runq_ns = 0
        """Time of the spans that have ended, those inside others counted once. It only grows while a batch
        is made: what it grew by since a span began is what the span's inner ones took."""
        self.plain = True
        """True if spans need only the clock."""
        self.counting = False
        """True if spans read CPU time and run-queue delay too."""
        self.run_queue = RunQueue()
        self.file: str | bytes | None = None
        """The file that was read from last."""
        self.files = 0
        """Number of files that were opened."""
        self.storage_unseen = False
        """True if something was read from where the kernel counts no block device, such as NFS."""

    def total(self, name: str) -> Totals:
        """Return the totals of stage `name`."""
        totals = self.totals.get(name)
        if totals is None:
            totals = self.totals[name] = Totals()
        return totals

    def add(self, name: str, own_ns: int) -> None:
        """Add a span that has ended to its stage's totals."""
        totals = self.totals.get(name) or self.total(name)
        totals.wall_ns += own_ns
        totals.count += 1

    def add_read(self, whole_ns: int, size_bytes: int) -> None:
        """Add a read that has ended, of a plain sink."""
        totals = self.totals.get(READ) or self.total(READ)
        totals.wall_ns += whole_ns
        totals.count += 1
        totals.bytes = max(totals.bytes, 0) + size_bytes
        self.inner_ns += whole_ns

    def keep(self, span: Span, wall_ns: int, cpu_ns: int) -> None:
        """Take a single span, if they are kept."""

    def has_open(self, span: Span) -> bool:
        """Return whether `span` is open still, under spans that never ended.

        One that was held open across a `yield` is not, once what it began in has ended: its time would hold
        what others did in between.
        """
        mark = self.current
        for _ in range(_MOST_NESTED):
            if mark is span or mark is NOWHERE:
                break
            mark = mark.outer
        return mark is span


class Span(Mark):
    """Piece of work in a stage. Inner spans are taken out of its time.

    What few spans set has no slot: it is a default of the class and costs the others nothing.
    """

    __slots__ = ("__dict__", "_inner_ns", "_sink", "start_ns")

    bytes: int | None = None
    """Number of bytes that were read."""
    queue_ns: int | None = None
    """Time that the request queued behind others on the device."""

    def __init__(self, sink: Sink, name: str) -> None:
        self._sink = sink
        self.name = name

    def __enter__(self) -> Span:
        sink = self._sink
        self.outer, self._inner_ns = sink.current, sink.inner_ns
        sink.current = self
        self.start_ns = monotonic_ns()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # `_end`, written out: it is the path of nearly every span
        whole_ns = monotonic_ns() - self.start_ns
        sink = self._sink
        if sink.current is not self and not sink.has_open(self):
            return
        totals = sink.totals.get(self.name) or sink.total(self.name)
        inner_ns = self._inner_ns + whole_ns
        totals.wall_ns += inner_ns - sink.inner_ns
        totals.count += 1
        sink.current, sink.inner_ns = self.outer, inner_ns
        if self.bytes is not None:
            self._add_read(totals)

    def _end(self, sink: Sink, whole_ns: int) -> tuple[Totals, int]:
        inner_ns = self._inner_ns + whole_ns
        own_ns = inner_ns - sink.inner_ns
        sink.current, sink.inner_ns = self.outer, inner_ns
        totals = sink.totals.get(self.name) or sink.total(self.name)
        totals.wall_ns += own_ns
        totals.count += 1
        if self.bytes is not None:
            self._add_read(totals)
        return totals, own_ns

    def _add_read(self, totals: Totals) -> None:
        totals.bytes = max(totals.bytes, 0) + (self.bytes or 0)
        if self.queue_ns is not None:
            totals.queue_ns = max(totals.queue_ns, 0) + self.queue_ns


class DetailedSpan(Span):
    """A span that reads the kernel's counters, or is kept, or both.

    The counters are read outside the clock, so that the wall time stays comparable with plain spans'.
    """

    def __enter__(self) -> Span:
        sink = self._sink
        if sink.counting:
            self._inner_counters = (sink.inner_cpu_ns, sink.inner_runq_ns)
            self._runq_ns, self._cpu_ns = sink.run_queue.read(), thread_time_ns()
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sink = self._sink
        whole_ns = monotonic_ns() - self.start_ns
        if sink.current is not self and not sink.has_open(self):
            return
        totals, own_ns = self._end(sink, whole_ns)
        cpu_ns = MISSING
        if sink.counting:
            cpu_ns = self._count(sink, totals, whole_ns)
        sink.keep(self, own_ns, cpu_ns)

    def _count(self, sink: Sink, totals: Totals, whole_ns: int) -> int:
        whole_cpu_ns = min(thread_time_ns() - self._cpu_ns, whole_ns)
        whole_runq_ns = difference(sink.run_queue.read(), self._runq_ns)
        before_cpu_ns, before_runq_ns = self._inner_counters
        cpu_ns = max(0, whole_cpu_ns - sink.inner_cpu_ns + before_cpu_ns)
        runq_ns = (
            MISSING
            if whole_runq_ns == MISSING
            else max(0, whole_runq_ns - sink.inner_runq_ns + before_runq_ns)
        )
        totals.add_counters(cpu_ns, runq_ns)
        sink.inner_cpu_ns = before_cpu_ns + whole_cpu_ns
        sink.inner_runq_ns = before_runq_ns + max(0, whole_runq_ns)
        return cpu_ns


class NoSpan:
    """Stands in for a span if no one listens."""

    __slots__ = ("bytes", "queue_ns")
    bytes: int | None
    queue_ns: int | None

    def __enter__(self) -> NoSpan:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class _Local(threading.local):
    sink: Sink | None = None


_new: Final = object.__new__
_NO_SPAN: Final = NoSpan()
_local: Final = _Local()


def span(owner: str) -> Span | NoSpan:
    """Charge what happens inside to `owner` (`decode`, `transform:<Name>`, `collate`, ...)."""
    sink = _local.sink
    if sink is None:
        return _NO_SPAN
    if not sink.plain:
        return DetailedSpan(sink, owner)
    plain = _new(Span)  # a call of `__init__` would be a twentieth of all that a span costs
    plain._sink, plain.name = sink, owner
    return plain


def stage(name: str) -> Span | NoSpan:
    """Charge what happens inside to the user's own stage `name`; it is recorded as `stage:<name>`.

    A context manager for code inside `__getitem__`, a collate function or the training loop. If nothing is
    being profiled, it costs next to nothing. One that a generator holds open across a `yield` is not
    recorded: what happens inside stays with the stage around it.
    """
    if _local.sink is None:
        return _NO_SPAN
    return span(_STAGES + name)


def storage_read() -> Span | NoSpan:
    """Charge one physical read to stage `read`; set `bytes` and, if it is known, `queue_ns` on it."""
    return span(READ)


def opened(counted: bool = True) -> None:
    """Note that this thread opened a file to read. `counted`: the kernel counts its device's bytes."""
    if (sink := _local.sink) is not None:
        sink.files += 1
        if not counted:
            sink.storage_unseen = True


def reading(file: str | bytes) -> None:
    """Note that what is read next comes from `file`."""
    if (sink := _local.sink) is not None:
        sink.file = file


def active() -> Sink | None:
    """Return this thread's sink."""
    return _local.sink


def activate(sink: Sink | None) -> Sink | None:
    """Make `sink` this thread's; returns the one it takes the place of."""
    before = _local.sink
    _local.sink = sink
    return before


def reactivate(sink: Sink | None) -> None:
    """Make `sink` this thread's again, unless it is over."""
    _local.sink = None if sink is not None and sink.is_over else sink


# A forked child is another process: what its parent was recording is not its business.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: activate(None) and None)
