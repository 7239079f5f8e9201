"""Cost of observing a run, in its demands: as the run measured it, with its interval.

A run too short for that has it by a model, which may be wrong by as much as it says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from pipeprof.analyse.resources.own_cost import CostPerBatch, ModelledCost, read_own_cost
from pipeprof.record.meta import OverheadMeta
from pipeprof.record.reader import Run
from pipeprof.simulate.demands.read import Floats, Recorded
from pipeprof.timeline import Bools

IN_WORKER: Final = 9.0
"""Cost of a tiny batch to the worker that makes it, over that of an empty record in a loop (`batch_ns`, 10.3
µs): the proxies around the record, and caches that batches have filled. Pairs of plain and observed loaders
gave 96 µs (`tests.benchmarks.told_cost`, a quiet machine of two virtual cores, 30 November 2026)."""
IN_LOOP: Final = 4.0
"""The same for the loop's thread: 42 µs with two workers; 41 without, its making included."""
OF_WORK: Final = 0.03
"""Part of the CPU time of making a batch that comes to it: counters, spans and samples of a longer one. Of
the same pairs text had 2.2% and JPEGs 3.5%, less what a tiny batch costs."""


@dataclass(frozen=True, slots=True)
class OwnCostOfBatch:
    """Costs of observing a batch and its step, in ns of CPU time; 0 if not known."""

    making_ns: Floats
    """To the thread that made each batch."""
    loop_ns: Floats
    """To the loop's thread with each step; 0 without workers, where it makes the batches."""
    handover_ns: float
    """To a worker's queue thread and to the main process, for the times in a batch's pickle."""
    recording_ns: float
    """To threads that write and sample, a step, except for those in the workers."""
    sampling_ns: float
    """To threads that sample in the workers, a batch."""
    error_ns: float
    """Possible error of the sum of the first two."""
    measured: bool
    """True if the run measured it itself."""

    @property
    def serial_ns(self) -> float:
        """Return the mean cost that a batch and its step bear themselves."""
        return float(self.making_ns.mean() + self.loop_ns.mean()) + self.handover_ns


def own_cost_of(run: Run, recorded: Recorded) -> OwnCostOfBatch | None:
    """Read the cost of observing a run; None if nothing of it is known."""
    own, n, workers = read_own_cost(run), len(recorded), recorded.shape.workers
    if own is None or not n:
        return None
    overhead, marked = run.meta.overhead, recorded.timeline.unprobed
    unprobed = np.zeros(n, dtype=bool) if marked is None else marked
    making_ns, loop_ns = _modelled(overhead, recorded)
    making, making_error = _borne(own.workers or own.main, making_ns, unprobed)
    loop, loop_error = np.zeros(n), 0.0
    calls_ns, calls_error = _modelled_calls(own.calls)
    if own.workers is None:
        making = making + calls_ns
    else:  # the loop counts its steps, whichever batch they take
        loop, loop_error = _borne(own.main, loop_ns, recorded.step_unprobed)
        loop = loop + calls_ns
        of_worker_ns, of_worker_error = _modelled_calls(own.worker_calls)
        making, calls_error = making + of_worker_ns, calls_error + of_worker_error
    in_workers = (overhead.lines_ns or 0.0) * workers / (workers + 1)
    return OwnCostOfBatch(
        making_ns=making,
        loop_ns=loop,
        handover_ns=(own.handover_ns or 0.0) * (workers > 0),
        recording_ns=max(0.0, (own.threads_ns or 0.0) - in_workers),
        sampling_ns=in_workers,
        error_ns=float(np.hypot(making_error, loop_error)) + calls_error,
        measured=(own.workers or own.main).high_ns is not None,
    )


def _modelled(overhead: OverheadMeta, recorded: Recorded) -> tuple[float, float]:
    """Return the cost of a batch to its maker, and of a step to the loop, by the model."""
    batch_ns = overhead.batch_ns or 0.0
    if not batch_ns:
        return 0.0, 0.0
    made = sum((float(ns.mean()) for ns in recorded.making.cpu.values()), 0.0)
    each = IN_WORKER if recorded.shape.workers else IN_LOOP
    return each * batch_ns + (overhead.span_ns or 0.0) * recorded.spans + OF_WORK * made, IN_LOOP * batch_ns


def _modelled_calls(calls: ModelledCost | None) -> tuple[float, float]:
    """Return the cost of calls, which each batch bears, and how far it may be wrong."""
    if calls is None:
        return 0.0, 0.0
    return calls.cost_ns, max(calls.high_ns - calls.cost_ns, calls.cost_ns - calls.low_ns)


def _borne(cost: CostPerBatch, modelled_ns: float, unprobed: Bools) -> tuple[Floats, float]:
    """Return what each batch bears of a cost, and by how much the mean may be wrong.

    A cost below its own noise is the middle of its interval. What unprobed batches do not bear of the mean,
    the others do.
    """
    if cost.low_ns is None or cost.high_ns is None:
        return np.full(len(unprobed), modelled_ns), modelled_ns
    middle_ns = (cost.low_ns + cost.high_ns) / 2 if cost.cost_ns is None else cost.cost_ns
    borne_ns = max(0.0, middle_ns)
    borne = np.full(len(unprobed), borne_ns)
    if not unprobed.all():
        least_ns = min(borne_ns, cost.unprobed_ns or 0.0)
        borne[unprobed] = least_ns
        borne[~unprobed] = least_ns + (borne_ns - least_ns) / float((~unprobed).mean())
    return borne, max(cost.high_ns - middle_ns, middle_ns - cost.low_ns)
