"""The counts that users ask for: percentiles of waits and stages, queue depth, balance, drift.

All of the measured window. A count that was not observed is None, or missing from its mapping; never 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeprof.analyse.ledger.attribution import Attribution
from pipeprof.analyse.over_time import codes
from pipeprof.analyse.rates import batch_means
from pipeprof.analyse.why.transfer import Way, way_of
from pipeprof.passes import NOT_OBSERVED, Ints, Window
from pipeprof.record.reader import Run
from pipeprof.timeline import ints, read_ints
from pipeprof.vocabulary import owners

NO_CODE: Final = -2
"""Code of a stage that no row has; null is -1."""
DRIFT_PARTS: Final = 4
"""Number of equal parts of a run; drift compares the first with the last."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Percentiles of a time per batch, in ns."""

    count: int
    mean_ns: float
    p50_ns: int
    p95_ns: int
    p99_ns: int
    max_ns: int

    def quantiles(self) -> dict[str, int]:
        """Return the percentiles by name, in ns, those that so many values can have: one in twenty of 20."""
        all_of_them = (("p50", self.p50_ns, 1), ("p95", self.p95_ns, 20), ("p99", self.p99_ns, 100))
        return {name: ns for name, ns, least in all_of_them if self.count >= least}


@dataclass(frozen=True, slots=True)
class SingleReads:
    """Percentiles of the reads that were recorded individually: p50, p95, p99 and the largest."""

    wall_ns: tuple[float, float, float, float] | None
    size_bytes: tuple[float, float, float, float] | None


@dataclass(frozen=True, slots=True)
class WorkerShare:
    """Work of a single worker in the measured window."""

    loader: int
    worker: int
    """Number of the worker; -1 is the main process."""
    batches: int
    busy_share: float
    """Share of the window in which it made a batch. Far below the others': it waits for its turn."""
    mean_ns: float | None
    """Mean time to make one of its batches; None if none was finished."""


@dataclass(frozen=True, slots=True)
class Depth:
    """Finished batches that waited to be taken."""

    mean: float
    empty_share: float
    """Share of the window with none ready. Near 1: the loop takes each batch as it comes."""
    next_ready_share: float
    """Share with the next batch in line ready. With in-order delivery others may be ready and useless."""


@dataclass(frozen=True, slots=True)
class Drift:
    """Change in the length of a step from the start of the run to its end."""

    share: float
    """Share by which a step takes longer in the last quarter than in the first; 0.1: 10% longer."""
    significant: bool
    """True if the 95% intervals of the two quarters do not overlap."""


@dataclass(frozen=True, slots=True)
class Counts:
    """All counts of a run; see each part."""

    steps: int
    wait: Spread | None
    """Time of the main thread in `next(iterator)`, per step."""
    masked_wait_ns: int | None
    """Part of all waits that the accelerator spent on earlier steps: not a stall. None without its times."""
    ready: int | None
    """Steps whose batch had been received before it was asked for; None if that is not known of any."""
    ready_known: int
    """Steps of which that is known."""
    inline: int
    """Steps whose batch the loop made itself when it asked for it."""
    stages: dict[str, Spread]
    """Times per batch: `read` (fetch), `decode`, `transform` (all), each stage by name, `collate`, ..."""
    transfer: Spread | None
    """Time from the end of collate until the batch was in the main process, for the batches that were waited
    for."""
    way: dict[str, Spread]
    """Times of its parts, per batch: `pickling`, `pipe`, `receiving`; see `why.transfer`. They are of the
    batches that `transfer` is of, if it is known of any."""
    making: Spread | None
    """Time of a batch on its worker, from start to collated."""
    depth: Depth | None
    workers: tuple[WorkerShare, ...]
    head_of_line_ns: int | None
    """Time waited for a batch while a later one was finished already."""
    first_batch_ns: dict[tuple[int, int], int]
    """Time from asking for an epoch to its first batch, by (loader, epoch)."""
    startup_ns: dict[tuple[int, int], int]
    """Part of it until the epoch's workers had started and one had begun the batch, by (loader, epoch)."""
    drift: Drift | None

    @property
    def masked_share(self) -> float | None:
        """Return the share of all the waiting that was not a stall; None if it is not known, or there was no
        waiting."""
        if self.masked_wait_ns is None or self.wait is None or not self.wait.mean_ns:
            return None
        return self.masked_wait_ns / (self.wait.mean_ns * self.wait.count)


