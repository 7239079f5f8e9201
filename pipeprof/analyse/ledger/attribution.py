"""The walk backwards through the pipeline's graph: who owned each nanosecond of the run.

Two tilings of the measured window come out of the walk. The path is the walk itself. The accelerator's day is
its busy time, and each stretch in which it stood idle is split among the owners of the path since the idle
stretch before it: the work that ended there, and not only what came last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeprof.analyse.ledger.assign import Breaks, day_of, owned_path, shared_out, without_own_work
from pipeprof.analyse.ledger.making import (
    Counters,
    Making,
    Stages,
    Values,
    making_of,
    read_counters,
    read_stages,
    with_state,
)
from pipeprof.analyse.ledger.straggler import Lateness, charge_stragglers, lateness
from pipeprof.analyse.ledger.tiling import Tiling
from pipeprof.analyse.ledger.walk import critical_path
from pipeprof.analyse.why.lines import MAIN, read_lines
from pipeprof.analyse.why.main_lock import waited_ns
from pipeprof.analyse.why.totals import read_counts, sampler_ns
from pipeprof.graph import Shape
from pipeprof.passes import NOT_OBSERVED, Ints, LoopPass, Spans, Window, clipped
from pipeprof.record.reader import Run
from pipeprof.timeline import Timeline, measured_window, read_ints, read_timeline, shapes_of
from pipeprof.vocabulary import bands, owners

HOST_WORK: Final = 0.1
"""Least share of the loop's body that is Python from which it is distinguished from the step itself."""


SAMPLER: Final = 0.02
"""Share of the window below which a sampler's drawing stays part of the way of a batch."""


def stall_in(ledger_ns: Mapping[str, int]) -> int:
    """Return the ns of a ledger in which the accelerator had nothing to do for want of a batch."""
    return sum(ns for owner, ns in ledger_ns.items() if owners.is_stall(owner))


@dataclass(frozen=True, slots=True)
class Ledger:
    """Owners of the time of one window. Owners are words; each map sums to `window.wall_ns`.

    An owner that is missing was measured as 0 or was not observed: `not_observed` says which.
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
        """Return the time of the window in which the accelerator had nothing to do for want of a batch."""
        return stall_in(self.ledger_ns)

    @property
    def stall_share(self) -> float | None:
        """Return the stall as a share of the window, 0 to 1; None for an empty window."""
        return self.stall_ns / self.window.wall_ns if self.window.wall_ns else None

    @property
    def shares(self) -> dict[str, float]:
        """Return each owner's share of the window."""
        return {owner: ns / max(1, self.window.wall_ns) for owner, ns in self.ledger_ns.items()}


