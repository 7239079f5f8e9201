"""When the ranks of a job met, on one clock: who came last to each step's end, how long the others waited.

Data parallel ranks meet after each step, and all go on when the last has come. What a rank recorded is when
it came and when it went on; those common ends align the clocks of several machines. Where a run recorded no
meetings they are inferred: a step's body lasts as long as the computing and the waiting together, so the
shortest body among the ranks is the computing, and what the others have beyond it is their waiting.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeprof.analyse.breaks import Spans
from pipeprof.pipeline import NOT_OBSERVED, Ints, read_ints
from pipeprof.trace import Run

CHUNKS: Final = 20
"""A clock's offset is fitted to the medians of this many stretches of the run."""
MOST_STEPS: Final = 1 << 24
"""A step beyond this is a damaged record, not a step."""


class Meetings(NamedTuple):
    """One rank's meetings on its own clock, an entry for each step; `NOT_OBSERVED` where none was."""

    came_ns: Ints
    left_ns: Ints
    recorded: bool
    """False: `came_ns` is when the batch was taken, and what follows is the step's whole body."""


class Clock(NamedTuple):
    """One machine's clock against the reference's: reference = own - offset - drift x (own - origin)."""

    machine: str
    ranks: int
    offset_ns: float
    drift: float
    """Nanoseconds that it gains in a nanosecond."""
    origin_ns: int
    residual_ns: float | None
    """Median distance of the meetings' ends from the fit; None for the reference, and where none met it."""

    def to_reference(self, times: Ints) -> Ints:
        """Times of this clock on the reference's; what was not observed stays so."""
        shift = self.offset_ns + self.drift * (times - self.origin_ns)
        return np.where(times == NOT_OBSERVED, NOT_OBSERVED, times - np.rint(shift).astype(np.int64))


@dataclass(frozen=True)
class Grid:
    """All ranks' meetings on the reference's clock: row i is `ranks[i]`, one column a step."""

    ranks: list[int]
    came_ns: Ints
    left_ns: Ints
    recorded: bool
    clocks: dict[str, Clock]

    @cached_property
    def latest_ns(self) -> Ints:
        """When the last rank came to each step."""
        return np.asarray(self.came_ns.max(axis=0, initial=NOT_OBSERVED), dtype=np.int64)

    @cached_property
    def last(self) -> Ints:
        """The row of the rank that came last to each step; `NOT_OBSERVED` where fewer than two came."""
        several = (self.came_ns != NOT_OBSERVED).sum(axis=0) > 1
        return np.where(several, np.argmax(self.came_ns, axis=0), NOT_OBSERVED)

    def waits_ns(self, row: int) -> Ints:
        """How long a rank waited in each step for the last to come; 0 where it was not there."""
        latest = np.minimum(self.latest_ns, self.left_ns[row])
        there = self.came_ns[row] != NOT_OBSERVED
        return np.where(there, np.maximum(latest - self.came_ns[row], 0), 0)

    @cached_property
    def spread_ns(self) -> float | None:
        """Median over the steps of how far apart the ranks went on: how common the common ends are."""
        there = self.left_ns != NOT_OBSERVED
        steps = np.flatnonzero(there.sum(axis=0) > 1)
        if len(steps) == 0:
            return None
        ends = self.left_ns[:, steps]
        first = np.where(there[:, steps], ends, np.iinfo(np.int64).max).min(axis=0)
        return float(np.median(ends.max(axis=0) - first))


def meetings_of(run: Run) -> Meetings:
    """What one rank recorded of its meetings, or the bodies of its steps."""
    met = read_ints(run, "collectives", ("step", "start_ns", "end_ns"))
    if len(met["step"]):
        return _by_step(met["step"], met["start_ns"], met["end_ns"], recorded=True)
    loop = read_ints(run, "steps", ("step", "request_ns", "take_ns", "launch_ns"))
    order = np.argsort(loop["step"], kind="stable")
    step, request, take, launch = (
        loop[name][order] for name in ("step", "request_ns", "take_ns", "launch_ns")
    )
    ended = np.append(request[1:], np.maximum(take[-1:], launch[-1:]))
    return _by_step(step, take, ended, recorded=False)


def of_one_kind(found: Mapping[int, Meetings]) -> dict[int, Meetings]:
    """All recorded, or all inferred: where some ranks recorded meetings, the others have met nobody.

    A rank that died before its first meeting has at most the bodies of its steps, which are no meetings.
    """
    if not any(one.recorded for one in found.values()):
        return dict(found)
    nothing = Meetings(np.zeros(0, np.int64), np.zeros(0, np.int64), recorded=True)
    return {rank: one if one.recorded else nothing for rank, one in found.items()}


