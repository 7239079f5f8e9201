"""Splits the making of a batch among its owners, by what was measured while it was made.

wall = CPU + waiting for a core + blocked (PROBE_NOTES §3). Per stage where the stage was measured
so; else the batch's own counters are shared out:

- reads are `storage`, less their share of waiting for a core; those of a remote place split further by what
  was waited for (`measure.remote_requests`);
- a stage's time is the stage's, whether it computes or blocks: its name is the best address there is;
- `getitem` (code of the user's that nobody named) is `blocked` as far as it blocked, else `stage:getitem`;
- blocked time outside reads is `storage` where the batch had major page faults, or bytes from a device and no
  read that was seen (readers written in C, mmap);
- waiting for a core is `cpu-contention`, wherever it happened;
- what no stage covers is `unknown`, except as far as it blocked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeprof.analyse.stolen import with_stolen
from pipeprof.analyse.tiling import ALWAYS, CODE, Shares
from pipeprof.pipeline import NOT_OBSERVED, Ints, Keys, Timeline, ints, read_ints, take
from pipeprof.trace import Run

Floats = npt.NDArray[np.float32]

READ: Final = "read"
PART: Final = f"{READ}:"
"""Begins the names of what reads of a remote place waited for: `read:first-byte` is one stage of a read."""
UNNAMED: Final = "getitem"
_KEY: Final = ("loader", "epoch", "seq", "scope", "stage")
_FIGURES: Final = ("wall_ns", "cpu_ns", "runq_ns", "queue_ns", "bytes", "count")


@dataclass(slots=True)
class Stage:
    """What one stage took for each step; NaN, or None for all, where it was not observed."""

    wall_ns: Floats
    cpu_ns: Floats | None = None
    runq_ns: Floats | None = None
    queue_ns: Floats | None = None
    bytes: Floats | None = None
    count: Floats | None = None


@dataclass(slots=True)
class Stages:
    """The stages of the batches that were taken, by name, one value a step."""

    making: dict[str, Stage] = field(default_factory=dict)
    """The wall time of `read` holds that of its parts."""
    parts: dict[str, Stage] = field(default_factory=dict)
    """What reads of a remote place waited for: `client`, `first-byte`, `throttled`, `retry`."""
    loop: dict[str, Floats] = field(default_factory=dict)
    """Wall ns of what the user marked in the loop's body after the step's batch was taken."""


def read_stages(run: Run, timeline: Timeline) -> Stages:
    """Stream the `stages` table into one array a stage and figure."""
    keys, found, count = Keys.of(timeline), Stages(), len(timeline)
    for piece in run.pieces("stages", _KEY + _FIGURES):
        step = keys.find(ints(piece["loader"]), ints(piece["epoch"]), ints(piece["seq"]))
        names = piece["stage"].combine_chunks()
        if hasattr(names, "chunks"):  # an empty piece
            continue
        codes, words = np.asarray(names.indices.fill_null(-1)), names.dictionary.to_pylist()
        scope = ints(piece["scope"])
        figures = {name: ints(piece[name]) for name in _FIGURES}
        for code, word in enumerate(words):
            mine = np.flatnonzero((codes == code) & (step >= 0))
            made, looped = mine[scope[mine] != 1], mine[scope[mine] == 1]
            if len(made):
                where = found.parts if word.startswith(PART) else found.making
                stage = where.setdefault(word.removeprefix(PART), Stage(np.zeros(count, np.float32)))
                _add(stage, step[made], {name: values[made] for name, values in figures.items()})
            if len(looped):
                wall = found.loop.setdefault(word, np.zeros(count, np.float32))
                np.add.at(wall, step[looped], figures["wall_ns"][looped])
    for part in found.parts.values():
        found.making.setdefault(READ, Stage(np.zeros(count, np.float32))).wall_ns += part.wall_ns
    return found


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


def owner_of(stage: str) -> str:
    """The owner that a stage of a batch's making is charged to while it computes."""
    if stage in ("decode", "collate") or stage.startswith(("transform:", "stage:")):
        return stage
    return f"stage:{stage}"


def owners_of(stages: Stages) -> tuple[str, ...]:
    """All owners that may appear in a run with these stages, the fixed ones first."""
    named = dict.fromkeys(owner_of(name) for name in stages.making if name != READ)
    return ALWAYS + tuple(name for name in named if name not in ALWAYS)


@dataclass(frozen=True, slots=True)
class Counters:
    """What was counted while each step's batch was made, in ns; NaN where it was not observed."""

    wall: Floats
    cpu: Floats
    runq: Floats
    paged: npt.NDArray[np.bool_]
    """Blocked time is the disk's: major faults, or device bytes and no read that was seen."""


def read_counters(run: Run, timeline: Timeline, stages: Stages) -> Counters:
    """The batches' own counters, one value a step."""
    names = ("cpu_ns", "runq_ns", "major_faults", "device_bytes")
    found = read_ints(run, "batches", names)
    cpu, runq, faults, disk = (take(found.pop(name), timeline.batch_row) for name in names)
    made = (timeline.start_ns != NOT_OBSERVED) & (timeline.finish_ns != NOT_OBSERVED)
    wall = np.where(made, timeline.finish_ns - timeline.start_ns, 0).astype(np.float64)
    waited = with_stolen(run, timeline.finish_ns, wall, with_nan(cpu), with_nan(runq))
    reads = stages.making[READ].wall_ns > 0 if READ in stages.making else np.zeros(len(timeline), bool)
    paged = (faults > 0) | ((disk > 0) & ~reads)
    return Counters(
        wall.astype(np.float32), with_nan(cpu).astype(np.float32), waited.astype(np.float32), paged
    )


