"""Decomposition of the making of each batch: whose time it was, on a core, waiting for one, or off both.

wall = CPU + waiting for a core + blocked, of the batch and of each of its stages. Per stage as it was
measured; if it was not, the batch's own counters are shared out:

- a stage's CPU time is what was read out for it, else in proportion to the batches for which it was;
- what the batch blocked goes to its reads first, then to code without a name, then to the other stages;
- waiting for a core falls on what did not block, and is `cpu-contention`, wherever it happened;
- reads are `storage`, by what they waited for: the queue of a device, or the parts of a remote request
  (`measure.remote_requests`);
- blocked time outside reads is `storage` if the batch had major page faults, or bytes from a device and no
  read that was seen (readers written in C, mmap);
- a named stage keeps the rest of what it blocked: its name is the best address there is; `getitem` (the
  user's code without a name) gives it to `blocked`;
- what no stage covers is `unknown`, except as far as it blocked.

Attribution takes shares of it, the simulator its demands, and a simulated run's ledger is made of the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeprof.analyse.ledger.tiling import CODE, Shares, normalised
from pipeprof.analyse.telemetry import with_stolen
from pipeprof.record.columns import whole_numbers
from pipeprof.record.reader import Run
from pipeprof.timeline import NOT_OBSERVED, Ints, Keys, Timeline, ints, read_inside
from pipeprof.vocabulary import owners
from pipeprof.vocabulary.owners import READ, STREAM, UNNAMED

Floats = npt.NDArray[np.float32]
Values = npt.NDArray[np.floating[Any]]
"""Nanoseconds, one a step; a recorded run's are 32 bits wide, of which a long one has many."""

_UNNAMED: Final = (UNNAMED, STREAM)
PART: Final = f"{READ}:"
"""Prefix of the names of what reads of a remote place waited for: `read:first-byte` is a stage of a read."""
AROUND: Final = 8
"""Steps to each side of one whose batches tell how crowded the cores were when it was handed over."""
_KEY: Final = ("loader", "epoch", "seq", "scope", "stage")
_FIGURES: Final = ("wall_ns", "cpu_ns", "runq_ns", "queue_ns", "bytes", "count")


@dataclass(slots=True)
class Stage:
    """Time that one stage took for each step; NaN, or None for all, if it was not observed."""

    wall_ns: Floats
    cpu_ns: Floats | None = None
    runq_ns: Floats | None = None
    queue_ns: Floats | None = None
    bytes: Floats | None = None
    count: Floats | None = None

    def part(self, kept: Ints) -> Stage:
        """Return the same of some steps."""
        others = (getattr(self, name) for name in _FIGURES[1:])
        return Stage(self.wall_ns[kept], *(None if column is None else column[kept] for column in others))


@dataclass(slots=True)
class Stages:
    """The stages of the batches that were taken, by name, one value a step."""

    making: dict[str, Stage] = field(default_factory=dict)
    """The wall time of `read` holds that of its parts."""
    parts: dict[str, Stage] = field(default_factory=dict)
    """Names of what reads of a remote place waited for: `client`, `first-byte`, `throttled`, `retry`."""
    loop: dict[str, Floats] = field(default_factory=dict)
    """Wall ns of what the user marked in the loop's body after the step's batch was taken."""

    @property
    def marked(self) -> Floats | None:
        """Return all that was marked in the loop's body after each step, in ns; None if nothing was."""
        return sum(list(self.loop.values())[1:], next(iter(self.loop.values()))) if self.loop else None

    def unmarked_ns(self, timeline: Timeline) -> Values:
        """Return how long the loop's body ran after each step, without what the user marked in it."""
        marked = 0.0 if self.marked is None else self.marked
        return np.asarray(np.maximum(timeline.in_body_ns - marked, 0))

    def part(self, kept: Ints) -> Stages:
        """Return the same of some steps."""
        making, parts = (
            {name: stage.part(kept) for name, stage in stages.items()} for stages in (self.making, self.parts)
        )
        return Stages(making, parts, {name: wall[kept] for name, wall in self.loop.items()})


