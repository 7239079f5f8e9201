"""Packs a run for the page's timeline: columns of small integers, so that single batches fit a page.

Times are 32-bit counts of `unit_ns` (1 µs; more if a run is longer than 71 minutes) since the first event;
0xFFFFFFFF is not observed. A batch carries its stages' sums, and its single spans if they were kept: a 16-bit
length and a stage each, in the order in which they happened. What does not fit the page's budget is kept as
sums over bins; single batches then stay for the worst stretches.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeprof.analyse import over_time as series
from pipeprof.analyse.ledger.attribution import Attribution
from pipeprof.analyse.over_time import longest_waits, ordinary_step, stretches, waits_of
from pipeprof.analyse.resources.makeup import kernel_names
from pipeprof.record.columns import flags
from pipeprof.record.reader import Run
from pipeprof.report.wording import words
from pipeprof.timeline import NOT_OBSERVED, Ints, Keys, Timeline, ints, read_ints, take
from pipeprof.vocabulary import owners
from pipeprof.vocabulary.owners import READ

MAX_BATCHES: Final = 12_000
MAX_SPANS: Final = 48_000
BINS: Final = 1_500
STRETCH: Final = 240
"""Batches kept around each of the worst waits if not all can be."""
MAX_LANE_BOXES: Final = 9_000
"""Boxes of one row of parts or kernels: nine bytes each."""
ABSENT: Final = 0xFFFFFFFF
IDLE: Final = 127
"""Stage code of a gap between spans."""
NEW_SAMPLE: Final = 128
"""Bit of a stage code: the next data set index of the list begins here."""

_TIMES: Final = (
    "start_ns",
    "finish_ns",
    "request_ns",
    "take_ns",
    "copy_start_ns",
    "copy_end_ns",
    "compute_start_ns",
    "compute_end_ns",
)


_LANE_OWNERS: Final = (owners.ACCELERATOR.name, owners.H2D.name, owners.DECODE.name, owners.COLLATE.name)
"""Owners whose colours parts and kernels are drawn in, in turn."""

Walls = Mapping[str, npt.NDArray[np.float32]]
"""Own wall time in ns of each stage, by name: one value a step."""


class PageTime(NamedTuple):
    """From ns to the page's units."""

    origin_ns: int
    unit_ns: int

    def units(self, times: Ints) -> npt.NDArray[np.uint32]:
        """Return 32-bit units since the origin, `ABSENT` if not observed."""
        scaled = (times - self.origin_ns) // self.unit_ns
        return np.where(times == NOT_OBSERVED, ABSENT, np.clip(scaled, 0, ABSENT - 1)).astype(np.uint32)