@dataclass(frozen=True)
class Attribution:
    """A run with an owner for each nanosecond; ask it for the ledger of any window."""

    timeline: Timeline
    shapes: dict[int, Shape]
    stages: Stages
    counters: Counters
    own_work: OwnWork
    window: Window
    path: Tiling
    day: Tiling
    lateness: Lateness
    not_observed: tuple[str, ...] = ()

    @cached_property
    def whole(self) -> Ledger:
        """Return the ledger of all that was measured."""
        return self.ledger(self.window)

    @cached_property
    def main_loader(self) -> int:
        """Return the loader that figures about a loader are of: the one charged with most of the stall.

        If the stalls are below the lowest band, it is the one with the most steps. Loaders that were
        recreated with the same arguments count as one, under the name of the first.
        """
        t = self.timeline
        kinds = t.kinds[t.measured]
        stalls = np.bincount(kinds, self.day.between(owners.is_stall, self.step_bounds))
        if stalls.max() < bands.NOT.below * self.window.wall_ns:
            return int(np.argmax(np.bincount(kinds)))
        return int(np.argmax(stalls))

    @cached_property
    def wait_ns(self) -> Ints:
        """Return the time of each wait in the window, in which first start-ups do not lie, for all steps."""
        t = self.timeline
        lasted = self.window.loop_time(t.take_ns) - self.window.loop_time(t.request_ns)
        return np.where(t.measured, np.clip(lasted, 0, t.wait_ns), t.wait_ns)

    @cached_property
    def step_bounds(self) -> Ints:
        """Return the start of the window and the end of each measured step, never going back."""
        ends = self.timeline.step_end_ns[self.timeline.measured]
        return np.append(self.window.start_ns, np.clip(ends, self.window.start_ns, self.window.end_ns))

    @cached_property
    def step_lengths(self) -> npt.NDArray[np.float64]:
        """Return the loop's time in each measured step, in ns; they sum to the wall of the window."""
        return np.diff(self.window.loop_time(self.step_bounds)).astype(np.float64)

    @property
    def pauses_ns(self) -> int:
        """Return the time of the measured window in which the loop was in no pass over any loader."""
        begins, ends = clipped(self.timeline.pauses, self.window.start_ns, self.window.end_ns)
        return int((ends - begins).sum())

    @property
    def startup_ns(self) -> int:
        """Return the time of the whole run in which workers started for the first time."""
        begins, ends = self.timeline.first_startups
        return int((ends - begins).sum())

    def ledger(self, window: Window) -> Ledger:
        """Return the ledger of `window`, clipped to the measured one."""
        part = self.window.part(window.start_ns, window.end_ns)
        if len(window.outside[0]):
            part = part.without(window.outside)
        return Tilings(self.path, self.day, self.lateness).ledger(part, self.not_observed)

    def epochs(self) -> list[tuple[LoopPass, Ledger]]:
        """Return the ledger of each measured pass over a loader, from step's end to step's end."""
        t = self.timeline
        begins = np.append(self.window.start_ns, t.step_end_ns[:-1])
        ledgers = []
        for loop_pass in t.passes:
            between = slice(loop_pass.first, loop_pass.last + 1)
            own = (t.loader[between] == loop_pass.loader) & (t.epoch[between] == loop_pass.epoch)
            others = begins[between][~own], t.step_end_ns[between][~own]
            ledger = self.ledger(
                Window(int(begins[loop_pass.first]), int(t.step_end_ns[loop_pass.last]), others)
            )
            if ledger.window.wall_ns > 0:
                ledgers.append((loop_pass, ledger))
        return ledgers


def _merged(totals: dict[str, int]) -> tuple[dict[str, int], dict[str, int]]:
    """Return the ledger with `storage:device` and its like under one name, and the split."""
    split: dict[str, int] = {}
    merged: dict[str, int] = {}
    for name, ns in totals.items():
        owner = owners.merged(name)
        if owner == owners.STORAGE.name:
            split[owners.name_in(name)] = ns
        merged[owner] = merged.get(owner, 0) + ns
    return merged, split


class OwnWork(NamedTuple):
    """Share of the loop's time spent on its own work, which is neither the step nor handing over a batch."""

    body_ns: Values | None = None
    """Ns of its body after each step; None if nothing is known to be."""
    sampler_ns: float = 0.0
    """Ns of drawing indices inside `next`, per step."""


class Tilings(NamedTuple):
    """The two views of a window, and the batches that were late."""

    path: Tiling
    day: Tiling
    lateness: Lateness

    def ledger(self, window: Window, not_observed: tuple[str, ...] = ()) -> Ledger:
        """Return the ledger of `window`."""
        day, split = _merged(self.day.totals(window))
        path, _ = _merged(self.path.totals(window))
        return Ledger(window, day, path, split, not_observed)


