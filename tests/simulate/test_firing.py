"""Every event of a simulated run happens at the latest of its predecessors, plus its activity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeprof.graph import OF_LOADER, Back, Edge, Event, Shape, edges
from pipeprof.simulate.demands.loader import StartUp
from pipeprof.simulate.engine import Walked, shape_of, walk
from pipeprof.simulate.firing import SIMULATED, is_simulated, simulated_edges
from pipeprof.simulate.knobs import Knobs
from pipeprof.simulate.sampling import Draw

ROUNDING_NS = 3
DELAYS = {
    Event.DISPATCH, Event.SENT, Event.RECEIVED, Event.AVAILABLE,
    Event.COPY_START, Event.COPY, Event.COMPUTE_START, Event.COMPUTE,
}  # fmt: skip
"""What no lack of cores makes longer."""
LISTS = (
    "cpu", "read_cpu", "requests", "read_bytes", "away", "waking", "handover", "handover_away",
    "recording", "helper", "transfer", "locked", "receive", "receive_away", "pin", "copy", "submit",
    "compute", "body_cpu", "loop", "met",
)  # fmt: skip


@st.composite
def questions(draw: st.DrawFn) -> tuple[Knobs, Draw]:
    """Any shape, and demands of the batches that come from a seed: no two events coincide."""
    epochs, batches = draw(st.integers(1, 3)), draw(st.integers(1, 20))
    steps, rng = epochs * batches, np.random.default_rng(draw(st.integers(0, 2**32)))
    workers, prefetch = draw(st.integers(0, 4)), draw(st.integers(1, 3))
    longest = {name: draw(st.sampled_from([1.0, 10.0, 60.0])) * 1e6 for name in LISTS}
    nothing = {"requests", "read_bytes", "recording", "helper", *([] if draw(st.booleans()) else ["pin"])}
    if not workers:
        nothing |= {"pin", "transfer"}
    length = steps + workers * prefetch
    lists: dict[str, Any] = {
        name: (rng.random(length) * longest[name] * (name not in nothing)).tolist() for name in LISTS
    }
    lists["locked"] = (rng.random(length) < draw(st.sampled_from([0.0, 0.3, 1.0]))).astype(float).tolist()
    part = draw(st.sampled_from([0.0, 0.5, 1.0]))
    lists["body_cpu"] = [part * compute for compute in lists["compute"]]
    knobs = Knobs(
        workers=workers,
        prefetch=prefetch,
        in_order=draw(st.booleans()),
        pin_memory=draw(st.booleans()),
        persistent_workers=draw(st.booleans()),
        synchronises=draw(st.booleans()),
        queue_depth=draw(st.integers(1, 3)),
        prefetch_to_device=draw(st.booleans()),
        cores=draw(st.sampled_from([0.5, 2.0, 1000.0])),
        neighbours=draw(st.sampled_from([0.0, 1.5])),
    )
    demand = Draw(
        **lists,
        meeting_ns=0.0,
        onwards=False,
        compute_threads=draw(st.sampled_from([0, 0, 1])),
        steps=steps,
        start_up=StartUp(*(rng.random(3) * 20e6)),
        batches_per_epoch=batches,
        rows=np.arange(length),
    )
    return knobs, demand


@dataclass(frozen=True)
class Fired:
    """A simulated run, by step; `made[i]` is which of all batches step i took, in the order of dispatch."""

    knobs: Knobs
    demand: Draw
    shape: Shape
    run: Walked

    @property
    def made(self) -> Any:
        return self.run.epoch * self.demand.batches_per_epoch + self.run.seq

    def first(self, i: int) -> int:
        """First step of the epoch of step i."""
        return i - i % self.demand.batches_per_epoch

    def predecessor(self, edge: Edge, i: int) -> int | None:
        """Step whose event an edge of step i leads to; None where there is none."""
        epoch = range(self.first(i), min(self.demand.steps, self.first(i) + self.demand.batches_per_epoch))
        mine = [j for j in epoch if self.run.worker[j] == self.run.worker[i]]
        steps = {
            Back.OF_WORKER: _before(mine, self.run.times[Event.START], i),
            Back.NEXT_OF_WORKER: self.locked_by(mine, i),
            Back.ARRIVED: _before(list(epoch), self.run.times[Event.SENT], i),
            Back.EPOCH: epoch[0] - 1 if self.made[i] - epoch[0] < self.shape.outstanding else None,
        }
        if edge.back in steps:
            return steps[edge.back]
        distance = self.shape.distance(edge.back)
        assert distance is not None
        if distance and edge.event in OF_LOADER:  # counted by dispatch; the predecessor, a take, by step
            place = int(self.made[i]) - distance
            return place if place >= epoch[0] else None
        return i - distance if i >= distance else None

    def locked_by(self, mine: list[int], i: int) -> int | None:
        """Step whose making holds the lock that step i is received by."""
        times, start = self.run.times, self.run.times[Event.START]
        later = sorted((j for j in mine if start[j] > start[i]), key=start.__getitem__)
        if not later or not self.demand.locked[int(self.made[i])]:
            return None
        return later[0] if times[Event.DISPATCH][later[0]] <= times[Event.SENT][i] else None

    def activity_ns(self, event: Event, i: int) -> float:
        """How long the activity before an event lasts on a core of its own."""
        d, k = self.demand, int(self.made[i])
        before = int(self.made[i - 1])
        match event:
            case Event.START:
                return d.handover[k] + d.handover_away[k]
            case Event.FINISH:
                return d.cpu[k] + d.read_cpu[k] + d.away[k] + d.waking[k]
            case Event.REQUEST:
                return d.met[before] + d.loop[before] * (i > self.first(i)) if i else 0.0
            case Event.TAKE:
                return d.receive[k] + d.receive_away[k]
        names = {
            Event.SENT: d.transfer, Event.AVAILABLE: d.pin, Event.COPY: d.copy,
            Event.LAUNCH: d.submit, Event.COMPUTE: d.compute,
        }  # fmt: skip
        return names[event][k] if event in names else 0.0

    def late(self, event: Event, i: int) -> tuple[float, bool]:
        """How much later than that an event happened, in ns, and whether something started up before it."""
        times = self.run.times
        waits = [edge for edge in edges(self.shape) if edge.event == event and is_simulated(edge)]
        found = {edge: self.predecessor(edge, i) for edge in waits}
        latest = max(
            (int(times[e.after][j]) for e, j in found.items() if j is not None and j >= 0), default=0
        )
        starts_up = event in (Event.REQUEST, Event.DISPATCH) and i == self.first(i)
        for edge, j in found.items():
            starts_up |= edge.back is Back.EPOCH and j is not None
            starts_up |= edge.back is Back.OF_WORKER and event == Event.START and j is None
        return int(times[event][i]) - latest - self.activity_ns(event, i), starts_up


def _before(steps: list[int], times: Any, i: int) -> int | None:
    order = sorted(steps, key=lambda j: (times[j], j))
    place = order.index(i)
    return order[place - 1] if place else None


@settings(max_examples=120, deadline=None)
@given(question=questions())
def test_every_event_happens_at_the_latest_of_its_predecessors_plus_its_activity(
    question: tuple[Knobs, Draw],
) -> None:
    knobs, demand = question
    fired = Fired(knobs, demand, shape_of(knobs, demand), walk(knobs, [demand])[0])
    alone = knobs.cores >= 1000.0
    for event in SIMULATED:
        for i in range(demand.steps):
            late, starts_up = fired.late(event, i)
            assert late > -ROUNDING_NS, (event, i)
            computes = demand.compute_threads or (event == Event.COMPUTE and any(demand.body_cpu))
            if (alone or (event in DELAYS and not computes)) and not starts_up:
                assert late < ROUNDING_NS, (event, i)


@pytest.mark.parametrize("workers", [0, 2])
def test_no_simulated_dependency_is_lost_but_those_that_others_imply(workers: int) -> None:
    """From every event that waits for another one a way along the kept edges leads back to it."""
    shape = Shape(workers=workers, pin_memory=True, copies_overlap=False)
    kept = simulated_edges(shape)
    assert len(kept) < len([edge for edge in edges(shape) if is_simulated(edge)])
    for edge in edges(shape):
        if is_simulated(edge) and edge.back is Back.SAME:
            assert edge.after in _behind(kept, edge.event)


def _behind(kept: tuple[Edge, ...], event: Event) -> set[Event]:
    direct = {edge.after for edge in kept if edge.event == event and edge.back is Back.SAME}
    return direct.union(*(_behind(kept, one) for one in direct))
