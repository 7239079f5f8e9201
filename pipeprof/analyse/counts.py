"""The counts that people ask for: percentiles of waits and stages, queue depth, balance, drift.

All of the measured window. A count that was not observed is None, or missing from its mapping; never 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeprof.analyse.attribution import Attribution
from pipeprof.analyse.breaks import events_of
from pipeprof.analyse.interval import batch_means
from pipeprof.analyse.rates import step_bounds
from pipeprof.pipeline import NOT_OBSERVED, Ints, read_ints
from pipeprof.trace import Run

DRIFT_PARTS: Final = 4
"""Drift compares the first of so many equal parts of the run with the last."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Percentiles of a time per batch, in ns."""

    count: int
    mean_ns: float
    p50_ns: int
    p95_ns: int
    p99_ns: int
    max_ns: int


@dataclass(frozen=True, slots=True)
class WorkerShare:
    """What one worker did in the measured window."""

    loader: int
    worker: int
    """-1: the main process."""
    batches: int
    busy_share: float
    """Share of the window in which it made a batch. Far below the others': it waits for its turn."""


@dataclass(frozen=True, slots=True)
class Depth:
    """Finished batches that waited to be taken."""

    mean: float
    empty_share: float
    """Share of the window with none ready. Near 1: the loop takes each batch as it comes."""
    next_ready_share: float
    """Share with the next batch in line ready. With in-order delivery others may be ready and useless."""
    times_ns: Ints
    """Where the depth changes, from the start of the window."""
    values: Ints
    """The depth from each of `times_ns` on."""


@dataclass(frozen=True, slots=True)
class Drift:
    """How much longer a step takes at the end of the run than at its start."""

    share: float
    """0.1: a step takes 10 % longer in the last quarter than in the first."""
    significant: bool
    """The 95 % intervals of the two quarters do not overlap."""


