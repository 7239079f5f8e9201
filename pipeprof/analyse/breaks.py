"""The loop's time that belongs to no step: iterators being made, and the pause between two epochs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeprof.pipeline import Ints, Timeline, ints, read_ints
from pipeprof.trace import Run

Spans = tuple[Ints, Ints]
"""Begins and ends, in order of begins."""


class Breaks(NamedTuple):
    """When the loop was in no step."""

    startups: Spans
    """An iterator was being made: `epoch_start` to `workers_ready`."""
    pauses: Spans
    """From the end of an epoch to the first request of the next."""
    collectives: Spans
    """This rank met the others, after a step: it waited for the last of them."""


def breaks_of(run: Run, timeline: Timeline, collectives: Spans | None = None) -> Breaks:
    """Read them off the run's events and its collectives; those that are not there are none."""
    ready = events_of(run, "workers_ready")
    begun = events_of(run, "epoch_start")
    startups = [(begin, ready[epoch]) for epoch, begin in begun.items() if epoch in ready]
    if collectives is None:
        met = read_ints(run, "collectives", ("start_ns", "end_ns"))
        collectives = met["start_ns"], met["end_ns"]
    return Breaks(_spans(startups), _spans(_pauses(run, timeline)), collectives)


def _pauses(run: Run, timeline: Timeline) -> list[tuple[int, int]]:
    ended = events_of(run, "epoch_end")
    change = np.flatnonzero((np.diff(timeline.epoch) != 0) | (np.diff(timeline.loader) != 0))
    seen: set[tuple[int, int]] = set()
    pauses = []
    for last in change.tolist():
        epoch = (int(timeline.loader[last]), int(timeline.epoch[last]))
        following = (int(timeline.loader[last + 1]), int(timeline.epoch[last + 1]))
        seen.add(epoch)
        took, request = int(timeline.take_ns[last]), int(timeline.request_ns[last + 1])
        # Back in a loop that goes on, the body of its step goes on too: only a new epoch has a pause before.
        if following not in seen and took <= ended.get(epoch, -1) <= request:
            pauses.append((ended[epoch], request))
    return pauses


def _spans(pairs: list[tuple[int, int]]) -> Spans:
    array = np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)
    return array[:, 0], array[:, 1]


def events_of(run: Run, kind: str) -> dict[tuple[int, int], int]:
    """(loader, epoch): when it happened last."""
    events = run.table("events")
    mine = np.array(events["kind"].to_pylist(), dtype=object) == kind
    columns = (ints(events[name])[mine].tolist() for name in ("loader", "epoch", "time_ns"))
    return {(loader, epoch): at for loader, epoch, at in zip(*columns, strict=True)}
