"""The steps of one loader as they can be replayed: what their batches took to make, and what followed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeprof.analyse.ledger.attribution import Attribution
from pipeprof.analyse.ledger.making import Making, Stage, making_of, with_nan
from pipeprof.analyse.ledger.walk import last_predecessors, moments
from pipeprof.analyse.why.lines import read_lines
from pipeprof.graph import EDGES, Back, Event, Shape
from pipeprof.passes import LoopPass
from pipeprof.record.reader import Run
from pipeprof.timeline import NOT_OBSERVED, Bools, Ints, Timeline, read_inside, read_ints, take
from pipeprof.vocabulary.owners import READ

Floats = npt.NDArray[np.float64]

_OF_BATCHES: Final = (
    "helper_cpu_ns", "bytes", "device_bytes", "touched_bytes", "handover_cpu_ns",
)  # fmt: skip
_LOCKED: Final = [i for i, edge in enumerate(EDGES) if edge.back is Back.NEXT_OF_WORKER]
MOST_STEPS: Final = 20_000
"""Steps that demands are taken from: more would not change what is predicted, and cost seconds."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """Steps of one loader, one entry each; times in ns, NaN if not observed."""

    timeline: Timeline
    passes: tuple[LoopPass, ...]
    """The passes over that loader, whole."""
    shape: Shape
    making: Making
    counted: Bools
    """The CPU time of making the batch, and its waiting for a core, were counted."""
    reads: Stage | None
    """Time and requests of the reads of each batch."""
    after: dict[Event, Floats]
    """Time from the last of its predecessors to each event."""
    unlocked_ns: Floats
    """When the next batch of its worker let this one go, where it waited for the making of that; else NaN."""
    held: Bools
    """That was when the next one was made. Else it was at the end of one native call of that making."""
    own_work: Floats
    """The part of the loop's body after the step that is its own work."""
    helper_cpu: Floats
    """CPU time of the worker's other threads."""
    batch_bytes: Floats
    device_bytes: Floats
    """Bytes of it that came from block devices."""
    touched_bytes: Floats
    """Memory that its making was the first to touch."""
    handover_cpu: Floats
    """CPU time of its worker since it had made the batch before."""
    next_cpu: Floats
    """CPU time of the loop in `next`."""
    step_unprobed: Bools
    """The step was unprobed, whether or not its batch was."""
    system_ns: Floats
    """Time that its worker had spent in the kernel when it was finished: no other batch's stands for it."""
    body_cpu_share: float | None
    """Share of the loop's body in which its thread was on a core; None if its lines were not sampled."""
    spans: float
    """Mean number of spans that the making of a batch had."""
    met: Floats
    """Time that the loop met the other ranks of its job after each step; 0 if it did not."""

    def __len__(self) -> int:
        return len(self.timeline)

    @property
    def core_waiting(self) -> float | None:
        """Return the share of their runnable time that the measured batches waited for a core."""
        seen = self.counted & self.timeline.measured
        cpu = sum((ns[seen].sum(dtype=np.float64) for ns in self.making.cpu.values()), 0.0)
        waited = self.making.runq[seen].sum(dtype=np.float64)
        return float(waited / (waited + cpu)) if waited + cpu > 0 else None


def read_recorded(run: Run, attribution: Attribution, loader: int | None = None) -> Recorded:
    """Read the steps of one loader that can be replayed: of the main one if none is given."""
    whole = attribution.timeline
    loader = attribution.main_loader if loader is None else loader
    seen = (whole.start_ns != NOT_OBSERVED) & (whole.finish_ns != NOT_OBSERVED)
    kept = np.flatnonzero(seen & (whole.take_ns != NOT_OBSERVED) & (whole.kinds == loader))[:MOST_STEPS]
    timeline, stages, counters = (
        whole.part(kept),
        attribution.stages.part(kept),
        attribution.counters.part(kept),
    )
    own_work = attribution.own_work
    extra = read_inside(run, timeline, _OF_BATCHES)
    inside = {name: with_nan(values) for name, values in extra.items()}
    return Recorded(
        timeline,
        tuple(loop_pass for loop_pass in whole.passes if whole.kind_of(loop_pass.loader) == loader),
        attribution.shapes[loader],
        making_of(stages, counters, run.meta.storage.tier == "network"),
        counters.complete,
        stages.making.get(READ),
        *_along_the_graph(whole, attribution, kept),
        np.zeros(len(kept)) if own_work.body_ns is None else own_work.body_ns[kept].astype(np.float64),
        inside["helper_cpu_ns"],
        inside["bytes"],
        inside["device_bytes"],
        inside["touched_bytes"],
        inside["handover_cpu_ns"],
        _of_steps(run, timeline, "next_cpu_ns"),
        np.zeros(len(kept), dtype=bool) if timeline.loop_unprobed is None else timeline.loop_unprobed,
        with_nan(take(read_ints(run, "batches", ("system_ns",))["system_ns"], timeline.batch_row)),
        read_lines(run).body_cpu_share,
        sum((_spans(stage) for stage in stages.making.values()), 0.0),
        _met(run, timeline),
    )


def _along_the_graph(
    whole: Timeline, attribution: Attribution, kept: Ints
) -> tuple[dict[Event, Floats], Floats, Bools]:
    """Follow the graph of all loaders up to the last step that is kept: `after`, `unlocked_ns`, `held`."""
    before = whole.part(np.arange(kept.max(initial=-1) + 1))
    times = moments(before)
    last = last_predecessors(before, attribution.shapes, times)
    ended = times.ended.reshape(-1)
    known = (last.node >= 0) & (ended != NOT_OBSERVED)
    after = np.where(known, np.maximum(ended - ended[last.node], 0), NOT_OBSERVED)
    after = after.reshape(times.ended.shape)
    unlocked, held = np.full(len(before), NOT_OBSERVED), np.zeros(len(before), dtype=bool)
    for row, event in enumerate(times.events):
        if event in (Event.PICKLED, Event.RECEIVED):
            waited = np.isin(last.edge.reshape(after.shape)[row], _LOCKED)
            nodes = last.node.reshape(after.shape)[row]
            made = nodes // len(before) != times.events.index(Event.START)
            unlocked = np.where(waited, np.where(made, ended[nodes], times.ended[row]), unlocked)
            held = np.where(waited, made, held)
    durations = {event: with_nan(after[row][kept]) for row, event in enumerate(times.events)}
    return durations, with_nan(unlocked[kept]), held[kept]


def _spans(stage: Stage) -> float:
    count = None if stage.count is None else np.nan_to_num(stage.count)
    return 0.0 if count is None or not len(count) else float(count.mean())


def _of_steps(run: Run, timeline: Timeline, name: str) -> Floats:
    """Return a column of `steps` for each step; NaN if it is null."""
    steps = read_ints(run, "steps", ("step", name))
    known = dict(zip(steps["step"].tolist(), with_nan(steps[name]).tolist(), strict=True))
    return np.asarray([known.get(step, np.nan) for step in timeline.step.tolist()], dtype=np.float64)


def _met(run: Run, timeline: Timeline) -> Floats:
    meetings = read_ints(run, "collectives", ("step", "start_ns", "end_ns"))
    lengths = dict(
        zip(meetings["step"].tolist(), (meetings["end_ns"] - meetings["start_ns"]).tolist(), strict=True)
    )
    return np.asarray([max(0.0, lengths.get(step, 0)) for step in timeline.step.tolist()], dtype=np.float64)
