"""Takes pipeprof's own cost off the demands of a run: a prediction is of the run without pipeprof.

The cost is what the run measured of itself, with its interval. A run too short for that has it by a model,
which may be wrong by as much as it says. Threads that write and sample work beside the loop, on cores that it
then lacks. A replay, which is held against the traced run, keeps all of it; so do predictions of a bench,
whose other cells are observed too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pipeprof import units
from pipeprof.analyse.resources.own_cost import CostPerBatch, read_own_cost
from pipeprof.record.meta import OverheadMeta
from pipeprof.record.reader import Run
from pipeprof.simulate.demands.read import Floats, Recorded
from pipeprof.simulate.extrapolation import Extrapolation
from pipeprof.timeline import Bools

if TYPE_CHECKING:
    from pipeprof.simulate.demands.loader import Batches, Demands

IN_WORKER: Final = 9.0
"""Cost of a tiny batch to the worker that makes it, over that of an empty record in a loop (`batch_ns`, 10.3
us): the proxies around the record, and caches that batches have filled. Pairs of plain and observed loaders
gave 96 us (`tests.benchmarks.told_cost`, a quiet machine of two virtual cores, 30 November 2026)."""
IN_LOOP: Final = 4.0
"""The same for the loop's thread: 42 us with two workers; 41 without, its making included."""
OF_WORK: Final = 0.03
"""Part of the CPU time of making a batch that comes to it: counters, spans and samples of a longer one. Of
the same pairs text had 2.2% and JPEGs 3.5%, less what a tiny batch costs."""
SENDING: Final = 0.5
"""Share of the cost of the times in a batch's pickle that its worker's queue thread bears: the rest is the
main process's."""
BETWEEN: Final = 0.5
"""Share of what a batch costs its maker that lies between two batches, and in no stage of one."""
WORTH_SAYING: Final = 0.001
"""Share of the work with a batch from which on the cost is told of."""


@dataclass(frozen=True, slots=True)
class OwnCostOfBatch:
    """Costs of observing a batch and its step, in ns of CPU time; 0 where not known."""

    making_ns: Floats
    """To the thread that made each batch."""
    loop_ns: Floats
    """To the loop's thread with each step; 0 without workers, where it makes the batches."""
    handover_ns: float
    """To a worker's queue thread and to the main process, for the times in a batch's pickle."""
    beside_ns: float
    """To threads that write and sample, a step, but for those in the workers."""
    sampling_ns: float
    """To threads that sample in the workers, a batch."""
    error_ns: float
    """Possible error of the sum of the first two."""
    measured: bool
    """True where the run measured it itself."""

    @property
    def serial_ns(self) -> float:
        """Return the mean cost that a batch and its step bear themselves."""
        return float(self.making_ns.mean() + self.loop_ns.mean()) + self.handover_ns


def own_cost_of(run: Run, recorded: Recorded) -> OwnCostOfBatch | None:
    """Read the cost of observing a run; None where nothing of it is known."""
    own, n, workers = read_own_cost(run), len(recorded), recorded.shape.workers
    if own is None or not n:
        return None
    overhead, unprobed = run.meta.overhead, recorded.timeline.unprobed
    making_ns, loop_ns = _modelled(overhead, recorded)
    making, making_error = _borne(own.workers or own.main, making_ns, unprobed, n)
    loop, loop_error = (np.zeros(n), 0.0) if own.workers is None else _borne(own.main, loop_ns, unprobed, n)
    in_workers = (overhead.lines_ns or 0.0) * workers / (workers + 1)
    return OwnCostOfBatch(
        making_ns=making,
        loop_ns=loop,
        handover_ns=(own.handover_ns or 0.0) * (workers > 0),
        beside_ns=max(0.0, (own.threads_ns or 0.0) - in_workers),
        sampling_ns=in_workers,
        error_ns=float(np.hypot(making_error, loop_error)),
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


def _borne(cost: CostPerBatch, modelled_ns: float, unprobed: Bools | None, n: int) -> tuple[Floats, float]:
    """Return what each batch bears of a cost, and by how much the mean may be wrong.

    A cost below its own noise is the middle of its interval.
    """
    if cost.low_ns is None or cost.high_ns is None:
        return np.full(n, modelled_ns), modelled_ns
    middle_ns = (cost.low_ns + cost.high_ns) / 2 if cost.cost_ns is None else cost.cost_ns
    borne_ns = max(0.0, middle_ns)
    borne = np.full(n, borne_ns)
    if unprobed is not None:
        borne[unprobed] = min(borne_ns, cost.unprobed_ns or 0.0)
    return borne, max(cost.high_ns - middle_ns, middle_ns - cost.low_ns)


def without_own_cost(demands: Demands) -> Demands:
    """Return the demands of the same run without pipeprof; the same ones where its cost is not known."""
    own = demands.own_cost
    if own is None:
        return demands
    with_cost = demands.batches
    sent, received = own.handover_ns * SENDING, own.handover_ns * (1 - SENDING)
    lighter = {
        **_making_without(with_cost, own.making_ns),
        **_serial_without(with_cost, _of_the_loop(demands), own.loop_ns + received),
        "transfer": np.maximum(with_cost.transfer - sent, 0.0),
        "helper": np.maximum(with_cost.helper - sent - own.sampling_ns, 0.0),
        "beside": np.zeros(len(with_cost)),
    }
    return replace(
        demands,
        batches=replace(with_cost, **lighter),
        own_cost=None,
        own_error_ns=own.error_ns,
        notes=(*demands.notes, *_said(demands, own)),
        if_full=None if demands.if_full is None else without_own_cost(demands.if_full),
    )


def _making_without(batches: Batches, cost_ns: Floats) -> dict[str, Any]:
    """Take a cost off what the thread that makes batches does: off what is between two of them, where the
    record is written, and off the making, each owner of it alike."""
    between = np.minimum(cost_ns * BETWEEN, batches.handover)
    made, rest = batches.make_cpu, cost_ns - between
    kept = 1.0 - np.minimum(1.0, np.divide(rest, made, out=np.zeros(len(made)), where=made > 0))
    return {
        "handover": batches.handover - between,
        "cpu": {owner: ns * kept for owner, ns in batches.cpu.items()},
    }


def _serial_without(batches: Batches, names: tuple[str, ...], cost_ns: Floats) -> dict[str, Floats]:
    """Take a cost off activities that follow one another, off the first as far as it goes."""
    lighter, rest = {}, cost_ns
    for name in names:
        before: Floats = getattr(batches, name)
        lighter[name] = np.maximum(before - rest, 0.0)
        rest = rest - (before - lighter[name])
    return lighter


def _of_the_loop(demands: Demands) -> tuple[str, ...]:
    """Return the activities of the loop's thread: its time in `next`, then its body, of which the device's
    part is known only where the device was timed."""
    body = ("loop", "submit") if demands.observed.device else ("loop", "submit", "compute")
    return ("receive", *body)


def _said(demands: Demands, own: OwnCostOfBatch) -> tuple[Extrapolation, ...]:
    """Return the note on what is taken off, as a share of a batch's work; none where it is too little."""
    batches = demands.batches
    work = batches.make_cpu + batches.handover + batches.receive + batches.loop + batches.submit
    share = own.serial_ns / max(float(work.mean()), own.serial_ns, 1.0)
    if share < WORTH_SAYING:
        return ()
    how = "as it measured itself" if own.measured else "by a model, as the run is too short to measure it"
    return (
        Extrapolation(
            f"predicted is the run without pipeprof, whose own cost is taken off: {units.percent(share)} of "
            f"the host's work with a batch, {how}"
        ),
    )