def read_stages(run: Run, timeline: Timeline) -> Stages:
    """Stream the `stages` table into one array a stage and figure."""
    keys, stages, count = Keys.of(timeline), Stages(), len(timeline)
    streams = sorted(each.id for each in run.meta.loaders if each.iterable)
    for piece in run.pieces("stages", _KEY + _FIGURES):
        loaders = ints(piece["loader"])
        step = keys.find(loaders, ints(piece["epoch"]), ints(piece["seq"]))
        names = piece["stage"].combine_chunks()
        if hasattr(names, "chunks"):  # an empty piece
            continue
        codes, words = whole_numbers(names.indices, NOT_OBSERVED), names.dictionary.to_pylist()
        scope = ints(piece["scope"])
        figures = {name: ints(piece[name]) for name in _FIGURES}
        for code, word in enumerate(words):
            mine = np.flatnonzero((codes == code) & (step >= 0))
            made, looped = mine[scope[mine] != 1], mine[scope[mine] == 1]
            for name, rows in _by_kind(word, made, loaders, streams):
                where = stages.parts if name.startswith(PART) else stages.making
                stage = where.setdefault(name.removeprefix(PART), Stage(np.zeros(count, np.float32)))
                _add(stage, step[rows], {name: values[rows] for name, values in figures.items()})
            if len(looped):
                wall = stages.loop.setdefault(word, np.zeros(count, np.float32))
                np.add.at(wall, step[looped], figures["wall_ns"][looped])
    if timeline.unprobed is not None:
        _fill(stages, timeline)
    for part in stages.parts.values():
        stages.making.setdefault(READ, Stage(np.zeros(count, np.float32))).wall_ns += part.wall_ns
    return stages


def _fill(stages: Stages, timeline: Timeline) -> None:
    """Give each batch that was made unprobed the proportions of the one that stands for it.

    Its own inside was not observed. How long it took was, and its stages are scaled to that. One that no
    batch stands for has none, so that all of its time is `unknown`.
    """
    assert timeline.unprobed is not None and timeline.stand_in is not None
    rows = np.flatnonzero(timeline.unprobed & (timeline.stand_in >= 0))
    sources, scale = timeline.stand_in[rows], timeline.inside_scale[rows]
    named = {name: stage for name, stage in stages.making.items() if name != owners.STATE}
    for stage in (*named.values(), *stages.parts.values()):
        for figure in _FIGURES:
            column = getattr(stage, figure)
            if column is not None:
                column[rows] = column[sources] * (1 if figure in ("bytes", "count") else scale)


def _by_kind(word: str, rows: Ints, loaders: Ints, streams: list[int]) -> Iterator[tuple[str, Ints]]:
    """Give the rows of a stage under its name: the unnamed one of iterable data sets has another."""
    of_stream = np.isin(loaders[rows], streams) & (word == UNNAMED)
    for name, part in ((STREAM, rows[of_stream]), (word, rows[~of_stream])):
        if len(part):
            yield name, part


def _add(stage: Stage, steps: Ints, figures: dict[str, Ints]) -> None:
    np.add.at(stage.wall_ns, steps, np.maximum(figures["wall_ns"], 0).astype(np.float32))
    for name in _FIGURES[1:]:
        values = figures[name]
        seen = values != NOT_OBSERVED
        if seen.any():
            column = getattr(stage, name)
            if column is None:
                column = np.full(len(stage.wall_ns), np.nan, np.float32)
                setattr(stage, name, column)
            column[steps[seen]] = np.nan_to_num(column[steps[seen]]) + values[seen]


def with_state(timeline: Timeline, stages: Stages) -> Timeline:
    """Return the timeline with batches finished when the data set's state that travels with them was taken.

    If a state was taken at another time than before its batch was pickled, it is left out of `stages`.
    """
    stage = stages.making.get(owners.STATE)
    if stage is None:
        return timeline
    taken = np.where(np.isnan(stage.wall_ns), 0, stage.wall_ns).astype(np.int64)
    known = (timeline.finish_ns != NOT_OBSERVED) & (timeline.pickled_ns != NOT_OBSERVED)
    fits = known & (timeline.finish_ns + taken <= timeline.pickled_ns)
    stage.wall_ns[~fits] = 0
    if stage.cpu_ns is not None:
        stage.cpu_ns[~fits] = np.nan
    return replace(timeline, finish_ns=timeline.finish_ns + np.where(fits, taken, 0))


@dataclass(frozen=True, slots=True)
class Counters:
    """Counts taken while each step's batch was made, in ns; NaN if it was not observed."""

    wall: Floats
    cpu: Floats
    runq: Floats
    paged: npt.NDArray[np.bool_]
    """True if blocked time is the disk's: major faults, or device bytes and no read that was seen."""

    def part(self, kept: Ints) -> Counters:
        """Return the same of some steps."""
        return Counters(self.wall[kept], self.cpu[kept], self.runq[kept], self.paged[kept])

    @property
    def complete(self) -> npt.NDArray[np.bool_]:
        """Return True if CPU time and waiting for a core were counted."""
        return ~(np.isnan(self.cpu) | np.isnan(self.runq))