def _by_step(step: Ints, came: Ints, left: Ints, recorded: bool) -> Meetings:
    kept = (step >= 0) & (step < MOST_STEPS) & (left >= came) & (came != NOT_OBSERVED)
    step = step[kept]
    size = int(step.max(initial=-1)) + 1
    columns = (np.full(size, NOT_OBSERVED), np.full(size, NOT_OBSERVED))
    columns[0][step], columns[1][step] = came[kept], left[kept]
    return Meetings(*columns, recorded)


def align(found: Mapping[int, Meetings], machines: Mapping[int, str]) -> Grid:
    """Bring every rank's meetings onto one clock. `machines` names each rank's clock.

    Ranks of one machine share its clock. The reference, first in `clocks`, is that of the first rank that
    met any other; another machine's is fitted to it by the common ends.
    """
    ranks = sorted(found)
    steps = max((len(one.came_ns) for one in found.values()), default=0)
    came = np.full((len(ranks), steps), NOT_OBSERVED)
    left = np.full((len(ranks), steps), NOT_OBSERVED)
    for row, rank in enumerate(ranks):
        size = len(found[rank].came_ns)
        came[row, :size], left[row, :size] = found[rank].came_ns, found[rank].left_ns
    clocks = _clocks(left, [machines[rank] for rank in ranks])
    for row, rank in enumerate(ranks):
        clock = clocks[machines[rank]]
        came[row], left[row] = clock.to_reference(came[row]), clock.to_reference(left[row])
    recorded = all(one.recorded for one in found.values())
    if not recorded:
        came = _arrivals(came, left)
    return Grid(ranks, came, left, recorded, clocks)


def _arrivals(took: Ints, left: Ints) -> Ints:
    """When each rank's computing ended, taken to last as long as the shortest body of the step."""
    there = took != NOT_OBSERVED
    body = np.where(there, left - took, np.iinfo(np.int64).max)
    computing = body.min(axis=0, initial=np.iinfo(np.int64).max)
    return np.where(there, took + np.where(there.any(axis=0), computing, 0), NOT_OBSERVED)


def _clocks(left: Ints, machines: list[str]) -> dict[str, Clock]:
    met = [one for one, ends in zip(machines, left, strict=True) if (ends != NOT_OBSERVED).any()]
    names = list(dict.fromkeys([*met, *machines]))
    ends = {name: _mean_end(left[[i for i, one in enumerate(machines) if one == name]]) for name in names}
    clocks = {}
    for name in names:
        count = machines.count(name)
        if name == names[0]:
            clocks[name] = Clock(name, count, 0.0, 0.0, 0, None)
        else:
            clocks[name] = _fitted(name, count, ends[name], ends[names[0]])
    return clocks


def _mean_end(left: Ints) -> Ints:
    """When the ranks of one machine went on, on average."""
    there = left != NOT_OBSERVED
    count = there.sum(axis=0)
    origin = int(left.max(initial=0))
    total = np.where(there, left - origin, 0).sum(axis=0)
    return np.where(count > 0, origin + total // np.maximum(count, 1), NOT_OBSERVED)


def _fitted(name: str, count: int, own: Ints, reference: Ints) -> Clock:
    """A line through the medians of the distances, stretch by stretch: single late ends move it little."""
    both = (own != NOT_OBSERVED) & (reference != NOT_OBSERVED)
    if not both.any():
        return Clock(name, count, 0.0, 0.0, 0, None)
    own, apart = own[both], own[both] - reference[both]
    origin, base = int(own[0]), int(np.median(apart))
    away = (apart - base).astype(np.float64)
    since = (own - origin).astype(np.float64)
    pieces = [piece for piece in np.array_split(np.arange(len(own)), CHUNKS) if len(piece) >= 2]
    offset, drift = float(np.median(away)), 0.0
    if len(pieces) == CHUNKS:
        at = np.array([np.median(since[piece]) for piece in pieces])
        drift, offset = (float(one) for one in np.polyfit(at, [np.median(away[p]) for p in pieces], 1))
    residual = float(np.median(np.abs(away - offset - drift * since)))
    return Clock(name, count, base + offset, drift, origin, residual)


def spans_of(meetings: Meetings, waits_ns: npt.NDArray[np.int64]) -> Spans:
    """The spans of a rank's own clock in which it was in a meeting; inferred ones are its waiting alone."""
    there = meetings.came_ns != NOT_OBSERVED
    came, left = meetings.came_ns[there], meetings.left_ns[there]
    if not meetings.recorded:
        came = np.maximum(left - waits_ns[: len(there)][there], came)
    return came, left
