"""Walks the pipeline's graph backwards: who owned each nanosecond of the run.

Two tilings of the measured window come out of the walk. The path is the walk itself. The accelerator's day is
its busy time, and each stretch in which it stood idle is split among the owners of the path since the idle
stretch before it: the work that ended there, and not only what came last (DESIGN §4).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from pipeprof.analyse.breaks import Spans, breaks_of
from pipeprof.analyse.charge import (
    Stages,
    making_mixes,
    owners_of,
    read_counters,
    read_stages,
)
from pipeprof.analyse.day import day_of
from pipeprof.analyse.owned import owned_path, without_marked
from pipeprof.analyse.straggler import Lateness, charge_stragglers, lateness
from pipeprof.analyse.tiling import Tiling
from pipeprof.analyse.walk import critical_path
from pipeprof.pipeline import (
    NOT_OBSERVED,
    Ints,
    Shape,
    Timeline,
    Window,
    measured_window,
    read_timeline,
    shapes_of,
)
from pipeprof.trace import Run

NOT_STALL = ("accelerator", "main", "h2d", "collective")
"""Owners of time in which the accelerator did not want for a batch of its own."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """Who owned the time of one window. Owners are the words of DESIGN §4; each map sums to `window.wall_ns`.

    An owner that is missing was measured as 0 or was not observed: `not_observed` tells which.
    """

    window: Window
    ledger_ns: dict[str, int] = field(default_factory=dict)
    """The accelerator's day: `accelerator` is its busy time, the rest is who kept it idle."""
    path_ns: dict[str, int] = field(default_factory=dict)
    """The critical path: what the run's duration is made of."""
    storage_split_ns: dict[str, int] = field(default_factory=dict)
    """`storage` of the ledger, split into `device`, `queueing`, `network`."""
    not_observed: tuple[str, ...] = ()

    @property
    def stall_ns(self) -> int:
        """Nanoseconds of the window in which the accelerator had nothing to do for want of a batch."""
        return sum(ns for owner, ns in self.ledger_ns.items() if owner not in NOT_STALL)


@dataclass(frozen=True)
class Attribution:
    """A run with an owner for each nanosecond; ask it for the ledger of any window."""

    timeline: Timeline
    shapes: dict[int, Shape]
    stages: Stages
    window: Window
    path: Tiling
    day: Tiling
    lateness: Lateness
    not_observed: tuple[str, ...] = ()

    @cached_property
    def whole(self) -> Ledger:
        """The ledger of all that was measured."""
        return self.ledger(self.window)

    def ledger(self, window: Window) -> Ledger:
        """The ledger of `window`, clipped to the measured one."""
        whole = self.window
        start = min(max(window.start_ns, whole.start_ns), whole.end_ns)
        clipped = Window(start, max(min(window.end_ns, whole.end_ns), start))
        day, split = _merged(self.day.totals(clipped))
        path, _ = _merged(self.path.totals(clipped))
        return Ledger(clipped, day, path, split, self.not_observed)

    def epochs(self) -> list[tuple[int, int, Ledger]]:
        """(loader, epoch, ledger) of each epoch in order: from step's end to step's end."""
        found = []
        ends = _step_ends(self.timeline)
        change = np.flatnonzero((np.diff(self.timeline.epoch) != 0) | (np.diff(self.timeline.loader) != 0))
        firsts = np.append(0, change + 1)
        lasts = np.append(change, len(self.timeline) - 1)
        for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True):
            begin = int(ends[first - 1]) if first else self.window.start_ns
            ledger = self.ledger(Window(begin, int(ends[last])))
            if ledger.window.wall_ns > 0:
                found.append((int(self.timeline.loader[first]), int(self.timeline.epoch[first]), ledger))
        return found

    def moving(self, width_ns: int, every_ns: int | None = None) -> Iterator[Ledger]:
        """Ledgers of windows of `width_ns`, one each `every_ns` (default: side by side), the last one cut."""
        step = max(1, every_ns or width_ns)
        for start in range(self.window.start_ns, self.window.end_ns, step):
            yield self.ledger(Window(start, start + width_ns))


def _merged(totals: dict[str, int]) -> tuple[dict[str, int], dict[str, int]]:
    """`storage:device` and its like under one name, and the split."""
    split = {name.partition(":")[2]: ns for name, ns in totals.items() if name.startswith("storage:")}
    merged: dict[str, int] = {}
    for name, ns in totals.items():
        owner = "storage" if name.startswith("storage:") else name
        merged[owner] = merged.get(owner, 0) + ns
    return merged, split


def _step_ends(timeline: Timeline) -> Ints:
    """When each step ended: its computation, or the next request where no device was seen."""
    following = np.append(timeline.request_ns[1:], timeline.take_ns[-1:])
    return np.where(timeline.compute_end_ns == NOT_OBSERVED, following, timeline.compute_end_ns)


def ledger_of(timeline: Timeline, path: Tiling, window: Window) -> Ledger:
    """The ledger of a timeline whose path is known, recorded or predicted."""
    day, split = _merged(day_of(timeline, window, path).totals(window))
    return Ledger(window, day, _merged(path.totals(window))[0], split)


def attribute(run: Run, collectives: Spans | None = None) -> Attribution | None:
    """Give each nanosecond of the measured window its owner. None where no step was measured.

    `collectives` is when this rank met the others after its steps, where the run itself has not recorded it.
    """
    timeline = read_timeline(run)
    window = measured_window(timeline)
    if window is None:
        return None
    shapes = shapes_of(run, timeline)
    stages = read_stages(run, timeline)
    counters = read_counters(run, timeline, stages)
    owners = owners_of(stages)
    tier = (run.meta.get("storage") or {}).get("tier")
    mixes = making_mixes(stages, counters, owners, tier == "network")
    late = lateness(timeline, shapes)
    charge_stragglers(mixes, late, counters.wall)
    breaks = breaks_of(run, timeline, collectives)
    path = owned_path(critical_path(timeline, shapes, window), timeline, breaks, counters, mixes, owners)
    day = day_of(timeline, window, path, breaks)
    if not (timeline.compute_end_ns != NOT_OBSERVED).any():
        path, day = (without_marked(one, timeline, stages) for one in (path, day))
    return Attribution(timeline, shapes, stages, window, path, day, late, _not_observed(run, timeline))


def _not_observed(run: Run, timeline: Timeline) -> tuple[str, ...]:
    found = list(run.meta.get("not_observed") or [])
    if not (timeline.compute_end_ns != NOT_OBSERVED).any():
        found.append("accelerator times")
    made = timeline.finish_ns != NOT_OBSERVED
    if not made.all():
        found.append("the making of some batches")
    return tuple(dict.fromkeys(found))