def tilings_of(
    timeline: Timeline,
    shapes: Mapping[int, Shape],
    window: Window,
    making: Making,
    breaks: Breaks,
    own_work: OwnWork,
) -> Tilings:
    """Give each nanosecond of `window` its owner: of a recorded run, or of one that was simulated."""
    mixes, words, crowding = making.shares(), making.owners, making.crowding
    late = lateness(timeline, shapes)
    charge_stragglers(mixes, late, making.wall)
    del making  # a long run's is large
    walked = critical_path(timeline, shapes, window)
    path = owned_path(walked, timeline, window, breaks, crowding, mixes, words)
    del walked, mixes
    day = day_of(timeline, window, path, breaks)
    if not timeline.device_observed and own_work.body_ns is not None:
        path, day = (without_own_work(tiling, timeline, own_work.body_ns) for tiling in (path, day))
    if own_work.sampler_ns:
        path, day = _with_sampler(own_work.sampler_ns * int(timeline.measured.sum()), window, path, day)
    return Tilings(path, day, late)


def _with_sampler(drawn_ns: float, window: Window, path: Tiling, day: Tiling) -> tuple[Tiling, Tiling]:
    """Give the loop's own code the time in the sampler.

    `next` draws after it has received a batch and before it returns it, which lies on the way of the batch.
    """
    moved = path.totals(window).get(owners.TRANSFER.name, 0)
    share = min(1.0, drawn_ns / max(moved, 1))
    path, day = (shared_out(each, owners.TRANSFER.name, owners.MAIN.name, share) for each in (path, day))
    return path, day


def attribute(run: Run, collectives: Spans | None = None, loader: int | None = None) -> Attribution | None:
    """Give each nanosecond of the measured window its owner. None if no step was measured.

    `collectives` is when this rank met the others after its steps, if the run itself has not recorded it.
    With a `loader` no steps are measured but those that took its batches.
    """
    timeline = read_timeline(run)
    if loader is not None:
        timeline = timeline.only(timeline.kind_of(loader))
    window = measured_window(timeline)
    if window is None:
        return None
    shapes = shapes_of(run, timeline)
    stages = read_stages(run, timeline)
    timeline = with_state(timeline, stages)
    counters = read_counters(run, timeline, stages)
    network = run.meta.storage.tier == "network"
    met = _collectives(run) if collectives is None else collectives
    breaks = Breaks(timeline.startups, met, timeline.entries)
    own_work = _own_work(run, timeline, window, stages)
    path, day, late = tilings_of(
        timeline, shapes, window, making_of(stages, counters, network), breaks, own_work
    )
    unseen = _not_observed(run, timeline)
    return Attribution(timeline, shapes, stages, counters, own_work, window, path, day, late, unseen)


def _own_work(run: Run, timeline: Timeline, window: Window, stages: Stages) -> OwnWork:
    """Return what the user marked in the loop's body, the host's own work in the rest, and the sampler's.

    The shares of both are known of the whole run alone: from samples, and from a counter.
    """
    body, drawn_ns = stages.marked, sampler_ns(run, window)
    host = 0.0 if timeline.device_observed else _host_share(run)
    if host >= HOST_WORK:
        own = host * stages.unmarked_ns(timeline)
        body = own if body is None else body + own
    drawn = drawn_ns / max(1, timeline.measured.sum()) if drawn_ns >= SAMPLER * window.wall_ns else 0.0
    return OwnWork(body, float(drawn))


def _host_share(run: Run) -> float:
    """Return the share of the loop's body that was the host's own; 0 if the loop was not sampled.

    It computed outside of torch, or waited for another thread to let go of the GIL.
    """
    lines = read_lines(run)
    waited = waited_ns(read_counts(run).of_main, MAIN) / lines.body_ns if lines.body_ns else 0.0
    return min(1.0, (lines.host_share() or 0.0) + waited)


def _collectives(run: Run) -> Spans:
    """Return the times at which this rank met the others of its job."""
    met = read_ints(run, "collectives", ("start_ns", "end_ns"))
    return met["start_ns"], met["end_ns"]


def _not_observed(run: Run, timeline: Timeline) -> tuple[str, ...]:
    names = list(run.meta.not_observed)
    if not timeline.device_timed:
        names.append("accelerator times")
    made = timeline.finish_ns != NOT_OBSERVED
    if not made.all():
        names.append("the making of some batches")
    return tuple(dict.fromkeys(names))
