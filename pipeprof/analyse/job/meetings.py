"""The ranks' meetings on one clock: who came last to each step's end, how long the others waited.

Data parallel ranks meet after each step, and all go on when the last has come. What a rank recorded is when
it came and when it went on; those common ends align the clocks of several machines. If a run recorded no
meetings, they are inferred: a step's body lasts as long as the computing and the waiting together, so the
shortest body among the ranks is the computing, and what the others have beyond it is their waiting.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeprof.passes import NOT_OBSERVED, Ints, Spans
from pipeprof.record.reader import Run
from pipeprof.timeline import read_ints, read_timeline

CHUNKS: Final = 20
"""Number of stretches of the run to whose medians a clock's offset is fitted."""
MOST_STEPS: Final = 1 << 24
"""Largest number of a step; one beyond it is a damaged record, not a step."""


class Meetings(NamedTuple):
    """A rank's meetings on its own clock, an entry for each step; `NOT_OBSERVED` if none was."""

    came_ns: Ints
    left_ns: Ints
    recorded: bool
    """False if `came_ns` is when the batch was taken, and what follows is the step's whole body."""


class ClockFit(NamedTuple):
    """A machine's clock against the reference's: reference = own - offset - drift x (own - origin)."""

    machine: str
    ranks: int
    offset_ns: float
    drift: float
    """Nanoseconds that the clock gains in a nanosecond."""
    origin_ns: int
    residual_ns: float | None
    """Median distance of the meetings' ends from the fit; None for the reference, and if none met it."""

    def to_reference(self, times: Ints) -> Ints:
        """Convert times of this clock to the reference's; what was not observed stays so."""
        shift = self.offset_ns + self.drift * (times - self.origin_ns)
        return np.where(times == NOT_OBSERVED, NOT_OBSERVED, times - np.rint(shift).astype(np.int64))


@dataclass(frozen=True)
class Grid:
    """All ranks' meetings on the reference's clock: row i is `ranks[i]`, one column a step."""

    ranks: list[int]
    came_ns: Ints
    left_ns: Ints
    recorded: bool
    clocks: dict[str, ClockFit]

    @cached_property
    def latest_ns(self) -> Ints:
        """Return the time at which the last rank came to each step."""
        return np.asarray(self.came_ns.max(axis=0, initial=NOT_OBSERVED), dtype=np.int64)

    @cached_property
    def last(self) -> Ints:
        """Return the row of the rank that came last to each step; `NOT_OBSERVED` if it came alone."""
        several = (self.came_ns != NOT_OBSERVED).sum(axis=0) > 1
        return np.where(several, np.argmax(self.came_ns, axis=0), NOT_OBSERVED)

    def waits_ns(self, row: int) -> Ints:
        """Return the time that a rank waited in each step for the last to come; 0 if it was not there."""
        latest = np.minimum(self.latest_ns, self.left_ns[row])
        there = self.came_ns[row] != NOT_OBSERVED
        return np.where(there, np.maximum(latest - self.came_ns[row], 0), 0)

    @cached_property
    def spread_ns(self) -> float | None:
        """Return how far apart the ranks went on, in ns: the median over the steps."""
        there = self.left_ns != NOT_OBSERVED
        steps = np.flatnonzero(there.sum(axis=0) > 1)
        if len(steps) == 0:
            return None
        ends = self.left_ns[:, steps]
        first = np.where(there[:, steps], ends, np.iinfo(np.int64).max).min(axis=0)
        return float(np.median(ends.max(axis=0) - first))


def meetings_of(run: Run) -> Meetings:
    """Read one rank's recorded meetings, or the bodies of its steps."""
    met = read_ints(run, "collectives", ("step", "start_ns", "end_ns"))
    if len(met["step"]):
        return _by_step(met["step"], met["start_ns"], met["end_ns"], recorded=True)
    t = read_timeline(run)
    return _by_step(t.step, t.take_ns, t.step_end_ns, recorded=False)


def of_one_kind(by_rank: Mapping[int, Meetings]) -> dict[int, Meetings]:
    """Make meetings all recorded or all inferred: if some ranks recorded them, the others met no one.

    A rank that died before its first meeting has at most the bodies of its steps, which are not meetings.
    """
    if not any(part.recorded for part in by_rank.values()):
        return dict(by_rank)
    nothing = Meetings(np.zeros(0, np.int64), np.zeros(0, np.int64), recorded=True)
    return {rank: part if part.recorded else nothing for rank, part in by_rank.items()}


