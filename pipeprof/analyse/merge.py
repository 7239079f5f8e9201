"""Puts the parts of a job together: two passes over the ranks, with one rank's record in memory at a time."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from pipeprof import trace
from pipeprof.analyse.attribution import attribute
from pipeprof.analyse.blame import Blame, Matrix
from pipeprof.analyse.facts import gather
from pipeprof.analyse.meetings import Grid, Meetings, align, meetings_of, of_one_kind, spans_of
from pipeprof.analyse.merged import OTHERS, Merged, RankRow
from pipeprof.analyse.shards import MOST_LISTED, Reading, ShardRow, late_for_data, reading_of, rows_of
from pipeprof.analyse.tiling import largest_remainder
from pipeprof.analyse.verdict import MIN_STEPS, Doubt
from pipeprof.errors import TraceError
from pipeprof.pipeline import NOT_OBSERVED, Ints
from pipeprof.trace import Run

MOST_NAMED: Final = 16
"""Ranks that one rank's ledger names; the rest of its waiting is for `rank:others`."""


class Waiting(NamedTuple):
    """One rank's row of the job before its waiting is charged, and where it waited."""

    row: RankRow
    waits_ns: Ints
    """By step, in its measured window."""
    met_ns: int
    """Length of its meetings in the measured window."""
    reading: Reading | None
    """The shards of its measured steps, where they are known."""


def merge(paths: Sequence[Path]) -> Merged:
    """Put the ranks below `paths` together: directories of jobs, of their parts, or both.

    Raises `TraceError` where there are none, and where they are not of one job.
    """
    directories = find_parts(paths)
    runs = {rank: trace.load(path) for rank, path in directories.items()}
    _of_one_job(runs)
    world_size = _world_size(runs)
    meetings = of_one_kind({rank: meetings_of(run) for rank, run in runs.items()})
    machines = {rank: str(run.meta.get("boot_id") or run.meta.get("host")) for rank, run in runs.items()}
    grid = align(meetings, machines)
    blame = Blame(grid.last)
    here = Counter(machines.values())
    found = [
        _attributed(directories[rank], here[machines[rank]], row, meetings[rank], grid, blame)
        for row, rank in enumerate(grid.ranks)
    ]
    emulated = sorted({part for run in runs.values() for part in run.meta.get("emulated") or []})
    doubts = [*_restarted(paths), *_doubts(grid, [one.row for one in found], world_size)]
    rows, waited_ns = _charged(found, grid, blame)
    shards = _shards(found, grid, waited_ns * late_for_data(blame.shares(), blame.owners))
    return Merged(rows, world_size, grid.clocks, grid.spread_ns, grid.recorded, emulated, doubts, shards)


def find_parts(paths: Sequence[Path]) -> dict[int, Path]:
    """The directory of each rank. Raises `TraceError` for none, for two of one rank, and for two jobs."""
    found: dict[int, Path] = {}
    jobs: dict[str, Path] = {}
    for path in paths:
        for rank, part in (trace.parts(path) or _single(path)).items():
            if rank in found:
                raise TraceError(
                    f"rank {rank} is in {found[rank]} and in {part}", "give the parts of one job, each once"
                )
            found[rank] = part
            with suppress(OSError, ValueError):
                job = json.dumps(json.loads((part.parent / "job.json").read_text()), sort_keys=True)
                jobs.setdefault(job, part)
    if len(jobs) > 1:
        raise TraceError(
            f"{' and '.join(str(part) for part in jobs.values())} are of different jobs",
            "merge one at a time",
        )
    return dict(sorted(found.items()))


def _single(path: Path) -> dict[int, Path]:
    rank = trace.load(path).meta.get("rank")
    if not isinstance(rank, int):
        raise TraceError(f"{path} is a run of one process and no part of a job", "see `pipeprof report`")
    return {rank: path}


def _of_one_job(runs: dict[int, Run]) -> None:
    """Raises `TraceError` where the parts say that they are not of one attempt of one job."""
    for key, kind in (("restart", "different attempts of a job"), ("job", "different jobs")):
        told: dict[str, Path] = {}
        for run in runs.values():
            if key in run.meta:
                told.setdefault(json.dumps(run.meta[key], sort_keys=True), run.directory)
        if len(told) > 1:
            first, second, *_ = told.values()
            raise TraceError(f"{first} and {second} are of {kind}", "merge one at a time")


def _restarted(paths: Sequence[Path]) -> list[Doubt]:
    """What came after a job's first attempt is not in its answer."""
    later = [attempt for path in paths for attempt in trace.attempts(path)]
    if not later:
        return []
    return [
        Doubt(
            "restarts",
            f"the job began again, and this is its first attempt alone, of {len(later) + 1}",
            f"see the last with `pipeprof report {later[-1]}`",
        )
    ]


def _world_size(runs: dict[int, Run]) -> int:
    told = {run.meta.get("world_size") for run in runs.values()}
    if len(told) > 1:
        raise TraceError(f"the parts are of jobs of {told} ranks", "merge one job at a time")
    size = told.pop()
    return size if isinstance(size, int) else max(runs) + 1