def read_counters(run: Run, timeline: Timeline, stages: Stages) -> Counters:
    """Read the batches' own counters, one value a step."""
    names = ("cpu_ns", "runq_ns", "major_faults", "device_bytes")
    columns = read_inside(run, timeline, names)
    cpu, runq, faults, disk = (columns[name] for name in names)
    made = (timeline.start_ns != NOT_OBSERVED) & (timeline.finish_ns != NOT_OBSERVED)
    wall = np.where(made, timeline.finish_ns - timeline.start_ns, 0).astype(np.float64)
    waited = with_stolen(run, timeline.finish_ns, wall, with_nan(cpu), with_nan(runq))
    reads = stages.making[READ].wall_ns > 0 if READ in stages.making else np.zeros(len(timeline), bool)
    paged = (faults > 0) | ((disk > 0) & ~reads)
    return Counters(
        wall.astype(np.float32), with_nan(cpu).astype(np.float32), waited.astype(np.float32), paged
    )


def with_nan(values: Ints) -> npt.NDArray[np.float64]:
    """Return floats, with NaN for what was not observed."""
    return np.where(values == NOT_OBSERVED, np.nan, values.astype(np.float64))


@dataclass(slots=True)
class Making:
    """Parts of the making of each batch, in ns by owner, one value a step: all sum to its wall.

    Storage is split: `storage:device`, `storage:queueing`, `storage:network`, ...
    """

    runq: Values
    """Time runnable and without a core."""
    cpu: dict[str, Values] = field(default_factory=dict)
    """Time on a core. That of reads is `storage` too."""
    away: dict[str, Values] = field(default_factory=dict)
    """Time neither on a core nor waiting for one."""
    reads_away: Values | None = None
    """Part of `away` that its reads took; None if there were none."""

    @property
    def owners(self) -> tuple[str, ...]:
        """Return all owners that may appear in the run, the fixed ones first."""
        named = dict.fromkeys((*self.cpu, *self.away))
        return owners.FIXED + tuple(name for name in named if name not in owners.FIXED)

    @property
    def wall(self) -> Values:
        """Return the time that the making of each batch took."""
        return np.asarray(sum((*self.cpu.values(), *self.away.values()), self.runq))

    @property
    def crowding(self) -> Floats:
        """Return the share of the time in which batches could have used a core and had none.

        Around each step, by the batches of `AROUND` steps before and after: a single one may be made in no
        time, and long before it is taken.
        """
        able = _around(sum(self.cpu.values(), self.runq))
        share = np.divide(_around(self.runq), able, out=np.zeros_like(able), where=able > 0)
        return np.asarray(share, dtype=np.float32)

    def shares(self) -> Shares:
        """Return the share of each of `owners` in each batch; each row sums to 1."""
        words = self.owners
        mixes = np.zeros((len(self.runq), len(words)), dtype=np.float32)
        mixes[:, CODE[owners.CPU_CONTENTION.name]] = self.runq
        for part in (self.cpu, self.away):
            for owner, ns in part.items():
                mixes[:, words.index(owner)] += ns
        return normalised(mixes)

    def add_cpu(self, owner: str, ns: Values) -> None:
        """Add time on a core."""
        _add_to(self.cpu, owner, ns)

    def add_away(self, owner: str, ns: Values) -> None:
        """Add time in which it was neither on a core nor waited for one."""
        _add_to(self.away, owner, ns)


def _around(values: Values) -> npt.NDArray[np.float64]:
    """Return the sum of `AROUND` values before and after each, itself included."""
    sums = np.append(0.0, np.cumsum(values, dtype=np.float64))
    place = np.arange(len(values))
    return np.asarray(sums[np.minimum(place + AROUND + 1, len(values))] - sums[np.maximum(place - AROUND, 0)])


def _add_to(amounts: dict[str, Values], owner: str, ns: Values) -> None:
    """Add to one owner's time; nothing at all takes no memory."""
    if ns.any():
        amounts[owner] = amounts[owner] + ns if owner in amounts else ns


def making_of(stages: Stages, counters: Counters, network: bool) -> Making:
    """Decompose the making of each batch. `network`: what no part of a read waited for is the network's."""
    walls = _walls(stages, counters.wall)
    blocked = _blocked(stages, walls, counters)
    waits = _core_waits(walls, blocked, counters)
    making = Making(sum(waits.values(), np.zeros_like(counters.wall)))
    for name, wall in walls.items():
        busy = wall - blocked[name] - waits[name]
        if name == READ:
            making.reads_away = blocked[name]
            _add_reads(making, stages, busy, blocked[name], network)
            continue
        known = np.isfinite(counters.cpu) if name in _UNNAMED else np.full(len(wall), bool(name))
        address = owners.of_stage(name) if name else owners.UNKNOWN.name
        making.add_cpu(address, busy * known)
        making.add_cpu(owners.UNKNOWN.name, busy * ~known)
        making.add_away(owners.STORAGE_DEVICE, blocked[name] * counters.paged)
        address = owners.BLOCKED.name if name in ("", *_UNNAMED) else address
        making.add_away(address, blocked[name] * ~counters.paged)
    return making


