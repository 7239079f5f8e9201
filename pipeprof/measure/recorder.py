"""Spans inside a worker or the training loop: a clock and a buffer, nothing else.

The thread that makes a batch has an active `Recorder` from the batch's start to its finish; `stage`, `span`
and `storage_read` add to it, and do next to nothing where there is none. Totals go out once a batch, through
the worker's slot of the ring.
"""

from __future__ import annotations

import threading
from time import monotonic_ns, thread_time_ns
from types import TracebackType
from typing import Final, Protocol

from pipeprof.measure.counters import UNSEEN, Counters, RunQueue, read_counters
from pipeprof.measure.ring import Kind, Slot

GETITEM: Final = "getitem"
COLLATE: Final = "collate"
DECODE: Final = "decode"
READ: Final = "read"

COUNTERS_EVERY: Final = 16
"""One batch in so many has CPU time and run-queue delay for each of its stages (1.3 and 3 µs a span)."""
SPANS_EVERY: Final = 128
"""One batch in so many, and each worker's first, keeps its single spans."""


class _Local(threading.local):
    recorder: Sink | None = None


_local = _Local()


class Sink(Protocol):
    """What a span adds itself to."""

    inner_ns: int
    detailed: bool

    def add(self, span: Span, wall_ns: int, cpu_ns: int, runq_ns: int) -> None:
        """Take a span that has ended. `wall_ns` is its own, without inner spans."""
        ...


class Span:
    """One piece of work in a stage; its inner spans are taken out of its time."""

    __slots__ = ("_outer_ns", "_sink", "bytes", "name", "queue_ns", "start_ns")

    def __init__(self, sink: Sink, name: str) -> None:
        self._sink = sink
        self.name = name
        self.bytes: int | None = None
        self.queue_ns: int | None = None

    def __enter__(self) -> Span:
        sink = self._sink
        self._outer_ns = sink.inner_ns
        sink.inner_ns = 0
        self.start_ns = monotonic_ns()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        whole = monotonic_ns() - self.start_ns
        sink = self._sink
        own = whole - sink.inner_ns
        sink.inner_ns = self._outer_ns + whole
        sink.add(self, own, UNSEEN, UNSEEN)


class _Nothing:
    """Stands in for a span where nobody listens."""

    __slots__ = ("bytes", "queue_ns")

    def __enter__(self) -> _Nothing:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


_NOTHING: Final = _Nothing()
AnySpan = Span | _Nothing


def span(owner: str) -> AnySpan:
    """Charge what happens inside to `owner` (`decode`, `transform:<Name>`, `collate`, ...)."""
    sink = _local.recorder
    return _NOTHING if sink is None else Span(sink, owner)


def stage(name: str) -> AnySpan:
    """Charge what happens inside to the user's own stage `name`; recorded as `stage:<name>`.

    Use it as a context manager inside `__getitem__`, a collate function or the training loop. Where nothing
    is being profiled it costs next to nothing.
    """
    sink = _local.recorder
    return _NOTHING if sink is None else Span(sink, f"stage:{name}")


def storage_read() -> AnySpan:
    """Charge one physical read to stage `read`; set `bytes` and, where it is known, `queue_ns` on it."""
    sink = _local.recorder
    return _NOTHING if sink is None else Span(sink, READ)


def activate(sink: Sink | None) -> Sink | None:
    """Make `sink` this thread's recorder; returns the one it takes the place of."""
    before = _local.recorder
    _local.recorder = sink
    return before


class Totals:
    """What one stage took in one batch. `UNSEEN` is not observed."""

    __slots__ = ("bytes", "count", "cpu_ns", "queue_ns", "runq_ns", "wall_ns")

    def __init__(self) -> None:
        self.wall_ns = self.count = 0
        self.cpu_ns = self.runq_ns = self.queue_ns = self.bytes = UNSEEN

    def add(self, span: Span, wall_ns: int, cpu_ns: int, runq_ns: int) -> None:
        """Add one span."""
        self.wall_ns += wall_ns
        self.count += 1
        if span.bytes is not None:
            self.bytes = max(self.bytes, 0) + span.bytes
        if span.queue_ns is not None:
            self.queue_ns = max(self.queue_ns, 0) + span.queue_ns
        if cpu_ns != UNSEEN:
            self.cpu_ns = max(self.cpu_ns, 0) + cpu_ns
        if runq_ns != UNSEEN:
            self.runq_ns = max(self.runq_ns, 0) + runq_ns