def _attributed(directory: Path, here: int, row: int, met: Meetings, grid: Grid, blame: Blame) -> Waiting:
    """Attribute one rank, add its path to `blame`, and keep what the job's answer needs of it.

    `here` ranks of its machine are merged: they share its cores, where no launcher has said how many do.
    """
    run = trace.load(directory)
    run.meta["local_world_size"] = run.meta.get("local_world_size") or here
    waits = grid.waits_ns(row)
    came, left = spans_of(met, waits)
    found = attribute(run, (came, left))
    base = _nothing(grid.ranks[row], directory, run)
    if found is None:
        return Waiting(base, np.zeros_like(waits), 0, None)
    steps = np.flatnonzero(met.came_ns != NOT_OBSERVED)
    blame.add(row, found.path, (came, left), steps)
    measured = (came >= found.window.start_ns) & (left <= found.window.end_ns)
    inside = np.zeros_like(waits)
    inside[steps[measured]] = waits[steps[measured]]
    gathered = gather(run, found)
    told = replace(
        base,
        steps=gathered.batches,
        wall_ns=found.window.wall_ns,
        ledger_ns=found.whole.ledger_ns,
        samples=gathered.samples,
        facts=gathered,
    )
    reading = reading_of(run, found.timeline, steps[measured])
    return Waiting(told, inside, int((left - came)[measured].sum()), reading)


def _nothing(rank: int, directory: Path, run: Run) -> RankRow:
    """What a rank says that recorded no measured step."""
    return RankRow(
        rank=rank,
        node=run.meta.get("node"),
        host=run.meta.get("host"),
        local_rank=run.meta.get("local_rank"),
        directory=directory,
        status=run.status,
    )


def _charged(found: list[Waiting], grid: Grid, blame: Blame) -> tuple[list[RankRow], Matrix]:
    """Every rank with its waiting charged to those it waited for, and to what had made them late.

    And what all together waited, by step.
    """
    shares = blame.shares()
    costs = np.zeros((len(found), len(blame.owners)))
    waited_ns = np.zeros(len(grid.last))
    rows = []
    for one in found:
        weights = _weights(one.waits_ns, grid.last, shares, len(found))
        row, charged = _with_waiting(one, weights, grid, blame.owners)
        costs += charged
        waited_ns += one.waits_ns * (row.waited_ns / max(1.0, weights.sum()))
        rows.append(row)
    rows = [
        replace(row, cost_ns={blame.owners[i]: round(ns) for i, ns in enumerate(costs[at]) if round(ns)})
        for at, row in enumerate(rows)
    ]
    return rows, waited_ns


def _shards(found: list[Waiting], grid: Grid, cost_ns: Matrix) -> list[ShardRow] | None:
    """The shards that cost the others most; None where no rank's are known."""
    rows = [
        row
        for at, one in enumerate(found)
        if one.reading is not None
        for row in rows_of(one.row.rank, one.reading, np.where(grid.last == at, cost_ns, 0.0))
    ]
    return sorted(rows, key=lambda row: -row.caused_ns)[:MOST_LISTED] if rows else None


def _weights(waits: Ints, last: Ints, shares: Matrix, count: int) -> Matrix:
    """Nanoseconds waited, by the rank waited for and the owner that made it late: (ranks, owners)."""
    waited = np.flatnonzero((waits > 0) & (last != NOT_OBSERVED))
    weights = np.zeros((count, shares.shape[1]))
    np.add.at(weights, last[waited], shares[waited] * waits[waited, None])
    return weights


def _with_waiting(one: Waiting, weights: Matrix, grid: Grid, owners: list[str]) -> tuple[RankRow, Matrix]:
    """The row with `collective` of its ledger split; and what of it was charged, to whom and what."""
    row, ledger = one.row, dict(one.row.ledger_ns)
    met = ledger.pop("collective", 0)
    total = float(weights.sum())
    if met == 0 or total == 0:
        return row, np.zeros_like(weights)
    waited = round(met * min(1.0, total / max(1, one.met_ns)))
    charged = weights * (waited / total)
    named = np.argsort(-charged.sum(axis=1), kind="stable")[:MOST_NAMED]
    parts = {
        f"rank:{grid.ranks[rank]}:{owners[owner]}": charged[rank, owner]
        for rank in named.tolist()
        for owner in np.flatnonzero(charged[rank]).tolist()
    }
    parts[OTHERS] = max(0.0, waited - sum(parts.values()))
    whole = largest_remainder(np.array(list(parts.values())), waited)
    ledger |= {owner: int(ns) for owner, ns in zip(parts, whole, strict=True) if ns}
    if met > waited:
        ledger["collective"] = met - waited
    return replace(row, ledger_ns=ledger, waited_ns=waited), charged


def _doubts(grid: Grid, rows: list[RankRow], world_size: int) -> list[Doubt]:
    found = []
    missing = sorted(set(range(world_size)) - {row.rank for row in rows})
    if missing:
        which = ", ".join(map(str, missing[:8])) + (" and more" if len(missing) > 8 else "")
        found.append(
            Doubt(
                "missing-ranks",
                f"of {world_size} ranks {len(missing)} are not here: {which}",
                "their part is not in what is merged: add the directories of all nodes",
            )
        )
    torn = [row.rank for row in rows if row.status != "complete"]
    if torn:
        which = ", ".join(f"{row.rank} is {row.status}" for row in rows if row.status != "complete")
        found.append(Doubt("partial-ranks", f"rank {which[:200]}", "what was measured until then is counted"))
    if rows and max(row.steps for row in rows) < MIN_STEPS:
        found.append(
            Doubt("too-few-steps", "no rank has enough steps", f"measure at least {MIN_STEPS} steps")
        )
    if not grid.recorded:
        found.append(
            Doubt(
                "inferred-meetings",
                "the waiting for other ranks is inferred from how long the steps' bodies took",
                "a rank that is slow in computing cannot be told from the others so",
            )
        )
    if any(clock.residual_ns is None for clock in list(grid.clocks.values())[1:]):
        found.append(
            Doubt(
                "clocks",
                "some machines' clocks could not be aligned",
                "their ranks share no step with the others",
            )
        )
    return found