def pack(
    run: Run, timeline: Timeline, attribution: Attribution | None, walls: Walls
) -> dict[str, Any] | None:
    """Return the timeline's data as JSON with base64 columns; None if no step was recorded."""
    if len(timeline) == 0:
        return None
    known = [getattr(timeline, name) for name in _TIMES]
    first = min(int(t[t != NOT_OBSERVED].min(initial=timeline.request_ns[0])) for t in known)
    last = max(int(t.max()) for t in known)
    clock = PageTime(first, max(1000, -(-(last - first) // (ABSENT - 1))))
    kept = stretches(timeline, MAX_BATCHES, STRETCH)
    walls = {name: np.nan_to_num(walls[name]) for name in sorted(walls, key=words.stage_order)}
    return {
        "unit_ns": clock.unit_ns,
        "length": int((last - first) // clock.unit_ns) + 1,
        "stages": [_stage(name) for name in walls],
        "workers": sorted({int(w) for w in np.unique(timeline.worker)}),
        "batches": _batches(run, timeline, kept, clock, walls),
        "spans": _spans(run, timeline, kept, list(walls)),
        "bins": _bins(timeline, attribution, walls, clock, last) if len(kept) < len(timeline) else None,
        "masked": bool(timeline.masked_wait_ns[kept].any()),
        "kept": len(kept),
        "steps": len(timeline),
        "jumps": _jumps(timeline, attribution, clock) + _traced(run, timeline, clock),
        "lanes": _lanes(run, timeline, clock),
        "files": _slow_files(run, timeline, kept),
    }


def _stage(name: str) -> dict[str, str]:
    owner = words.drawn_stage(name)
    label = name if name == READ else owner.label
    return {"name": name, "label": label, "colour": owner.colour, "ink": words.ink(owner.colour)}


def _b64(values: npt.NDArray[Any]) -> str | int | float:
    """Return little-endian bytes as base64; a column of one value is that value."""
    if values.ndim == 1 and len(values) and (values == values[0]).all():
        return values[0].item()  # type: ignore[no-any-return]
    return base64.b64encode(values.astype(values.dtype.newbyteorder("<")).tobytes()).decode("ascii")


def _batches(run: Run, timeline: Timeline, kept: Ints, clock: PageTime, walls: Walls) -> dict[str, Any]:
    columns = {name.removesuffix("_ns"): _b64(clock.units(getattr(timeline, name)[kept])) for name in _TIMES}
    columns["felt"] = _b64(clock.units((timeline.request_ns + timeline.masked_wait_ns)[kept]))
    read = read_ints(run, "batches", ("slowest_index", "slowest_ns"))
    slowest, took = (take(values, timeline.batch_row[kept]) for values in read.values())
    columns["slowest_index"] = _b64(slowest.astype(np.float64))
    columns["slowest"] = _b64(clock.units(np.where(took == NOT_OBSERVED, took, took + clock.origin_ns)))
    for name in ("step", "epoch", "seq", "samples"):
        columns[name] = _b64(getattr(timeline, name)[kept].astype(np.uint32))
    columns["worker"] = _b64(timeline.worker[kept].astype(np.int16))
    sums = np.stack([wall[kept] for wall in walls.values()], axis=1) if walls else np.zeros((len(kept), 1))
    units = sums.astype(np.float64) / clock.unit_ns  # in single precision the largest is one too large
    columns["sums"] = _b64(np.clip(units, 0, ABSENT - 1).astype(np.uint32))
    return columns


def _slow_files(run: Run, timeline: Timeline, kept: Ints) -> dict[int, str]:
    """Return the file of the slowest sample of each kept batch whose file is known, by place among them."""
    paths = {(each.loader, each.sample): each.path for each in run.meta.reading.slowest}
    if not paths:
        return {}
    slowest = take(read_ints(run, "batches", ("slowest_index",))["slowest_index"], timeline.batch_row[kept])
    keys = zip(timeline.loader[kept].tolist(), slowest.tolist(), strict=True)
    return {i: paths[key] for i, key in enumerate(keys) if key in paths}


def _spans(run: Run, timeline: Timeline, kept: Ints, names: list[str]) -> dict[str, Any] | None:
    """Return the kept batches' single spans: for each batch where its spans begin, then their columns."""
    keys = Keys(timeline.loader[kept], timeline.epoch[kept], timeline.seq[kept])
    rows_of_spans: list[Ints] = []
    for piece in run.pieces("spans", ("loader", "epoch", "seq", "stage", "sample", "start_ns", "wall_ns")):
        batch = keys.find(*(ints(piece[name]) for name in ("loader", "epoch", "seq")))
        own, stages = series.codes(piece["stage"])
        code = np.array([*(names.index(name) if name in names else IDLE for name in own), IDLE])
        columns = [batch, *(ints(piece[name]) for name in ("start_ns", "wall_ns", "sample")), code[stages]]
        rows_of_spans.append(np.stack(columns)[:, batch >= 0])
    if not rows_of_spans:
        return None
    batch, start, wall, sample, stage = np.concatenate(rows_of_spans, axis=1)
    order = np.lexsort((start, batch))
    batch, start, wall, sample, stage = (column[order] for column in (batch, start, wall, sample, stage))
    order = np.flatnonzero(_within_budget(batch, start, wall, timeline, kept))
    if len(order) == 0:
        return None
    begun = start[order] - timeline.start_ns[kept][batch[order]]
    return _encode(batch[order], begun, wall[order], stage[order], sample[order])


def _within_budget(
    batch: Ints, start: Ints, wall: Ints, timeline: Timeline, kept: Ints
) -> npt.NDArray[np.bool_]:
    """Return spans of whole batches, the longest waits' first, up to the budget; a gap costs a span."""
    gaps = np.append(start[1:] - start[:-1] - wall[:-1] > 1000, False)
    held = np.bincount(batch, weights=1 + gaps, minlength=len(kept))
    waits = timeline.wait_ns[kept]
    order = np.argsort(-waits, kind="stable")
    allowed = np.zeros(len(kept), dtype=bool)
    allowed[order] = np.cumsum(held[order]) <= MAX_SPANS
    return np.asarray(allowed[batch])


def _encode(batch: Ints, begun: Ints, wall: Ints, stage: Ints, sample: Ints) -> dict[str, Any]:
    """Alternate gaps and spans in whole µs; cumulative, so that nothing drifts.

    `begun` is ns since the batch's start.
    """
    same = np.diff(batch, prepend=-1) == 0
    begin = np.maximum(0, begun // 1000)
    end = np.maximum(begin, (begun + np.maximum(0, wall)) // 1000)
    following = np.append(np.where(same[1:], begin[1:], np.iinfo(np.int64).max), np.iinfo(np.int64).max)
    end = np.minimum(end, following[: len(end)])
    before = np.where(same, np.concatenate([[0], end[:-1]]), 0)
    lengths = np.column_stack([begin - before, end - begin]).ravel()
    fresh = (sample != NOT_OBSERVED) & (~same | (np.diff(sample, prepend=-2) != 0))
    codes = np.column_stack([np.full(len(stage), IDLE), stage | np.where(fresh, NEW_SAMPLE, 0)]).ravel()
    owner = np.repeat(batch, 2)
    real = (lengths > 0) | (codes >= NEW_SAMPLE)
    lengths, codes, owner = lengths[real], codes[real], owner[real]
    pieces = np.maximum(1, -(-lengths // 0xFFFF))
    piece = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    length = np.minimum(0xFFFF, np.repeat(lengths, pieces) - piece * 0xFFFF)
    code = np.where(piece > 0, np.repeat(codes, pieces) & IDLE, np.repeat(codes, pieces))
    owners, first = np.unique(np.repeat(owner, pieces), return_index=True)
    return {
        "batches": len(owners),
        "count": len(length),
        "samples": int(fresh.sum()),
        "batch": _b64(owners.astype(np.uint32)),
        "first": _b64(np.append(first, len(length)).astype(np.uint32)),
        "length": _b64(length.astype(np.uint16)),
        "stage": _b64(code.astype(np.uint8)),
        "sample": _b64(sample[fresh].astype(np.float64 if sample.max(initial=0) > 2**31 - 1 else np.int32)),
        "wide": bool(sample.max(initial=0) > 2**31 - 1),
    }


def _bins(
    timeline: Timeline, attribution: Attribution | None, walls: Walls, clock: PageTime, last: int
) -> dict[str, Any]:
    """Return each bin's shares if the run's single batches were not kept, 255 for the whole."""
    edges = np.linspace(clock.origin_ns, last, BINS + 1).astype(np.int64)
    times = [*walls.values()] or [np.zeros(len(timeline), dtype=np.float32)]
    of_stages = [series.work_shares(timeline, wall, edges) for wall in times]
    rows = [share for of_worker in zip(*of_stages, strict=True) for share in of_worker]
    loop = np.zeros((3, BINS))
    if attribution is not None:
        shares = series.shares(attribution, edges)
        loop = np.stack([shares.computing, shares.copying, shares.waiting])
    return {"count": BINS, "workers": _b64(_bytes(np.stack(rows))), "device": _b64(_bytes(loop))}


def _lanes(run: Run, timeline: Timeline, clock: PageTime) -> list[dict[str, Any]]:
    """Return a row for the parts of steps, and one for each stream whose kernels were traced."""
    lanes = []
    parts = run.table("parts")
    near = timeline.step[stretches(timeline, MAX_LANE_BOXES // 3, STRETCH)]
    parts = parts.filter(flags(np.isin(ints(parts["step"]), near)))
    if parts.num_rows:
        start, end = ints(parts["start_ns"]), ints(parts["end_ns"])
        names = [name or "unnamed" for name in parts["part"].to_pylist()]
        lanes.append(_lane("parts", names, start, end, clock, legend=True))
    table = run.table("kernels").slice(0, MAX_LANE_BOXES)
    kernels, start = np.array(kernel_names(table), object), ints(table["start_ns"])
    end, stream = start + ints(table["wall_ns"]), ints(table["stream"])
    for number in np.unique(stream):
        own = stream == number
        label = "operators" if number == NOT_OBSERVED else f"stream {number}"
        lanes.append(_lane(label, kernels[own].tolist(), start[own], end[own], clock))
    return lanes


def _lane(
    label: str, names: list[str], start: Ints, end: Ints, clock: PageTime, legend: bool = False
) -> dict[str, Any]:
    """Return boxes in order of time; beyond 255 names the others share one."""
    order = np.argsort(start, kind="stable")
    kinds = list(dict.fromkeys(names))[:255]
    number = np.array([kinds.index(name) if name in kinds else len(kinds) for name in names])
    colours = [words.colour(_LANE_OWNERS[i % len(_LANE_OWNERS)]) for i in range(len(kinds) + 1)]
    return {
        "label": label,
        "legend": legend,
        "count": len(names),
        "names": [
            {"label": name, "colour": colour, "ink": words.ink(colour)}
            for name, colour in zip([*kinds, "other kernels"], colours, strict=True)
        ],
        "from": _b64(clock.units(start[order])),
        "to": _b64(clock.units(end[order])),
        "name": _b64(number[order].astype(np.uint8)),
    }


def _traced(run: Run, timeline: Timeline, clock: PageTime) -> list[dict[str, Any]]:
    """Return the stretch in which kernels were traced as a place to look at."""
    table = run.table("kernels")
    if table.num_rows == 0:
        return []
    start = ints(table["start_ns"])
    ends = np.array([start.min(), (start + ints(table["wall_ns"])).max()])
    low, high = clock.units(ends)
    step = timeline.step[np.argmax(timeline.take_ns >= ends[0])]
    return [{"label": "Traced kernels", "from": int(low), "to": int(high), "step": int(step)}]


def _bytes(share: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    return np.clip(np.round(255 * share), 0, 255).astype(np.uint8)


def _jumps(timeline: Timeline, attribution: Attribution | None, clock: PageTime) -> list[dict[str, Any]]:
    """Return named stretches to look at: the longest wait and an ordinary step."""
    waits = waits_of(timeline, attribution)
    longest = [("Longest wait", int(place)) for place in longest_waits(timeline, waits)]
    places = [*longest, ("One ordinary step", ordinary_step(timeline))]
    jumps = []
    for label, i in places:
        until = int(max(timeline.take_ns[i], timeline.compute_end_ns[i], timeline.launch_ns[i]))
        begin = int(timeline.request_ns[i])
        margin = max(1_000_000, (until - begin) // 4)
        low, high = clock.units(np.array([max(clock.origin_ns, begin - margin), until + margin]))
        jumps.append({"label": label, "from": int(low), "to": int(high), "step": int(timeline.step[i])})
    return jumps