def count(run: Run, attribution: Attribution) -> Counts:
    """Compute all counts of a run."""
    t = attribution.timeline
    measured = t.measured
    known = measured & (t.ready != NOT_OBSERVED)
    made = measured & (t.start_ns != NOT_OBSERVED) & (t.finish_ns != NOT_OBSERVED)
    sent = made & (t.arrival_ns != NOT_OBSERVED) & (t.worker >= 0)
    in_parts = sent & (t.pickling_ns != NOT_OBSERVED)
    on_way = in_parts if in_parts.any() else sent  # whole and parts are of the same batches
    return Counts(
        steps=int(measured.sum()),
        wait=spread(attribution.wait_ns[measured]),
        masked_wait_ns=(
            int(np.minimum(t.masked_wait_ns, attribution.wait_ns)[measured].sum()) if t.device_timed else None
        ),
        ready=int(t.ready[known].sum()) if known.any() else None,
        ready_known=int(known.sum()),
        inline=int((known & (t.worker < 0)).sum()),
        stages=_stages(attribution, made),
        transfer=spread(np.maximum((t.arrival_ns - t.finish_ns)[on_way], 0)),
        way=_way(way_of(run, t, on_way if on_way.any() else None)),
        making=spread((t.finish_ns - t.start_ns)[made]),
        depth=_depth(attribution),
        workers=tuple(_workers(run, attribution)),
        head_of_line_ns=_head_of_line(attribution) if made.any() else None,
        first_batch_ns={
            (loop_pass.loader, loop_pass.epoch): int(t.take_ns[loop_pass.first]) - loop_pass.asked_ns
            for loop_pass in t.passes
        },
        startup_ns={
            (loop_pass.loader, loop_pass.epoch): t.startup_ns(loop_pass)
            for loop_pass in t.passes
            if t.worker[loop_pass.first] >= 0
        },
        drift=_drift(attribution),
    )


def spread(values: npt.NDArray[Any]) -> Spread | None:
    """Return percentiles of `values` in ns; None if there are no values."""
    if len(values) == 0:
        return None
    p50, p95, p99, most = (int(value) for value in np.percentile(values, [50, 95, 99, 100]))
    return Spread(len(values), float(values.mean()), p50, p95, p99, most)


def single_reads(run: Run) -> SingleReads:
    """Read the percentiles of the reads among the spans of a run."""
    reads: dict[str, list[Ints]] = {"wall_ns": [], "bytes": []}
    for piece in run.pieces("spans", ("stage", "wall_ns", "bytes")):
        names, code = codes(piece["stage"])
        mine = code == (names.index(owners.READ) if owners.READ in names else NO_CODE)
        for name, parts in reads.items():
            parts.append(ints(piece[name])[mine])
    return SingleReads(_percentiles(reads["wall_ns"]), _percentiles(reads["bytes"]))


def _percentiles(parts: list[Ints]) -> tuple[float, float, float, float] | None:
    values = np.concatenate(parts) if parts else np.array([], dtype=np.int64)
    seen = values[values != NOT_OBSERVED]
    if len(seen) == 0:
        return None
    p50, p95, p99, largest = (float(value) for value in np.percentile(seen, [50, 95, 99, 100]))
    return p50, p95, p99, largest


def _stages(attribution: Attribution, made: npt.NDArray[np.bool_]) -> dict[str, Spread]:
    walls = {name: stage.wall_ns[made] for name, stage in attribution.stages.making.items()}
    transforms = [values for name, values in walls.items() if owners.record_of(name) is owners.TRANSFORM]
    if transforms:
        walls[owners.TRANSFORM.name] = np.sum(transforms, axis=0)
    spreads = {name: spread(values) for name, values in walls.items()}
    return {name: spread for name, spread in spreads.items() if spread is not None}


