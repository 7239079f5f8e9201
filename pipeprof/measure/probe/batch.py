"""Records the batches that one worker makes, one at a time, and sends them through its slot of the ring."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import monotonic_ns, thread_time_ns
from typing import Any, Final

from pipeprof.measure.probe.counting.allocated import AllocationLooks
from pipeprof.measure.probe.counting.counters import (
    BLOCK_BYTES,
    Counters,
    difference,
    read_counters,
    thread_memory,
)
from pipeprof.measure.probe.counting.files_read import OpenedFiles
from pipeprof.measure.probe.counting.gc_watch import WATCH
from pipeprof.measure.probe.counting.losses import Loss, in_making, pack
from pipeprof.measure.probe.ring import Slot
from pipeprof.measure.probe.spans import GETITEM, NOWHERE, Sink, Span, activate, active, reactivate
from pipeprof.measure.probe.unprobed import Blocks
from pipeprof.record.schema import MISSING

COUNTERS_EVERY: Final = 32
"""Interval, in batches, at which CPU time and run-queue delay are read for each stage (7 µs a span).

Of the first `OFTEN_UNTIL` batches; after these it is `SPANS_EVERY`, since they show the proportions.
"""
OFTEN_UNTIL: Final = 256
SPANS_EVERY: Final = 128
"""Interval, in batches, at which single spans are kept."""
DETAILED_FIRST: Final = 1
"""Index of the detailed batch in each interval: not the first, which pays for imports and cold caches."""
TINY_NS: Final = 20_000
"""Mean time of a sample below which the slowest of a batch is not determined: a clock reading a sample would
cost more than it is worth. Its batch shows a slow one."""


LARGE_BYTES: Final = 256 * 1024
"""Size of a batch after which the memory of the next one is checked: fresh pages cost 0.1 ms and more."""


class BatchRecorder(Sink):
    """The sink of a thread that makes batches, from the start of each to its finish."""

    def __init__(self, slot: Slot, every_sample: bool = False, in_shards: bool = False) -> None:
        super().__init__()
        self.open = False
        """True while a batch is being made."""
        self.keeping = False
        """True if the spans of this batch are kept."""
        self.key = (0, 0)
        self.samples = 0
        self.start_ns = 0
        self.sample = self.slowest_index = self.slowest_ns = MISSING
        self.getitem_ns = self.collate_ns = MISSING
        """Times of a plain batch; in others they are stages like any."""
        self.tiny_samples = False
        """True if the samples of the last batch took next to no time."""
        self.after: str | None = None
        """Stage of the finished batch that is under way before it is handed over."""
        self.blocks: Blocks | None = None
        """Decides which batches are made unprobed; None if the loop decides, or none are."""
        self.unprobed = False
        """True while an unprobed batch is being made."""
        self.unprobed_next = False
        """True if the next batch is to be made unprobed."""
        self._large = False
        """True if the last batch was large."""
        self._touched = MISSING
        """Memory that the thread had touched as a batch behind a large one began."""
        self.gave_sample = False
        """True if an iterable set has given a sample of the unprobed batch."""
        self.asked: Any = None
        """What the batch that is being made is made of; None if the loop does not say."""
        self.after_unprobed_ns = 0
        """Time from the finish of the last unprobed batch until it was handed over: its successor's record
        holds it."""
        self._before_unprobed_ns = 0
        self.allocated = AllocationLooks()
        self._has_key = False
        self._slot, self._every_sample, self._in_shards = slot, every_sample, in_shards
        self.shard: str | None = None
        """The shard that the last sample came from, if the library that reads it says so."""
        self.opened_files = OpenedFiles()
        self._before: Sink | None = None
        self._dispatch_ns = MISSING
        self._gc_ns = 0
        self._finish_cpu_ns = MISSING
        """CPU clock of the thread when it had finished the batch before; `MISSING` between unprobed ones."""
        self._made = self._samples = 0

    def begin(self, epoch: int, seq: int, dispatch_ns: int, turned_ns: int | None = None) -> None:
        """Begin a batch. One that is still open has failed. `turned_ns`: when its thread came to it."""
        turned_ns = turned_ns or monotonic_ns()
        if self.open:
            self.fail()
        if self.blocks is not None:
            self.unprobed_next = self.blocks.begin()
        if self.unprobed_next:
            self._begin_unprobed(epoch, seq, dispatch_ns)
            self._before_unprobed_ns = self.start_ns - turned_ns
            return
        self.open = self._has_key = True
        self.key, self._dispatch_ns = (epoch, seq), dispatch_ns
        self.inner_ns = 0
        self.sample = self.slowest_index = self.slowest_ns = self.getitem_ns = self.collate_ns = MISSING
        made = self._made
        every = COUNTERS_EVERY if made < OFTEN_UNTIL else SPANS_EVERY
        self.plain = made % every != DETAILED_FIRST and not self._every_sample
        if not self.plain:
            self._look_closely(every)
        self._slot.making(seq)
        self._before = activate(self)
        self._touched = thread_memory()[0] if self._large else MISSING
        self.counters = read_counters(self.run_queue)
        self._gc_ns = WATCH.total_ns
        self.start_ns = monotonic_ns()

    def _begin_unprobed(self, epoch: int, seq: int, dispatch_ns: int) -> None:
        """Begin a batch of which only the start and the finish are observed."""
        self.open = self._has_key = self.unprobed = True
        self.gave_sample = False
        self.key, self._dispatch_ns = (epoch, seq), dispatch_ns
        self._finish_cpu_ns = MISSING
        self._slot.making(seq)
        self._before = activate(None)
        self.start_ns = monotonic_ns()

    def finish_unprobed(self, samples: int, finish_ns: int) -> None:
        """Write an unprobed batch out; its finish is `MISSING` if it raised."""
        self.open = self.unprobed = False
        reactivate(self._before)
        self._before = None
        blocks = self.blocks
        if blocks is not None and blocks.probes_next:  # whose record has the CPU time since this one
            self._finish_cpu_ns = thread_time_ns()
        self._slot.put_batch(
            0, *self.key, samples=samples, dispatch_ns=self._dispatch_ns, start_ns=self.start_ns,
            finish_ns=finish_ns, unprobed=1,
            thread_cpu_ns=MISSING if blocks is None else blocks.thread_cpu_ns,
            own_ns=self._before_unprobed_ns + self.after_unprobed_ns,
        )  # fmt: skip
        if finish_ns == MISSING:
            self._slot.idle()
            return
        self._slot.finished(self.key[0])

    def _look_closely(self, every: int) -> None:
        self.inner_cpu_ns = self.inner_runq_ns = 0
        self.counting = self._made % every == DETAILED_FIRST
        self.keeping = self._every_sample or self._made % SPANS_EVERY == DETAILED_FIRST

    def fetched(self, samples: int) -> None:
        """Note that a map-style set has given its samples; time in no stage was spent in `__getitem__`."""
        inner_ns = self.inner_ns
        own_ns = max(0, monotonic_ns() - self.start_ns - inner_ns)
        self.samples = samples
        self.tiny_samples = inner_ns + own_ns < TINY_NS * samples
        if self.plain:
            self.getitem_ns = own_ns
            return
        totals = self.total(GETITEM)
        totals.wall_ns += own_ns
        totals.count = samples
        if self.counting:
            totals.add_counters(*self._counted_outside_spans())

    def keep(self, span: Span, wall_ns: int, cpu_ns: int) -> None:
        """Write a single span, if this batch's are kept."""
        if not self.keeping or not self.open:
            return
        slot, (epoch, seq) = self._slot, self.key
        size = MISSING if span.bytes is None else span.bytes
        slot.put_span(slot.name_id(span.name), epoch, seq, sample=self.sample,
                      start_ns=span.start_ns, wall_ns=wall_ns, cpu_ns=cpu_ns, bytes=size)  # fmt: skip

    def _counted_outside_spans(self) -> tuple[int, int]:
        """Return CPU time and run-queue delay since the batch's start that are in no span."""
        cpu_now, runq_now, *_ = read_counters(self.run_queue)
        cpu_then, runq_then, *_ = self.counters
        runq = difference(runq_now, runq_then)
        cpu = max(0, cpu_now - cpu_then - self.inner_cpu_ns)
        return cpu, MISSING if runq == MISSING else max(0, runq - self.inner_runq_ns)

    def finish(self, size_bytes: int, finish_ns: int | None = None) -> None:
        """Write the batch out: it was collated, now or at `finish_ns`."""
        now_ns = monotonic_ns() if finish_ns is None else finish_ns
        self._write(self.samples, now_ns, size_bytes)
        self._close()
        self._slot.finished(self.key[0])
        self.allocated.batch_ended(now_ns)

    @contextmanager
    def afterwards(self, stage: str) -> Iterator[None]:
        """Record, as `stage`, the worker's work on a batch that is finished and not yet handed over."""
        if self.open or not self._has_key:
            yield
            return
        self.after, began_ns, cpu_ns = stage, monotonic_ns(), thread_time_ns()
        try:
            yield
        finally:
            self.after = None
            wall_ns, cpu_ns = monotonic_ns() - began_ns, thread_time_ns() - cpu_ns
            self._slot.put_stage(
                self._slot.name_id(stage), *self.key,
                wall_ns=wall_ns, cpu_ns=cpu_ns, runq_ns=MISSING, queue_ns=MISSING, bytes=MISSING, count=1,
            )  # fmt: skip

    def fail(self, error: BaseException | None = None, stage: str = GETITEM) -> None:
        """Write out the record of a batch that raised `error` in `stage`, without a finish."""
        if not self.open:
            return
        if isinstance(error, Exception):
            with suppress(Exception):  # the error's text is the user's
                self.lose(in_making(self.key, stage, self.asked, error))
        if self.unprobed:
            self.finish_unprobed(MISSING, MISSING)
            return
        if self.getitem_ns != MISSING:  # its count would be the batch's, which has none
            totals = self.total(GETITEM)
            totals.wall_ns, totals.count, self.getitem_ns = self.getitem_ns, self.samples, MISSING
        self._write(MISSING, MISSING, MISSING)
        self._close()
        self._slot.idle()

    def lose(self, loss: Loss) -> None:
        """Tell of a batch that the loop will not get."""
        self._slot.lose(pack(loss))

    def exhausted(self) -> None:
        """Note that an iterable set has no further sample.

        A batch that has none yet is forgotten; one that has some may be collated still, or is dropped
        for being too small.
        """
        if self.unprobed:
            none_yet = not self.gave_sample
        else:
            totals = self.total(GETITEM)
            totals.count -= 1  # of the call that gave no sample
            none_yet = totals.count == 0
        if none_yet:
            self.abandon()
        else:
            self._slot.idle()

    def abandon(self) -> None:
        """Forget the batch: there was none to make."""
        if not self.open:
            return
        if self.unprobed:
            self.open = self.unprobed = False
            reactivate(self._before)
            self._before = None
        else:
            self._made -= 1
            self._close()
        self._slot.idle()

    def _close(self) -> None:
        self.open = False
        self.current = NOWHERE
        reactivate(self._before)
        self._before = None
        self._made += 1
        if not self.plain:
            self.counting = self.keeping = False
        if self.totals:
            self.totals.clear()

    def _write(self, samples: int, finish_ns: int, size_bytes: int) -> None:
        after = read_counters(self.run_queue)
        self._large = size_bytes >= LARGE_BYTES
        if self.totals:
            self._write_stages()
        if self.opened_files.unsent:
            self.opened_files.send(self._slot)
        self._write_batch(after, self.counters, samples, finish_ns, size_bytes)

    def _write_stages(self) -> None:
        slot, (epoch, seq) = self._slot, self.key
        for name, t in self.totals.items():
            slot.put_stage(
                slot.name_id(name), epoch, seq,
                wall_ns=t.wall_ns, cpu_ns=t.cpu_ns, runq_ns=t.runq_ns, queue_ns=t.queue_ns, bytes=t.bytes,
                count=t.count,
            )  # fmt: skip

    def _write_batch(
        self, after: Counters, before: Counters, samples: int, finish_ns: int, size_bytes: int
    ) -> None:
        epoch, seq = self.key
        cpu_then, runq_then, blocks_then, process_then, faults_then = before
        cpu_now, runq_now, blocks_now, process_now, faults_now = after
        cpu = cpu_now - cpu_then
        device = helpers = faults = runq = MISSING
        if blocks_now != MISSING:
            helpers = max(0, process_now - process_then - cpu)
        # A kernel without schedstat need not be Linux: gVisor's never reports a block or a fault.
        if MISSING not in (runq_now, runq_then):
            runq = runq_now - runq_then
            faults = faults_now - faults_then
            if not self.storage_unseen:
                device = (blocks_now - blocks_then) * BLOCK_BYTES
        handover = difference(cpu_then, self._finish_cpu_ns)
        self._finish_cpu_ns = cpu_now
        touched = system_ns = MISSING
        if MISSING not in (runq, self._touched):
            touched, system_ns = thread_memory()
            touched -= self._touched
        if finish_ns != MISSING:
            self._samples += samples
        self._slot.put_batch(
            self._shard(), epoch, seq,
            samples=samples, dispatch_ns=self._dispatch_ns, start_ns=self.start_ns, finish_ns=finish_ns,
            cpu_ns=cpu, handover_cpu_ns=handover, runq_ns=runq, device_bytes=device,
            helper_cpu_ns=helpers, major_faults=faults,
            touched_bytes=touched, system_ns=system_ns,
            bytes=size_bytes, slowest_index=self.slowest_index, slowest_ns=self.slowest_ns,
            getitem_ns=self.getitem_ns, collate_ns=self.collate_ns, gc_ns=WATCH.total_ns - self._gc_ns,
            thread_cpu_ns=MISSING if self.blocks is None else self.blocks.thread_cpu_ns,
        )  # fmt: skip

    def _shard(self) -> int:
        """Return the number of the file that was read last, if files hold more than one sample each."""
        if self.shard is not None:
            return self._slot.shard_id(self.shard)
        if self.file is None or not self._in_shards or self.files >= self._samples:
            return 0
        return self._slot.shard_id(self.file)


def active_batch() -> BatchRecorder | None:
    """Return the recorder of the batch that this thread is making; None if it makes none."""
    sink = active()
    return sink if isinstance(sink, BatchRecorder) else None