def _walls(stages: Stages, wall: Floats) -> dict[str, Floats]:
    """Return the wall of each stage, as the batch has room for it; under no name the rest of the batch."""
    walls = {name: stage.wall_ns for name, stage in stages.making.items()}
    named = sum(walls.values(), np.zeros_like(wall))
    shrink = np.minimum(1, np.divide(wall, named, out=np.ones_like(wall), where=named > 0))
    walls = {name: values * shrink for name, values in walls.items()}  # threads may overlap
    return {**walls, "": np.maximum(wall - named, 0)}


def _expected_cpu(name: str, stage: Stage) -> Floats:
    """Return a stage's CPU time: as read out, else in proportion to its requests or its time; 0 if none
    was."""
    if stage.cpu_ns is None:
        return np.zeros_like(stage.wall_ns)
    unit = stage.count if name == READ and stage.count is not None else stage.wall_ns
    seen = ~np.isnan(stage.cpu_ns) & (unit > 0)
    ratio = stage.cpu_ns[seen].sum() / unit[seen].sum() if seen.any() else np.float32(0)
    return np.where(np.isnan(stage.cpu_ns), np.nan_to_num(unit) * ratio, stage.cpu_ns).astype(np.float32)


def _rooms(stages: Stages, walls: dict[str, Floats]) -> dict[str, Floats]:
    """Return the largest part of each stage that can have been blocked."""
    rooms = dict(walls)
    for name, stage in stages.making.items():
        runq = np.float32(0) if stage.runq_ns is None else np.nan_to_num(stage.runq_ns)
        rooms[name] = np.clip(walls[name] - _expected_cpu(name, stage) - runq, 0, walls[name])
    return rooms


def _blocked(stages: Stages, walls: dict[str, Floats], counters: Counters) -> dict[str, Floats]:
    """Return blocked ns of each stage: the batch's own go to reads, then to unnamed code, then to all.

    For a batch whose CPU time was not counted, only the reads are taken to have blocked.
    """
    rooms, blocked = _rooms(stages, walls), {name: np.zeros_like(values) for name, values in walls.items()}
    left = _batch_blocked(counters)
    for name in (READ, *_UNNAMED, ""):
        if name in walls:
            blocked[name] = np.minimum(left, rooms[name])
            left = left - blocked[name]
    if READ in walls:
        blocked[READ] = np.where(np.isnan(counters.cpu), rooms[READ], blocked[READ])
    others = [name for name in walls if name not in (READ, *_UNNAMED, "")]
    space = sum((rooms[name] for name in others), np.zeros_like(left))
    share = np.minimum(1, np.divide(left, space, out=np.zeros_like(left), where=space > 0))
    for name in others:
        blocked[name] = rooms[name] * share
    return blocked


def _batch_blocked(counters: Counters) -> Floats:
    """Return blocked ns of the batch as a whole; 0 if it was not counted."""
    runq = np.minimum(np.nan_to_num(counters.runq), counters.wall)
    left = np.maximum(counters.wall - np.nan_to_num(counters.cpu) - runq, 0)
    return np.where(counters.complete, left, 0).astype(np.float32)


def _core_waits(
    walls: dict[str, Floats], blocked: dict[str, Floats], counters: Counters
) -> dict[str, Floats]:
    """Return the batch's waiting for a core, shared out over what its stages did not spend blocked."""
    runq = np.minimum(np.nan_to_num(counters.runq), counters.wall)
    busy = {name: np.maximum(values - blocked[name], 0) for name, values in walls.items()}
    total = sum(busy.values(), np.zeros_like(runq))
    share = np.minimum(1, np.divide(runq, total, out=np.zeros_like(runq), where=total > 0))
    return {name: values * share for name, values in busy.items()}


def _add_reads(making: Making, stages: Stages, busy: Floats, blocked: Floats, network: bool) -> None:
    """Charge the reads to the parts of storage, in proportion to the time of each; queueing is blocked."""
    stage = stages.making[READ]
    parts = sum((part.wall_ns for part in stages.parts.values()), np.ones_like(blocked))
    whole = np.maximum(stage.wall_ns, parts)
    queue = np.zeros_like(blocked) if stage.queue_ns is None else np.nan_to_num(stage.queue_ns)
    queueing = np.clip(queue, 0, blocked)
    making.add_away(owners.STORAGE_QUEUEING, queueing)
    rest: Values = np.ones_like(blocked)
    for name, part in stages.parts.items():
        owner, share = owners.STORAGE.called(name), part.wall_ns / whole
        owner = owner if owner in CODE else owners.STORAGE_NETWORK
        making.add_cpu(owner, busy * share)
        making.add_away(owner, (blocked - queueing) * share)
        rest = rest - share
    place, rest = owners.STORAGE_NETWORK if network else owners.STORAGE_DEVICE, np.maximum(rest, 0)
    making.add_cpu(place, busy * rest)
    making.add_away(place, (blocked - queueing) * rest)