def _way(way: Way) -> dict[str, Spread]:
    parts = {"pickling": way.pickling, "pipe": way.pipe, "receiving": way.receiving}
    spreads = {name: spread(values) for name, values in parts.items()}
    return {name: spread for name, spread in spreads.items() if spread is not None}


def _depth(attribution: Attribution) -> Depth | None:
    """Measure the queue depth from the moments at which batches of workers were finished and taken."""
    t, window = attribution.timeline, attribution.window
    queued = (t.worker >= 0) & (t.finish_ns != NOT_OBSERVED)
    if not queued.any() or window.wall_ns == 0:
        return None
    ends, takes = t.finish_ns[queued], np.maximum(t.take_ns[queued], t.finish_ns[queued])
    ends, takes = window.loop_time(ends), window.loop_time(takes)
    when, depth = _level([(ends, 1), (takes, -1)])
    # The next in line is ready from its finish, once the one before it has been taken.
    turn = np.maximum(ends, np.append(0, np.maximum.accumulate(takes)[:-1]))
    next_when, ready = _level([(np.minimum(turn, takes), 1), (takes, -1)])
    lengths, next_lengths = _lengths(when, window), _lengths(next_when, window)
    return Depth(
        mean=float((lengths * depth).sum() / window.wall_ns),
        empty_share=1 - float(lengths[depth > 0].sum() / window.wall_ns),
        next_ready_share=float(next_lengths[ready > 0].sum() / window.wall_ns),
    )


def _level(changes: Iterable[tuple[Ints, int]]) -> tuple[Ints, Ints]:
    """Return the times at which a level changes and what it is from then on."""
    parts = list(changes)
    when = np.concatenate([times for times, _ in parts])
    by = np.concatenate([np.full(len(times), step) for times, step in parts])
    order = np.argsort(when, kind="stable")
    when, level = when[order], np.cumsum(by[order])
    last = np.append(np.diff(when) > 0, True)
    return when[last], level[last]


def _lengths(when: Ints, window: Window) -> Ints:
    """Return the time that each level lasted within the window."""
    return np.asarray(np.diff(np.append(when, window.wall_ns)), dtype=np.int64)


def _workers(run: Run, attribution: Attribution) -> list[WorkerShare]:
    """Compute each worker's share; every batch that was made counts, taken or not."""
    rows = read_ints(run, "batches", ("loader", "worker", "start_ns", "finish_ns"))
    window = attribution.window
    finished = rows["finish_ns"] != NOT_OBSERVED
    busy = window.loop_time(rows["finish_ns"]) - window.loop_time(rows["start_ns"])
    busy = np.where(finished, np.maximum(busy, 0), 0)
    took = rows["finish_ns"] - rows["start_ns"]
    shares = []
    for loader, worker in sorted(set(zip(rows["loader"].tolist(), rows["worker"].tolist(), strict=True))):
        mine = (rows["loader"] == loader) & (rows["worker"] == worker)
        made = mine & (busy > 0)
        share = float(busy[made].sum() / max(1, window.wall_ns))
        mean = float(took[made].mean()) if made.any() else None
        shares.append(WorkerShare(loader, worker, int(made.sum()), share, mean))
    return shares


def _head_of_line(attribution: Attribution) -> int:
    """Return the part of each wait in which a later batch was already finished."""
    t, window = attribution.timeline, attribution.window
    wait = window.loop_time(t.take_ns) - window.loop_time(t.request_ns)
    stuck = np.minimum(attribution.lateness.head_of_line_ns, wait)
    return int(stuck[t.measured].sum())


def _drift(attribution: Attribution) -> Drift | None:
    lengths = attribution.step_lengths
    part = len(lengths) // DRIFT_PARTS
    if part < 8:
        return None
    first, last = lengths[:part], lengths[-part:]
    ones = np.ones(part)
    early, late = batch_means(first, ones), batch_means(last, ones)
    if early is None or late is None or first.mean() == 0:
        return None
    apart = late[0] > early[1] or late[1] < early[0]
    return Drift(float(last.mean() / first.mean() - 1), apart)
