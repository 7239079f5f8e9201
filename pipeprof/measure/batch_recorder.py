"""Records the batches that one worker makes, one at a time, and sends them through its slot of the ring."""

from __future__ import annotations

from time import monotonic_ns
from typing import Final

from pipeprof.measure.counters import BLOCK_BYTES, UNSEEN, Counters, difference, read_counters
from pipeprof.measure.recorder import GETITEM, NOWHERE, Sink, Span, activate
from pipeprof.measure.ring import Kind, Slot

COUNTERS_EVERY: Final = 32
"""One batch in so many has CPU time and run-queue delay for each of its stages (4 µs a span)."""
SPANS_EVERY: Final = 128
"""One batch in so many keeps its single spans."""
DETAILED_FIRST: Final = 1
"""Not the first batch of a worker, which pays for imports and cold caches, but the one after it."""
TINY_NS: Final = 20_000
"""Where samples take less on average, the slowest of a batch is not looked for: a clock reading a sample
would cost more than it tells. Its batch shows a slow one."""


class BatchRecorder(Sink):
    """The sink of a thread that makes batches, from the start of each to its finish."""

    def __init__(self, slot: Slot, every_sample: bool = False, in_shards: bool = False) -> None:
        super().__init__()
        self.open = False
        """Whether a batch is being made."""
        self.keeping = False
        """Whether the spans of this batch are kept."""
        self.key = (0, 0)
        self.samples = 0
        self.start_ns = 0
        self.sample = self.slowest_index = self.slowest_ns = UNSEEN
        self.getitem_ns = self.collate_ns = UNSEEN
        """Of a plain batch; in others they are stages like any."""
        self.tiny_samples = False
        """Whether the samples of the last batch took next to no time."""
        self._slot, self._every_sample, self._in_shards = slot, every_sample, in_shards
        self._before: Sink | None = None
        self._dispatch_ns = UNSEEN
        self._made = self._samples = 0

    def begin(self, epoch: int, seq: int, dispatch_ns: int) -> None:
        """The worker turns to a batch. One that is still open has failed."""
        if self.open:
            self.fail()
        self.open = True
        self.key, self._dispatch_ns = (epoch, seq), dispatch_ns
        self.inner_ns = 0
        self.sample = self.slowest_index = self.slowest_ns = self.getitem_ns = self.collate_ns = UNSEEN
        self.plain = self._made % COUNTERS_EVERY != DETAILED_FIRST and not self._every_sample
        if not self.plain:
            self._look_closely()
        self._slot.busy(True)
        self._before = activate(self)
        self.counters = read_counters(self.run_queue)
        self.start_ns = monotonic_ns()

    def _look_closely(self) -> None:
        self.inner_cpu_ns = self.inner_runq_ns = 0
        self.counting = self._made % COUNTERS_EVERY == DETAILED_FIRST
        self.keeping = self._every_sample or self._made % SPANS_EVERY == DETAILED_FIRST

    def fetched(self, samples: int) -> None:
        """The samples of a map-style set are there: what is in no known stage was spent in `__getitem__`."""
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
        """Write a single span, where this batch's are kept."""
        if not self.keeping or not self.open:
            return
        slot, (epoch, seq) = self._slot, self.key
        size = UNSEEN if span.bytes is None else span.bytes
        slot.put(Kind.SPAN, 0, slot.name_id(span.name), epoch, seq,
                 span.start_ns, wall_ns, cpu_ns, size, self.sample, 0)  # fmt: skip

    def _counted_outside_spans(self) -> tuple[int, int]:
        """CPU time and run-queue delay since the batch's start that are in no span."""
        cpu_now, runq_now, *_ = read_counters(self.run_queue)
        cpu_then, runq_then, *_ = self.counters
        runq = difference(runq_now, runq_then)
        cpu = max(0, cpu_now - cpu_then - self.inner_cpu_ns)
        return cpu, UNSEEN if runq == UNSEEN else max(0, runq - self.inner_runq_ns)

    def finish(self, size_bytes: int, finish_ns: int | None = None) -> None:
        """The batch was collated, now or at `finish_ns`: write it out."""
        self._write(self.samples, monotonic_ns() if finish_ns is None else finish_ns, size_bytes)
        self._close()
        self._slot.finished(self.key[0])

    def fail(self) -> None:
        """The batch raised: what is known of it is written, without a finish."""
        if not self.open:
            return
        if self.getitem_ns != UNSEEN:  # its count would be the batch's, which has none
            totals = self.total(GETITEM)
            totals.wall_ns, totals.count, self.getitem_ns = self.getitem_ns, self.samples, UNSEEN
        self._write(0, UNSEEN, UNSEEN)
        self._close()
        self._slot.busy(False)

    def exhausted(self) -> None:
        """An iterable set has no further sample. A batch that has none yet is none; one that has some may be
        collated still, or is dropped for being too small."""
        totals = self.total(GETITEM)
        totals.count -= 1  # of the call that gave no sample
        if totals.count == 0:
            self.abandon()
        else:
            self._slot.busy(False)

    def abandon(self) -> None:
        """There was no batch to make: forget it."""
        if self.open:
            self._made -= 1
            self._close()
            self._slot.busy(False)

    def _close(self) -> None:
        self.open = False
        self.current = NOWHERE
        activate(self._before)
        self._before = None
        self._made += 1
        if not self.plain:
            self.counting = self.keeping = False
        if self.totals:
            self.totals.clear()

    def _write(self, samples: int, finish_ns: int, size_bytes: int) -> None:
        after = read_counters(self.run_queue)
        if self.totals:
            self._write_stages()
        self._write_batch(after, self.counters, samples, finish_ns, size_bytes)

    def _write_stages(self) -> None:
        slot, (epoch, seq) = self._slot, self.key
        for name, t in self.totals.items():
            slot.put(Kind.STAGE, 0, slot.name_id(name), epoch, seq,
                     t.wall_ns, t.cpu_ns, t.runq_ns, t.queue_ns, t.bytes, t.count)  # fmt: skip

    def _write_batch(
        self, after: Counters, before: Counters, samples: int, finish_ns: int, size_bytes: int
    ) -> None:
        epoch, seq = self.key
        cpu_then, runq_then, blocks_then, process_then, faults_then = before
        cpu_now, runq_now, blocks_now, process_now, faults_now = after
        cpu = cpu_now - cpu_then
        device = helpers = faults = runq = UNSEEN
        if blocks_now != UNSEEN:
            helpers = max(0, process_now - process_then - cpu)
        # A kernel without schedstat need not be Linux: gVisor's always tells of no block and no fault.
        if UNSEEN not in (runq_now, runq_then):
            runq = runq_now - runq_then
            faults = faults_now - faults_then
            if not self.storage_unseen:
                device = (blocks_now - blocks_then) * BLOCK_BYTES
        words = (self._dispatch_ns, self.start_ns, finish_ns, cpu, runq,
                 device, helpers, faults, size_bytes, self.slowest_index, self.slowest_ns,
                 self.getitem_ns, self.collate_ns)  # fmt: skip
        self._samples += samples
        self._slot.put_batch(epoch, seq, words, samples, self._shard())

    def _shard(self) -> int:
        """Number of the file that was read from last, where files hold more than one sample each."""
        if self.file is None or not self._in_shards or self.files >= self._samples:
            return 0
        return self._slot.shard_id(self.file)