def with_nan(values: Ints) -> npt.NDArray[np.float64]:
    """As floats, with NaN for what was not observed."""
    return np.where(values == NOT_OBSERVED, np.nan, values.astype(np.float64))


def making_mixes(stages: Stages, counters: Counters, owners: tuple[str, ...], network: bool) -> Shares:
    """For each step, the share of each owner in the making of its batch; each row sums to 1."""
    code = {name: i for i, name in enumerate(owners)}
    mixes = np.zeros((len(counters.wall), len(owners)), dtype=np.float32)
    wall = counters.wall
    walls = {name: stage.wall_ns for name, stage in stages.making.items()}
    named = sum(walls.values(), np.zeros_like(wall))
    shrink = np.minimum(1, np.divide(wall, named, out=np.ones_like(wall), where=named > 0))
    walls = {name: values * shrink for name, values in walls.items()}  # threads may overlap
    walls[""] = np.maximum(wall - named, 0)
    blocked_left, runq = _counted(counters)
    blocked = _blocked(stages, walls, blocked_left)
    waits = _core_waits(walls, blocked, runq)
    away = np.where(counters.paged, np.float32(1), np.float32(0))
    for name, values in walls.items():
        working = values - blocked[name] - waits[name]
        if name == READ:
            _charge_reads(mixes, stages, values - waits[name], network)
        elif name in ("", UNNAMED):
            told = np.float32(0) if name == "" else np.float32(1) * ~np.isnan(counters.cpu)
            mixes[:, code[owner_of(UNNAMED)] if name else CODE["unknown"]] += working * told
            mixes[:, CODE["unknown"]] += working * (1 - told)
            mixes[:, CODE["storage:device"]] += blocked[name] * away
            mixes[:, CODE["blocked"]] += blocked[name] * (1 - away)
        else:
            mixes[:, code[owner_of(name)]] += working + blocked[name] * (1 - away)
            mixes[:, CODE["storage:device"]] += blocked[name] * away
        mixes[:, CODE["cpu-contention"]] += waits[name]
    return _normalised(mixes)


def _normalised(mixes: Shares) -> Shares:
    np.maximum(mixes, 0, out=mixes)
    total = mixes.sum(axis=1)
    empty = total <= 0
    mixes[empty, CODE["unknown"]] = 1
    mixes /= np.where(empty, 1, total)[:, None]
    return mixes


def _counted(counters: Counters) -> tuple[Floats, Floats]:
    """Blocked and waiting for a core, of the batch as a whole; 0 where it was not counted."""
    runq = np.minimum(np.nan_to_num(counters.runq), counters.wall)
    known = ~(np.isnan(counters.cpu) | np.isnan(counters.runq))
    blocked = np.where(known, np.maximum(counters.wall - np.nan_to_num(counters.cpu) - runq, 0), 0)
    return blocked.astype(np.float32), runq.astype(np.float32)


def _blocked(stages: Stages, walls: dict[str, Floats], left: Floats) -> dict[str, Floats]:
    """Blocked ns of each stage: the batch's own go to reads, then to unnamed code, then to all."""
    found = {name: np.zeros_like(left) for name in walls}
    rooms: dict[str, Floats] = {}
    for name, values in walls.items():
        stage = stages.making.get(name)
        room = values
        if stage is not None and stage.cpu_ns is not None:
            runq = np.zeros_like(values) if stage.runq_ns is None else np.nan_to_num(stage.runq_ns)
            room = np.where(np.isnan(stage.cpu_ns), values, np.clip(values - stage.cpu_ns - runq, 0, values))
        rooms[name] = room.astype(np.float32)
    for name in (READ, UNNAMED, ""):
        if name in walls:
            found[name] = np.minimum(left, rooms[name])
            left = left - found[name]
    others = [name for name in walls if name not in (READ, UNNAMED, "")]
    space = sum((rooms[name] for name in others), np.zeros_like(left))
    share = np.minimum(1, np.divide(left, space, out=np.zeros_like(left), where=space > 0))
    for name in others:
        found[name] = rooms[name] * share
    return found


def _core_waits(walls: dict[str, Floats], blocked: dict[str, Floats], runq: Floats) -> dict[str, Floats]:
    """The batch's waiting for a core, shared out over what its stages did not spend blocked."""
    busy = {name: np.maximum(values - blocked[name], 0) for name, values in walls.items()}
    total = sum(busy.values(), np.zeros_like(runq))
    share = np.minimum(1, np.divide(runq, total, out=np.zeros_like(runq), where=total > 0))
    return {name: values * share for name, values in busy.items()}


def _charge_reads(mixes: Shares, stages: Stages, wall: Floats, network: bool) -> None:
    stage = stages.making[READ]
    queue = np.zeros_like(wall) if stage.queue_ns is None else np.nan_to_num(stage.queue_ns)
    queueing = np.clip(queue, 0, wall)
    mixes[:, CODE["storage:queueing"]] += queueing
    left = wall - queueing
    whole = np.maximum(stage.wall_ns, 1)
    for name, part in stages.parts.items():
        waited = wall * (part.wall_ns / whole)
        mixes[:, CODE.get(f"storage:{name}", CODE["storage:network"])] += waited
        left = left - waited
    mixes[:, CODE["storage:network" if network else "storage:device"]] += np.maximum(left, 0)
