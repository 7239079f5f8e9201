"""pipeprof's own cost on this machine, measured at the start of each run."""

from __future__ import annotations

import functools
from multiprocessing.reduction import ForkingPickler
from time import perf_counter_ns

from pipeprof.measure.probe import handover
from pipeprof.measure.probe.batch import COUNTERS_EVERY, BatchRecorder
from pipeprof.measure.probe.ring import Ring, Slot
from pipeprof.measure.probe.spans import span
from pipeprof.record.meta import OverheadMeta

_SPANS, _BATCHES, _ROUNDS = 200, 50, 5
_INBOX = 0
"""Number of no iterator."""


@functools.cache
def own_cost() -> OverheadMeta:
    """Measure what a span costs as most batches have it, and a batch's record in the process that makes it.

    The best of a few rounds, because what comes on top of it is other programs'.
    The main process's part is measured during the run: `flush_ns`, CPU time a step to write the records.
    """
    ring = Ring(1, _BATCHES * 4 * _ROUNDS)
    recorder = BatchRecorder(Slot(ring.block, 0, ring.records, 0))
    recorder.begin(0, 0, 0)
    recorder.finish(0)
    costs = OverheadMeta(
        span_ns=min(_spans(recorder) for _ in range(_ROUNDS)),
        batch_ns=min(_batches(recorder) for _ in range(_ROUNDS)),
        handover_ns=_handover(),
        counters_every=COUNTERS_EVERY,
    )
    del recorder  # its slot is a view of the ring, which could not be unmapped
    ring.close()
    return costs


def _spans(recorder: BatchRecorder) -> float:
    recorder.begin(0, 0, 0)
    recorder.plain, recorder.counting, recorder.keeping = True, False, False
    before = perf_counter_ns()
    for _ in range(_SPANS):
        with span("read"):
            pass
    took = perf_counter_ns() - before
    recorder.abandon()
    return took / _SPANS


def _batches(recorder: BatchRecorder) -> float:
    before = perf_counter_ns()
    for seq in range(_BATCHES):
        recorder.begin(0, seq, 0)
        recorder.finish(0)
    return (perf_counter_ns() - before) / _BATCHES


def _handover() -> float:
    """Return how much longer it takes to pickle and unpickle an empty batch with the times of its way."""
    handover.open_inbox(_INBOX)
    plain, timed = (min(_handovers(timed) for _ in range(_ROUNDS)) for timed in (False, True))
    handover.close_inbox(_INBOX)
    handover.forget_sending()
    return max(0.0, timed - plain)


def _handovers(timed: bool) -> float:
    before = perf_counter_ns()
    for seq in range(_BATCHES):
        batch: object = handover.Handed(_INBOX, (0, seq), None) if timed else None
        ForkingPickler.loads(ForkingPickler.dumps(batch))
    return (perf_counter_ns() - before) / _BATCHES
