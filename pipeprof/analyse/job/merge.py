"""The merging of a job's parts: two passes over the ranks, with one rank's record in memory at a time."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from pipeprof.analyse.analysis import judged
from pipeprof.analyse.figures import gather
from pipeprof.analyse.job.cores import shared_out
from pipeprof.analyse.job.lateness import Blame, Matrix
from pipeprof.analyse.job.meetings import Grid, Meetings, align, meetings_of, of_one_kind, spans_of
from pipeprof.analyse.job.merged import JobAnalysis, RankRow
from pipeprof.analyse.job.shards import MOST_LISTED, Reading, ShardRow, late_for_data, reading_of, rows_of
from pipeprof.analyse.job.unobserved import Unobserved
from pipeprof.analyse.ledger.attribution import attribute
from pipeprof.analyse.ledger.tiling import add_up, largest_remainder
from pipeprof.analyse.verdict import ENOUGH, MIN_STEPS, MIN_WALL_NS, TOO_FEW_STEPS, TOO_SHORT, Doubt
from pipeprof.errors import TraceError
from pipeprof.record import directories, reader
from pipeprof.record.meta import ChosenRanks, JobMeta
from pipeprof.record.plain_files import read_text
from pipeprof.record.reader import Run
from pipeprof.record.schema import JOB_JSON
from pipeprof.timeline import NOT_OBSERVED, Ints
from pipeprof.vocabulary import owners

MOST_NAMED: Final = 16
"""Largest number of ranks that one rank's ledger names; the rest of its waiting is for `rank:others`."""


class RankWait(NamedTuple):
    """A rank's row of the job before its waiting is charged, and where it waited."""

    row: RankRow
    waits_ns: Ints
    """Ns waited by step, in its measured window."""
    met_ns: int
    """Length of its meetings in the measured window."""
    reading: Reading | None
    """Shards of its measured steps, if they are known."""


def merge(paths: Sequence[Path], open_run: Callable[[Path], Run] = reader.load) -> JobAnalysis:
    """Put the ranks below `paths` together: directories of jobs, of their parts, or both.

    `open_run` opens each of them: `Sharing.open` does it without the names in them.

    A part that cannot be read is left out, with a doubt. Raises `TraceError` if none can be, and if they are
    not of one job.
    """
    directories = find_parts(paths)
    runs, met, errors = _read(directories, open_run)
    _of_one_job(runs)
    while True:
        try:
            return _merged(paths, directories, runs, met, errors)
        except _DamagedPartError as damaged:  # the others are put together again, without it
            errors[damaged.rank] = damaged.error
            del runs[damaged.rank], met[damaged.rank]
            if not runs:
                raise damaged.error from damaged


class _DamagedPartError(Exception):
    """A part whose tables cannot be read to their end."""

    def __init__(self, rank: int, error: TraceError) -> None:
        super().__init__(rank, error)
        self.rank, self.error = rank, error


def _merged(
    paths: Sequence[Path],
    directories: dict[int, Path],
    runs: dict[int, Run],
    met: dict[int, Meetings],
    errors: dict[int, TraceError],
) -> JobAnalysis:
    """Put the ranks of `runs` together. Raises `_DamagedPartError` if one of them is damaged."""
    world_size = _world_size(runs)
    meetings = of_one_kind(met)
    machines = {rank: run.meta.boot_id or run.meta.host or "" for rank, run in runs.items()}
    grid = align(meetings, machines)
    waits, blame = _attributed_all(directories, runs, machines, meetings, grid)
    emulated = sorted({part for run in runs.values() for part in run.meta.emulated})
    rows, waited_ns = _charged(waits, grid, blame)
    chosen = next((run.meta.chosen for run in runs.values() if run.meta.chosen.known), ChosenRanks())
    missing = sorted(set(range(world_size)) - runs.keys())
    lost = [rank for rank in missing if chosen.holds(rank)]
    unreadable = [
        Doubt("unreadable-ranks", f"rank {rank} is left out: {error.problem}", error.remedy)
        for rank, error in errors.items()
    ]
    doubts = [*_restarted(paths), *unreadable, *_doubts(grid, rows, lost, world_size)]
    unobserved = _unobserved(chosen, len(missing) - len(lost), rows, world_size, grid.recorded)
    shards = _shards(waits, grid, waited_ns * late_for_data(blame.shares(), blame.owners))
    return JobAnalysis(
        rows, world_size, grid.clocks, grid.spread_ns, grid.recorded, emulated, doubts, shards, unobserved
    )


