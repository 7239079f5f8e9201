"""Gives each piece of the critical path its owner, or the owners that share it."""

from __future__ import annotations

from typing import Final

import numpy as np

from pipeprof.analyse.breaks import Breaks
from pipeprof.analyse.charge import Counters, Floats, Stages
from pipeprof.analyse.tiling import CODE, Rows, Shares, Tiling, cut, tile
from pipeprof.analyse.walk import BODY, MAKING, Path
from pipeprof.pipeline import Ints, Timeline

LEVELS: Final = 256
"""Steps in which the shares of two owners of one piece are told apart."""


def owned_path(
    path: Path,
    timeline: Timeline,
    breaks: Breaks,
    counters: Counters,
    mixes: Shares,
    owners: tuple[str, ...],
) -> Tiling:
    """The path as a tiling: the making of batches by `mixes`, the loop's body to the accelerator.

    Handing over a batch or its indices is work for a core on both sides. It is not counted by itself, so it
    is taken to have waited for a core as the making of the batch did.
    """
    width, count = len(owners), len(timeline)
    rows = np.where(path.owner == MAKING, width + path.step, path.owner)
    first = width + count
    mixes = np.concatenate([mixes, levels("transfer", "cpu-contention", width)])
    handed = path.owner == CODE["transfer"]
    rows[handed] = first + level(_crowding(counters))[path.step[handed]]
    body = path.owner == BODY
    rows[body] = CODE["accelerator"]
    loops = {CODE["main"], CODE["accelerator"]} if body.any() else {CODE["main"]}
    bounds, owned = between_steps(path.bounds, rows.astype(np.int32), breaks, loops)
    return tile(owners, bounds, owned, mixes)


def without_marked(tiling: Tiling, timeline: Timeline, stages: Stages) -> Tiling:
    """The same with what the user marked in the loop's body taken from the accelerator and given to `main`.

    For runs without a device's own times, in which the accelerator's pieces are the body.
    """
    if not stages.loop:
        return tiling
    takes = np.maximum.accumulate(timeline.take_ns)
    bounds, rows = cut(tiling.bounds, tiling.rows, takes)
    step = np.searchsorted(takes, bounds[:-1], "right") - 1
    mine = (rows == CODE["accelerator"]) & (step >= 0)
    first = len(tiling.owners) + len(tiling.mixes)
    rows = np.where(mine, first + level(_marked(timeline, stages))[np.maximum(step, 0)], rows)
    mixes = np.concatenate([tiling.mixes, levels("accelerator", "main", len(tiling.owners))])
    return tile(tiling.owners, bounds, rows.astype(np.int32), mixes)


def levels(most: str, rest: str, width: int) -> Shares:
    """Rows in which `rest` owns 0, 1, ... of `LEVELS` parts."""
    share = np.arange(LEVELS + 1, dtype=np.float32) / LEVELS
    mixes = np.zeros((LEVELS + 1, width), np.float32)
    mixes[:, CODE[most]], mixes[:, CODE[rest]] = 1 - share, share
    return mixes


def level(share: Floats) -> Ints:
    """The row of `levels` whose second owner has `share`."""
    return np.rint(np.clip(share, 0, 1) * LEVELS).astype(np.int64)


def _crowding(counters: Counters) -> Floats:
    """Of the time in which a batch could have used a core, the share in which it had none; 0 if unknown."""
    runq, cpu = np.nan_to_num(counters.runq), np.nan_to_num(counters.cpu)
    able = runq + cpu
    return np.asarray(np.divide(runq, able, out=np.zeros_like(able), where=able > 0), dtype=np.float32)


def _marked(timeline: Timeline, stages: Stages) -> Floats:
    """Of the loop's body after each step, the share that the user marked as something else."""
    following = np.append(timeline.request_ns[1:], timeline.take_ns[-1:])
    body = np.maximum(following - timeline.take_ns, 1)
    marked = sum(stages.loop.values(), np.zeros(len(timeline), np.float32))
    return np.asarray(marked / body, dtype=np.float32)


def between_steps(bounds: Ints, rows: Rows, breaks: Breaks, loops: set[int]) -> tuple[Ints, Rows]:
    """The loop's time between two epochs is its own, and `startup` while an iterator is being made."""
    found = (
        ("main", breaks.pauses),
        ("startup", breaks.startups),
        ("collective", breaks.collectives),
    )
    for owner, (begins, ends) in found:
        if len(begins):
            bounds, rows = cut(bounds, rows, np.concatenate([begins, ends]))
            place = np.searchsorted(begins, bounds[:-1], "right") - 1
            inside = (place >= 0) & (bounds[:-1] < ends[np.maximum(place, 0)])
            rows = np.where(inside & np.isin(rows, list(loops)), np.int32(CODE[owner]), rows)
    return bounds, rows