class Recorder:
    """Records the batches that one worker makes, one at a time."""

    def __init__(self, slot: Slot, every_sample: bool = False) -> None:
        self.inner_ns = 0
        self.detailed = False
        self._slot = slot
        self._every_sample = every_sample
        self._run_queue = RunQueue()
        self._totals: dict[str, Totals] = {}
        self._before: Sink | None = None
        self._open = False
        self._made = 0
        self.key = (0, 0)

    @property
    def open(self) -> bool:
        """Whether a batch is being made."""
        return self._open

    def begin(self, epoch: int, seq: int, dispatch_ns: int) -> None:
        """A batch is started; one that was still open has failed."""
        if self._open:
            self.finish(0, None)
        self._open = True
        self.key = (epoch, seq)
        self._dispatch_ns = dispatch_ns
        self.inner_ns = 0
        self.slowest_index = self.slowest_ns = UNSEEN
        self._before = activate(self)
        self._counters = read_counters(self._run_queue)
        self.start_ns = monotonic_ns()

    def add(self, span: Span, wall_ns: int, cpu_ns: int, runq_ns: int) -> None:
        """Take a span that has ended."""
        totals = self._totals.get(span.name)
        if totals is None:
            totals = self._totals[span.name] = Totals()
        totals.add(span, wall_ns, cpu_ns, runq_ns)

    def add_total(self, name: str, wall_ns: int, count: int) -> None:
        """Add what was timed without a span."""
        totals = self._totals.get(name)
        if totals is None:
            totals = self._totals[name] = Totals()
        totals.wall_ns += wall_ns
        totals.count += count

    def finish(self, samples: int, finish_ns: int | None, size_bytes: int = UNSEEN) -> None:
        """The batch was collated, or has failed where `finish_ns` is None: write it out."""
        end = monotonic_ns() if finish_ns is None else finish_ns
        after, before = read_counters(self._run_queue), self._counters
        self._open = False
        activate(self._before)
        self._before = None
        self._write(after, before, samples, UNSEEN if finish_ns is None else end, size_bytes)
        self._totals.clear()
        self._made += 1

    def _write(
        self, after: Counters, before: Counters, samples: int, finish_ns: int, size_bytes: int
    ) -> None:
        put, (epoch, seq) = self._slot.put, self.key
        cpu = after.cpu_ns - before.cpu_ns
        runq = UNSEEN if after.runq_ns == UNSEEN else after.runq_ns - before.runq_ns
        blocks = helpers = faults = UNSEEN
        if after.device_blocks != UNSEEN:
            blocks = (after.device_blocks - before.device_blocks) * 512
            helpers = max(0, after.process_cpu_ns - before.process_cpu_ns - cpu)
            faults = after.major_faults - before.major_faults
        for name, t in self._totals.items():
            put(Kind.STAGE, 0, self._slot.name_id(name), epoch, seq,
                t.wall_ns, t.cpu_ns, t.runq_ns, t.queue_ns, t.bytes, t.count)  # fmt: skip
        put(Kind.COUNTERS, 0, 0, epoch, seq,
            blocks, helpers, size_bytes, self.slowest_index, self.slowest_ns, max(faults, 0))  # fmt: skip
        put(Kind.BATCH, 0, 0, epoch, seq, self._dispatch_ns, self.start_ns, finish_ns, cpu, runq, samples)
        if finish_ns != UNSEEN:
            self._slot.finished(epoch)


def cpu_now_ns() -> int:
    """CPU time of the calling thread."""
    return thread_time_ns()