def _read(
    directories: dict[int, Path], open_run: Callable[[Path], Run]
) -> tuple[dict[int, Run], dict[int, Meetings], dict[int, TraceError]]:
    """Open each rank's run, and read where it met the others; and what went wrong with some."""
    runs: dict[int, Run] = {}
    meetings: dict[int, Meetings] = {}
    errors: dict[int, TraceError] = {}
    for rank, path in directories.items():
        try:
            run = open_run(path)
            meetings[rank] = meetings_of(run)
            runs[rank] = run.reopened()  # one rank's tables are in memory at a time
        except TraceError as error:
            errors[rank] = error
    if errors and not runs:
        raise next(iter(errors.values()))
    return runs, meetings, errors


def find_parts(paths: Sequence[Path]) -> dict[int, Path]:
    """Find each rank's directory. Raises `TraceError` for no rank, a duplicate rank, or several jobs."""
    by_rank: dict[int, Path] = {}
    jobs: dict[str, Path] = {}
    for path in paths:
        for rank, part in (directories.parts(path) or _single(path)).items():
            if rank in by_rank:
                raise TraceError(
                    f"rank {rank} is in {by_rank[rank]} and in {part}", "give the parts of one job, each once"
                )
            by_rank[rank] = part
            with suppress(OSError, ValueError, RecursionError, TraceError):
                job = json.dumps(json.loads(read_text(part.parent / JOB_JSON)), sort_keys=True)
                jobs.setdefault(job, part)
    if len(jobs) > 1:
        raise TraceError(
            f"{' and '.join(str(part) for part in jobs.values())} are of different jobs",
            "merge one at a time",
        )
    return dict(sorted(by_rank.items()))


def _single(path: Path) -> dict[int, Path]:
    rank = reader.load(path).meta.rank
    if rank is None:
        raise TraceError(f"{path} is a run of one process and no part of a job", "see `pipeprof report`")
    return {rank: path}


def _of_one_job(runs: dict[int, Run]) -> None:
    """Raise `TraceError` if the parts say that they are not of one attempt of one job."""
    restarts: dict[int, Path] = {}
    jobs: dict[JobMeta, Path] = {}
    for run in runs.values():
        if run.meta.restart is not None:
            restarts.setdefault(run.meta.restart, run.directory)
        if run.meta.job.known:
            jobs.setdefault(run.meta.job, run.directory)
    for parts_by_id, kind in ((restarts, "different attempts of a job"), (jobs, "different jobs")):
        if len(parts_by_id) > 1:
            first, second, *_ = parts_by_id.values()
            raise TraceError(f"{first} and {second} are of {kind}", "merge one at a time")


def _restarted(paths: Sequence[Path]) -> list[Doubt]:
    """Report that what came after a job's first attempt is not in its answer."""
    later = [attempt for path in paths for attempt in directories.attempts(path)]
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
    sizes = {run.meta.world_size for run in runs.values()}
    if len(sizes) > 1:
        raise TraceError(f"the parts are of jobs of {sizes} ranks", "merge one job at a time")
    size = sizes.pop()
    return max(runs) + 1 if size is None else size