def _by_step(step: Ints, came: Ints, left: Ints, recorded: bool) -> Meetings:
    kept = (step >= 0) & (step < MOST_STEPS) & (left >= came) & (came != NOT_OBSERVED)
    step = step[kept]
    size = int(step.max(initial=-1)) + 1
    columns = (np.full(size, NOT_OBSERVED), np.full(size, NOT_OBSERVED))
    columns[0][step], columns[1][step] = came[kept], left[kept]
    return Meetings(*columns, recorded)


def align(by_rank: Mapping[int, Meetings], machines: Mapping[int, str]) -> Grid:
    """Bring every rank's meetings onto one clock. `machines` names each rank's clock.

    Ranks of one machine share its clock. The reference, first in `clocks`, is that of the first rank that
    met any other; another machine's is fitted to it by the common ends.
    """
    ranks = sorted(by_rank)
    steps = max((len(part.came_ns) for part in by_rank.values()), default=0)
    came = np.full((len(ranks), steps), NOT_OBSERVED)
    left = np.full((len(ranks), steps), NOT_OBSERVED)
    for row, rank in enumerate(ranks):
        size = len(by_rank[rank].came_ns)
        came[row, :size], left[row, :size] = by_rank[rank].came_ns, by_rank[rank].left_ns
    clocks = _clocks(left, [machines[rank] for rank in ranks])
    for row, rank in enumerate(ranks):
        clock = clocks[machines[rank]]
        came[row], left[row] = clock.to_reference(came[row]), clock.to_reference(left[row])
    recorded = all(part.recorded for part in by_rank.values())
    if not recorded:
        came = _arrivals(came, left)
    return Grid(ranks, came, left, recorded, clocks)


def _arrivals(took: Ints, left: Ints) -> Ints:
    """Return when each rank's computing ended, taken to last as long as the step's shortest body."""
    there = took != NOT_OBSERVED
    body = np.where(there, left - took, np.iinfo(np.int64).max)
    computing = body.min(axis=0, initial=np.iinfo(np.int64).max)
    return np.where(there, took + np.where(there.any(axis=0), computing, 0), NOT_OBSERVED)


def _clocks(left: Ints, machines: list[str]) -> dict[str, ClockFit]:
    met = [machine for machine, ends in zip(machines, left, strict=True) if (ends != NOT_OBSERVED).any()]
    rows: dict[str, list[int]] = {name: [] for name in (*met, *machines)}
    for row, machine in enumerate(machines):
        rows[machine].append(row)
    names = list(rows)
    ends = {name: _mean_end(left[own]) for name, own in rows.items()}
    clocks = {}
    for name, own in rows.items():
        count = len(own)
        if name == names[0]:
            clocks[name] = ClockFit(name, count, 0.0, 0.0, 0, None)
        else:
            clocks[name] = _fitted(name, count, ends[name], ends[names[0]])
    return clocks


def _mean_end(left: Ints) -> Ints:
    """Return the times at which the ranks of one machine went on, on average."""
    there = left != NOT_OBSERVED
    count = there.sum(axis=0)
    origin = int(left.max(initial=0))
    total = np.where(there, left - origin, 0).sum(axis=0)
    return np.where(count > 0, origin + total // np.maximum(count, 1), NOT_OBSERVED)


def _fitted(name: str, count: int, own: Ints, reference: Ints) -> ClockFit:
    """Fit a line through the medians of the distances, by stretches: single late ends move it little."""
    both = (own != NOT_OBSERVED) & (reference != NOT_OBSERVED)
    if not both.any():
        return ClockFit(name, count, 0.0, 0.0, 0, None)
    own, apart = own[both], own[both] - reference[both]
    origin, base = int(own[0]), int(np.median(apart))
    away = (apart - base).astype(np.float64)
    since = (own - origin).astype(np.float64)
    pieces = [piece for piece in np.array_split(np.arange(len(own)), CHUNKS) if len(piece) >= 2]
    offset, drift = float(np.median(away)), 0.0
    if len(pieces) == CHUNKS:
        at = np.array([np.median(since[piece]) for piece in pieces])
        drift, offset = (
            float(coefficient) for coefficient in np.polyfit(at, [np.median(away[p]) for p in pieces], 1)
        )
    residual = float(np.median(np.abs(away - offset - drift * since)))
    return ClockFit(name, count, base + offset, drift, origin, residual)


def spans_of(meetings: Meetings, waits_ns: npt.NDArray[np.int64]) -> Spans:
    """Return the spans of a rank's own clock spent in a meeting; inferred ones are its waiting alone."""
    there = meetings.came_ns != NOT_OBSERVED
    came, left = meetings.came_ns[there], meetings.left_ns[there]
    if not meetings.recorded:
        came = np.maximum(left - waits_ns[: len(there)][there], came)
    return came, left
