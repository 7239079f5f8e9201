"""Who would own the time of a predicted run: attribution's walk over a timeline that has not happened."""

from __future__ import annotations

from typing import Final

import numpy as np

from pipeprof.analyse.attribution import Ledger, ledger_of
from pipeprof.analyse.breaks import Breaks, Spans
from pipeprof.analyse.charge import owner_of
from pipeprof.analyse.owned import between_steps
from pipeprof.analyse.tiling import ALWAYS, CODE, Shares, tile
from pipeprof.analyse.walk import MAKING, critical_path
from pipeprof.pipeline import Shape, Timeline, Window
from pipeprof.simulate.demands import Demands
from pipeprof.simulate.draw import Draw, owners
from pipeprof.simulate.knobs import Knobs
from pipeprof.simulate.recorded import Floats

NONE: Final[Spans] = (np.zeros(0, np.int64), np.zeros(0, np.int64))


def predicted_ledger(
    demands: Demands, knobs: Knobs, draw: Draw, timeline: Timeline, window: Window, reading_ns: Floats
) -> Ledger:
    """The ledger of a predicted run. `reading_ns` is each batch's wait for the storage device."""
    shape = Shape(
        workers=knobs.workers,
        prefetch=knobs.prefetch,
        in_order=knobs.in_order,
        pin_memory=any(draw.pin),
        pageable=not knobs.pin_memory,
        copies_overlap=knobs.prefetch_to_device,
        synchronises=knobs.synchronises,
        queue_depth=knobs.queue_depth,
    )
    names, mixes = _making_mixes(demands, knobs, draw, timeline, reading_ns)
    path = critical_path(timeline, {0: shape}, window)
    rows = np.where(path.owner == MAKING, len(names) + path.step, path.owner).astype(np.int32)
    breaks = Breaks(NONE, NONE, _meetings(draw, timeline))
    bounds, owned = between_steps(path.bounds, rows, breaks, {CODE["main"]})
    return ledger_of(timeline, tile(names, bounds, owned, mixes), window)


def _meetings(draw: Draw, timeline: Timeline) -> Spans:
    """When the loop met the other ranks of the recorded job."""
    met = np.rint(np.asarray(draw.met)[timeline.epoch * draw.batches_per_epoch + timeline.seq])
    there = met > 0
    began = timeline.launch_ns[there]
    return began, began + met[there].astype(np.int64)


def _making_mixes(
    demands: Demands, knobs: Knobs, draw: Draw, timeline: Timeline, reading_ns: Floats
) -> tuple[tuple[str, ...], Shares]:
    """For each step the share of each owner in making its batch; what is left waited for a core."""
    made = timeline.epoch * draw.batches_per_epoch + timeline.seq
    rows = draw.rows[made]
    columns: dict[str, Floats] = {
        "storage:device": reading_ns,
        "blocked": np.asarray(draw.blocked)[made],
    }
    for stage, cpu in owners(demands, knobs).items():
        owner = "storage:device" if stage == "read" else owner_of(stage)
        columns[owner] = columns.get(owner, np.zeros(len(rows))) + cpu[rows]
    names = ALWAYS + tuple(name for name in columns if name not in ALWAYS)
    wall = (timeline.finish_ns - timeline.start_ns).astype(np.float64)
    known = np.asarray(sum(columns.values(), np.zeros(len(rows))))
    columns["cpu-contention"] = np.maximum(wall - known, 0.0)
    mixes = np.zeros((len(rows), len(names)), dtype=np.float32)
    for name, values in columns.items():
        mixes[:, names.index(name)] = values
    total = mixes.sum(axis=1)
    mixes[total <= 0, CODE["unknown"]] = 1
    mixes /= np.where(total <= 0, 1, total)[:, None]
    return names, mixes