def _attributed_all(
    directories: dict[int, Path],
    runs: dict[int, Run],
    machines: dict[int, str],
    meetings: dict[int, Meetings],
    grid: Grid,
) -> tuple[list[RankWait], Blame]:
    """Attribute all ranks, on all cores, and put down what made the late ones late.

    Raises `_DamagedPartError` if one of them is damaged.
    """
    here = Counter(machines.values())
    blame, _ = Blame(grid.last), grid.latest_ns  # made once, before the work is shared out

    def some(rows: Sequence[int]) -> tuple[dict[int, RankWait], Blame]:
        waits, own = {}, Blame(grid.last)
        for row in rows:
            rank = grid.ranks[row]
            run, ranks_here = runs[rank].reopened(), here[machines[rank]]
            try:
                waits[row] = _attributed(directories[rank], run, ranks_here, row, meetings[rank], grid, own)
            except TraceError as error:
                raise _DamagedPartError(rank, error) from error
        return waits, own

    waits: dict[int, RankWait] = {}
    for part, own in shared_out(some, len(grid.ranks)):
        waits |= part
        blame.absorb(own)
    return [waits[row] for row in range(len(grid.ranks))], blame


def _attributed(
    directory: Path, run: Run, here: int, row: int, met: Meetings, grid: Grid, blame: Blame
) -> RankWait:
    """Attribute one rank, add its path to `blame`, and keep what the job's answer needs of it.

    `here` ranks of its machine are merged: they share its cores, if no launcher has said how many do.
    """
    run.meta = replace(run.meta, local_world_size=run.meta.local_world_size or here)
    for name in ("steps", "batches"):  # some of their columns are asked for five times
        run.table(name)
    waits = grid.waits_ns(row)
    came, left = spans_of(met, waits)
    attribution = attribute(run, (came, left))
    base = _nothing(grid.ranks[row], directory, run)
    if attribution is None:
        return RankWait(base, np.zeros_like(waits), 0, None)
    steps = np.flatnonzero(met.came_ns != NOT_OBSERVED)
    blame.add(row, attribution.path, (came, left), steps)
    measured = attribution.window.holds(came) & attribution.window.holds(left)
    inside = np.zeros_like(waits)
    inside[steps[measured]] = waits[steps[measured]]
    gathered = gather(run, attribution)
    measured_row = replace(
        base,
        steps=gathered.batches,
        wall_ns=attribution.window.wall_ns,
        ledger_ns=attribution.whole.ledger_ns,
        samples=gathered.samples,
        facts=gathered,
        verdict=judged(run, attribution, gathered),
    )
    reading = reading_of(run, attribution.timeline, steps[measured])
    return RankWait(measured_row, inside, int((left - came)[measured].sum()), reading)


def _nothing(rank: int, directory: Path, run: Run) -> RankRow:
    """Return the row of a rank that recorded no measured step."""
    return RankRow(
        rank=rank,
        node=run.meta.node,
        host=run.meta.host,
        local_rank=run.meta.local_rank,
        directory=directory,
        status=run.status,
    )


def _charged(waits: list[RankWait], grid: Grid, blame: Blame) -> tuple[list[RankRow], Matrix]:
    """Charge every rank's waiting to those it waited for, and to what had made them late.

    And what all together waited, by step.
    """
    shares = blame.shares()
    late = np.unique(grid.last[grid.last != NOT_OBSERVED])  # of thousands of ranks few are ever the last
    place = np.where(grid.last == NOT_OBSERVED, NOT_OBSERVED, np.searchsorted(late, grid.last))
    late_ranks = [grid.ranks[row] for row in late.tolist()]
    costs = np.zeros((len(waits), len(blame.owners)))
    waited_ns = np.zeros(len(grid.last))
    rows = []
    for waiting in waits:
        weights = _weights(waiting.waits_ns, place, shares, len(late))
        row, charged = _with_waiting(waiting, weights, late_ranks, blame.owners)
        costs[late] += charged
        waited_ns += waiting.waits_ns * (row.waited_ns / max(1.0, weights.sum()))
        rows.append(row)
    rows = [
        replace(row, cost_ns={blame.owners[i]: round(ns) for i, ns in enumerate(costs[at]) if round(ns)})
        for at, row in enumerate(rows)
    ]
    return rows, waited_ns


def _shards(waits: list[RankWait], grid: Grid, cost_ns: Matrix) -> list[ShardRow] | None:
    """Return the shards that cost the others most; None if no rank's are known."""
    rows = [
        row
        for at, waiting in enumerate(waits)
        if waiting.reading is not None
        for row in rows_of(waiting.row.rank, waiting.reading, np.where(grid.last == at, cost_ns, 0.0))
    ]
    return sorted(rows, key=lambda row: -row.caused_ns)[:MOST_LISTED] if rows else None