@dataclass(frozen=True, slots=True)
class Counts:
    """See each part."""

    wait: Spread | None
    """Main thread in `next(iterator)`, per step."""
    stages: dict[str, Spread]
    """Per batch: `read` (fetch), `decode`, `transform` (all of them), each stage by name, `collate`, ..."""
    transfer: Spread | None
    """From collated to in the main process, of the batches that were waited for."""
    making: Spread | None
    """A batch on its worker, from start to collated."""
    depth: Depth | None
    workers: tuple[WorkerShare, ...]
    head_of_line_ns: int | None
    """Time waited for a batch while a later one was finished already."""
    first_batch_ns: dict[tuple[int, int], int]
    """(loader, epoch): from asking for the epoch to its first batch."""
    drift: Drift | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; the depth without its curve."""
        told = asdict(self)
        if self.depth is not None:
            del told["depth"]["times_ns"], told["depth"]["values"]
        told["first_batch_ns"] = [
            {"loader": loader, "epoch": epoch, "ns": ns}
            for (loader, epoch), ns in self.first_batch_ns.items()
        ]
        return told


def count(run: Run, found: Attribution) -> Counts:
    """All counts of a run."""
    t = found.timeline
    measured = ~t.warmup
    made = measured & (t.start_ns != NOT_OBSERVED) & (t.finish_ns != NOT_OBSERVED)
    sent = made & (t.arrival_ns != NOT_OBSERVED) & (t.worker >= 0)
    return Counts(
        wait=spread((t.take_ns - t.request_ns)[measured]),
        stages=_stages(found, made),
        transfer=spread(np.maximum((t.arrival_ns - t.finish_ns)[sent], 0)),
        making=spread((t.finish_ns - t.start_ns)[made]),
        depth=_depth(found),
        workers=tuple(_workers(run, found)),
        head_of_line_ns=_head_of_line(found) if made.any() else None,
        first_batch_ns=_first_batches(run, found),
        drift=_drift(found),
    )


def spread(values: npt.NDArray[Any]) -> Spread | None:
    """Percentiles of `values` in ns; None of nothing."""
    if len(values) == 0:
        return None
    p50, p95, p99, most = (int(value) for value in np.percentile(values, [50, 95, 99, 100]))
    return Spread(len(values), float(values.mean()), p50, p95, p99, most)


def _stages(found: Attribution, made: npt.NDArray[np.bool_]) -> dict[str, Spread]:
    walls = {name: stage.wall_ns[made] for name, stage in found.stages.making.items()}
    transforms = [values for name, values in walls.items() if name.startswith("transform:")]
    if transforms:
        walls["transform"] = np.sum(transforms, axis=0)
    spreads = {name: spread(values) for name, values in walls.items()}
    return {name: one for name, one in spreads.items() if one is not None}


def _depth(found: Attribution) -> Depth | None:
    """From the moments at which batches of workers were finished and taken."""
    t, window = found.timeline, found.window
    queued = (t.worker >= 0) & (t.finish_ns != NOT_OBSERVED)
    if not queued.any() or window.wall_ns == 0:
        return None
    ends, takes = t.finish_ns[queued], np.maximum(t.take_ns[queued], t.finish_ns[queued])
    when, depth = _level([(ends, 1), (takes, -1)])
    # The next in line is ready from its finish, once the one before it has been taken.
    turn = np.maximum(ends, np.append(0, np.maximum.accumulate(takes)[:-1]))
    next_when, ready = _level([(np.minimum(turn, takes), 1), (takes, -1)])
    lengths = _lengths(when, window.start_ns, window.end_ns)
    next_lengths = _lengths(next_when, window.start_ns, window.end_ns)
    before = int(np.searchsorted(when, window.start_ns, "right")) - 1
    inside = slice(max(before, 0), int(np.searchsorted(when, window.end_ns, "left")))
    return Depth(
        mean=float((lengths * depth).sum() / window.wall_ns),
        empty_share=1 - float(lengths[depth > 0].sum() / window.wall_ns),
        next_ready_share=float(next_lengths[ready > 0].sum() / window.wall_ns),
        times_ns=np.maximum(when[inside] - window.start_ns, 0),
        values=depth[inside],
    )


def _level(changes: Iterable[tuple[Ints, int]]) -> tuple[Ints, Ints]:
    """When a level changes and what it is from then on."""
    parts = list(changes)
    when = np.concatenate([times for times, _ in parts])
    by = np.concatenate([np.full(len(times), step) for times, step in parts])
    order = np.argsort(when, kind="stable")
    when, level = when[order], np.cumsum(by[order])
    last = np.append(np.diff(when) > 0, True)
    return when[last], level[last]


def _lengths(when: Ints, start: int, end: int) -> Ints:
    """How long each level lasted within [start, end]."""
    return np.asarray(np.diff(np.clip(np.append(when, end), start, end)), dtype=np.int64)


def _workers(run: Run, found: Attribution) -> list[WorkerShare]:
    """Counts every batch that was made, taken or not."""
    rows = read_ints(run, "batches", ("loader", "worker", "start_ns", "finish_ns"))
    window = found.window
    start = np.clip(rows["start_ns"], window.start_ns, window.end_ns)
    finish = np.clip(rows["finish_ns"], window.start_ns, window.end_ns)
    busy = np.where(rows["finish_ns"] == NOT_OBSERVED, 0, np.maximum(finish - start, 0))
    shares = []
    for loader, worker in sorted(set(zip(rows["loader"].tolist(), rows["worker"].tolist(), strict=True))):
        mine = (rows["loader"] == loader) & (rows["worker"] == worker)
        made = int((busy[mine] > 0).sum())
        shares.append(WorkerShare(loader, worker, made, float(busy[mine].sum() / max(1, window.wall_ns))))
    return shares


def _head_of_line(found: Attribution) -> int:
    """The part of each wait in which a later batch lay finished."""
    t = found.timeline
    wait = np.maximum(t.take_ns - np.maximum(t.request_ns, found.window.start_ns), 0)
    stuck = np.minimum(found.lateness.head_of_line_ns, wait)
    return int(stuck[~t.warmup].sum())


def _first_batches(run: Run, found: Attribution) -> dict[tuple[int, int], int]:
    t = found.timeline
    asked = events_of(run, "epoch_start")
    keys = t.loader * (int(t.epoch.max(initial=0)) + 1) + t.epoch
    _, firsts = np.unique(keys, return_index=True)
    result = {}
    for i in sorted(firsts.tolist()):
        key = (int(t.loader[i]), int(t.epoch[i]))
        result[key] = int(t.take_ns[i]) - min(asked.get(key, int(t.request_ns[i])), int(t.request_ns[i]))
    return result


def _drift(found: Attribution) -> Drift | None:
    lengths = np.diff(step_bounds(found)).astype(np.float64)
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