def _weights(waits: Ints, last: Ints, shares: Matrix, count: int) -> Matrix:
    """Return the nanoseconds waited, by the rank waited for and the owner making it late: (ranks, owners)."""
    waited = np.flatnonzero((waits > 0) & (last != NOT_OBSERVED))
    by_owner = [add_up(last[waited], share * waits[waited], count) for share in shares[waited].T]
    return np.stack(by_owner, axis=1)


def _with_waiting(
    waiting: RankWait, weights: Matrix, late_ranks: list[int], late_for: list[str]
) -> tuple[RankRow, Matrix]:
    """Return the row with `collective` of its ledger split; and what of it was charged, to whom and what."""
    row, ledger = waiting.row, dict(waiting.row.ledger_ns)
    met = ledger.pop(owners.COLLECTIVE.name, 0)
    total = float(weights.sum())
    if met == 0 or total == 0:
        return row, np.zeros_like(weights)
    waited = round(met * min(1.0, total / max(1, waiting.met_ns)))
    charged = weights * (waited / total)
    named = np.argsort(-charged.sum(axis=1), kind="stable")[:MOST_NAMED]
    parts = {
        owners.waiting_for(late_ranks[row], late_for[owner]): charged[row, owner]
        for row in named.tolist()
        for owner in np.flatnonzero(charged[row]).tolist()
    }
    parts[owners.waiting_for(None)] = max(0.0, waited - sum(parts.values()))
    whole = largest_remainder(np.array(list(parts.values())), waited)
    ledger |= {owner: int(ns) for owner, ns in zip(parts, whole, strict=True) if ns}
    if met > waited:
        ledger[owners.COLLECTIVE.name] = met - waited
    return replace(row, ledger_ns=ledger, waited_ns=waited), charged


def _unobserved(
    chosen: ChosenRanks, ranks: int, rows: list[RankRow], world_size: int, recorded: bool
) -> Unobserved | None:
    """Return what the answer leaves open about `ranks` unobserved ranks; None if all were observed."""
    if ranks == 0:
        return None
    wall = sum(row.wall_ns for row in rows)
    met = sum(row.ledger_ns.get(owners.COLLECTIVE.name, 0) for row in rows)
    return Unobserved(chosen.text, ranks, world_size, met / wall if recorded and wall else None)


def _doubts(grid: Grid, rows: list[RankRow], missing: list[int], world_size: int) -> list[Doubt]:
    """Return the doubts about the job's answer; `missing` are ranks whose parts should be there."""
    doubts = []
    if missing:
        which = ", ".join(map(str, missing[:8])) + (" and more" if len(missing) > 8 else "")
        doubts.append(
            Doubt(
                "missing-ranks",
                f"of {world_size} ranks {len(missing)} are not here: {which}",
                "their part is not in what is merged: add the directories of all nodes",
            )
        )
    torn = [row.rank for row in rows if row.status != "complete"]
    if torn:
        which = ", ".join(f"{row.rank} is {row.status}" for row in rows if row.status != "complete")
        doubts.append(
            Doubt("partial-ranks", f"rank {which[:200]}", "what was measured until then is counted")
        )
    if rows and max(row.steps for row in rows) < MIN_STEPS:
        doubts.append(Doubt(TOO_FEW_STEPS, "no rank has enough steps", ENOUGH))
    elif rows and max(row.wall_ns for row in rows) < MIN_WALL_NS:
        doubts.append(Doubt(TOO_SHORT, "no rank was measured for long enough", ENOUGH))
    if not grid.recorded:
        doubts.append(
            Doubt(
                "inferred-meetings",
                "the waiting for other ranks is inferred from how long the steps' bodies took",
                "a rank that computes slowly cannot be distinguished from the others this way",
            )
        )
    if any(clock.residual_ns is None for clock in list(grid.clocks.values())[1:]):
        doubts.append(
            Doubt(
                "clocks",
                "some machines' clocks could not be aligned",
                "their ranks share no step with the others",
            )
        )
    return doubts
