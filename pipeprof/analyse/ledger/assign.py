"""The owner, or the owners that share it, of each piece of the critical path and of the accelerator's day.

The accelerator's day is its busy time and the stretches in which it stood idle; each stretch has the mix of
the path that ended in it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from pipeprof.analyse.ledger.making import Floats, Values
from pipeprof.analyse.ledger.tiling import (
    CHUNK,
    CODE,
    OUTSIDE,
    Rows,
    Shares,
    Tiling,
    add_up,
    cut,
    cut_out,
    normalised,
    tile,
)
from pipeprof.analyse.ledger.walk import BODY, MAKING, Path
from pipeprof.passes import NO_SPANS, NOT_OBSERVED, Ints, Spans, Window, clipped, nonempty, union
from pipeprof.timeline import Timeline, computing
from pipeprof.vocabulary import owners

LEVELS: Final = 256
"""Steps in which the shares of two owners of one piece are distinguished."""


class Breaks(NamedTuple):
    """Times at which the loop was in no step, and not in a pause."""

    startups: Spans = NO_SPANS
    """Spans in which workers were being started, or shut down."""
    collectives: Spans = NO_SPANS
    """Spans in which this rank met the others, after a step: it waited for the last of them."""
    entries: Spans = NO_SPANS
    """Spans in which the loop was about to begin a pass over a loader."""


def owned_path(
    path: Path,
    timeline: Timeline,
    window: Window,
    breaks: Breaks,
    crowding: Floats,
    mixes: Shares,
    words: tuple[str, ...],
) -> Tiling:
    """Return the path as a tiling: the making of batches by `mixes`, the loop's body to the accelerator.

    Handing over a batch or its indices is work for a core on both sides. It is not counted by itself, so it
    is taken to have waited for a core as the making of the batch did. For a batch that carries the state of
    its data set, it is the state's, as far as its pickle is.
    """
    width, count = len(words), len(timeline)
    rows = np.where(path.owner == MAKING, np.int32(width) + path.step, path.owner)
    first = width + count
    mixes = np.concatenate([mixes, levels(owners.TRANSFER.name, owners.CPU_CONTENTION.name, width)])
    handed = path.owner == CODE[owners.TRANSFER.name]
    rows[handed] = (first + level(crowding)[path.step[handed]]).astype(np.int32)
    carrying = np.flatnonzero(timeline.state_share > 0) if owners.STATE in words else np.zeros(0, np.int64)
    if len(carrying):
        first += LEVELS + 1
        mixes = np.concatenate([mixes, _with_state(timeline, crowding, carrying, words)])
        place = np.full(count, _NO_STATE)
        place[carrying] = first + np.arange(len(carrying))
        back = path.bounds[1:] > timeline.finish_ns[path.step]  # its indices, on their way there, carry none
        mine = handed & back & (place[path.step] != _NO_STATE)
        rows[mine] = place[path.step[mine]]
    body = path.owner == BODY
    main, busy = CODE[owners.MAIN.name], CODE[owners.ACCELERATOR.name]
    rows[body] = busy
    loops = {main, busy} if body.any() else {main}
    bounds, owned = between_steps(path.bounds, rows, breaks, loops)
    return without_outside(tile(words, bounds, owned, mixes), window)


_NO_STATE: Final = -1


def _with_state(timeline: Timeline, crowding: Floats, steps: Ints, words: tuple[str, ...]) -> Shares:
    """Return who owns the handing over of the batches of `steps`, with which a state travels."""
    mixes = np.zeros((len(steps), len(words)), np.float32)
    crowded, of_state = np.clip(crowding[steps], 0, 1), timeline.state_share[steps]
    mixes[:, CODE[owners.CPU_CONTENTION.name]] = crowded
    mixes[:, words.index(owners.STATE)] = (1 - crowded) * of_state
    mixes[:, CODE[owners.TRANSFER.name]] = (1 - crowded) * (1 - of_state)
    return mixes


def without_outside(tiling: Tiling, window: Window) -> Tiling:
    """Return the tiling with the time that no loop spent taken from all owners."""
    if len(window.outside[0]) == 0:
        return tiling
    bounds, rows, inside = cut_out(tiling.bounds, tiling.rows, window.outside)
    return tile(tiling.owners, bounds, np.where(inside, np.int32(OUTSIDE), rows), tiling.mixes)


def without_own_work(tiling: Tiling, timeline: Timeline, own_work: Values) -> Tiling:
    """Return the same with the loop's own work in its body taken from the accelerator and given to `main`.

    For runs without a device's own times, in which the accelerator's pieces are the body.
    """
    takes = np.maximum.accumulate(timeline.take_ns)
    bounds, rows = cut(tiling.bounds, tiling.rows, takes)
    step = np.searchsorted(takes, bounds[:-1], "right") - 1
    mine = (rows == CODE[owners.ACCELERATOR.name]) & (step >= 0)
    first = len(tiling.owners) + len(tiling.mixes)
    rows = np.where(mine, first + level(_own_share(timeline, own_work))[np.maximum(step, 0)], rows)
    shared = levels(owners.ACCELERATOR.name, owners.MAIN.name, len(tiling.owners))
    mixes = np.concatenate([tiling.mixes, shared])
    return tile(tiling.owners, bounds, rows.astype(np.int32), mixes)


def shared_out(tiling: Tiling, owner: str, taker: str, share: float) -> Tiling:
    """Give `share` of each piece of `owner`'s, and of its part of shared ones, to `taker`.

    For what is known of a whole run and not of its single steps: from samples, or from a counter.
    """
    rows, mixes = tiling.rows.copy(), tiling.mixes.copy()
    code, other = CODE[owner], CODE[taker]
    moved = mixes[:, code] * np.float32(share)
    mixes[:, code] -= moved
    mixes[:, other] += moved
    mixed = np.zeros((1, len(tiling.owners)), np.float32)
    mixed[0, code], mixed[0, other] = 1 - share, share
    rows[rows == code] = len(tiling.owners) + len(mixes)
    return Tiling(tiling.owners, tiling.bounds, rows, np.concatenate([mixes, mixed]))


def levels(most: str, rest: str, width: int) -> Shares:
    """Return rows in which `rest` owns 0, 1, ... of `LEVELS` parts."""
    share = np.arange(LEVELS + 1, dtype=np.float32) / LEVELS
    mixes = np.zeros((LEVELS + 1, width), np.float32)
    mixes[:, CODE[most]], mixes[:, CODE[rest]] = 1 - share, share
    return mixes


def level(share: Floats) -> Ints:
    """Return the row of `levels` whose second owner has `share`."""
    return np.rint(np.clip(share, 0, 1) * LEVELS).astype(np.int64)


def _own_share(timeline: Timeline, own_work: Values) -> Floats:
    """Return the share of the loop's body after each step that is the loop's own work."""
    body = np.maximum(timeline.step_end_ns - timeline.take_ns, 1)
    return np.asarray(own_work / body, dtype=np.float32)


def between_steps(bounds: Ints, rows: Rows, breaks: Breaks, loops: set[int]) -> tuple[Ints, Rows]:
    """Give the loop's time in no step to whom it belongs, and cut the pieces there."""
    owned = (
        (owners.MAIN.name, breaks.entries),
        (owners.COLLECTIVE.name, breaks.collectives),
        (owners.STARTUP.name, breaks.startups),
    )
    for owner, spans in owned:
        if len(spans[0]):
            bounds, rows, inside = cut_out(bounds, rows, spans)
            rows = np.where(inside & np.isin(rows, list(loops)), np.int32(CODE[owner]), rows)
    return bounds, rows


def day_of(timeline: Timeline, window: Window, path: Tiling, breaks: Breaks | None = None) -> Tiling:
    """Return the accelerator's day: busy pieces, and idle ones with the mix of the path that ended there."""
    starts, ends = idle_stretches(timeline, window, breaks)
    mixes = _mixes_of_path(path, ends)
    bounds = np.empty(2 * len(starts) + 2, dtype=np.int64)
    bounds[0], bounds[-1] = window.start_ns, window.end_ns
    bounds[1:-1:2], bounds[2:-1:2] = starts, ends
    rows = np.full(2 * len(starts) + 1, CODE[owners.ACCELERATOR.name], dtype=np.int32)
    rows[1::2] = len(path.owners) + np.arange(len(starts))
    return without_outside(tile(path.owners, bounds, rows, mixes), window)


def idle_stretches(timeline: Timeline, window: Window, breaks: Breaks | None = None) -> Spans:
    """Return starts and ends of the stretches of `window` in which the accelerator did nothing, in order.

    From the union of the computing intervals if the device was observed; else from the waits that were
    measured on the device, which end when the batch was taken; else from the loop: its waits, and the time
    that it spent in no step.
    """
    worked, done = computing(timeline)
    if len(worked):
        starts, ends = clipped(union(worked, done), window.start_ns, window.end_ns)
        return nonempty(np.append(window.start_ns, ends), np.append(starts, window.end_ns))
    on_device = timeline.device_wait_ns
    ends = timeline.take_ns
    starts = np.where(on_device == NOT_OBSERVED, np.minimum(timeline.request_ns, ends), ends - on_device)
    if breaks is not None and (on_device == NOT_OBSERVED).all():
        starts = np.concatenate([starts, *(begins for begins, _ in breaks)])
        ends = np.concatenate([ends, *(ended for _, ended in breaks)])
    return clipped(union(starts, ends), window.start_ns, window.end_ns)


def _mixes_of_path(path: Tiling, ends: Ints) -> Shares:
    """Return for each idle stretch the path's owners since the one before, less the accelerator's part."""
    width, count = len(path.owners), len(ends)
    mixes = np.empty((count, width), np.float32)
    for first in range(0, count, CHUNK):
        some = ends[first : first + CHUNK]
        begin = np.searchsorted(path.bounds, ends[first - 1] if first else path.bounds[0], "right") - 1
        end = np.searchsorted(path.bounds, some[-1], "left")
        cuts = ends[max(0, first - 1) : first + CHUNK]
        bounds, rows = cut(path.bounds[begin : end + 1], path.rows[begin:end], cuts)
        inside = bounds[:-1] >= (ends[first - 1] if first else bounds[0])
        bounds, rows = bounds[np.append(inside, True)], rows[inside]
        mixes[first : first + CHUNK] = _mixes_of_pieces(path, bounds, rows, some)
    return mixes


def _mixes_of_pieces(path: Tiling, bounds: Ints, rows: Rows, ends: Ints) -> Shares:
    """Return the same for some consecutive idle stretches, and the path cut at their ends."""
    width, count = len(path.owners), len(ends)
    lengths = np.diff(bounds).astype(np.float64)
    stretch = np.searchsorted(ends, bounds[1:], "left")
    kept = stretch < count
    lengths, rows, stretch = lengths[kept], rows[kept], stretch[kept]
    mixed = rows >= width
    plain = add_up(stretch[~mixed] * width + rows[~mixed], lengths[~mixed], count * width)
    amounts = plain.reshape(count, width)
    for owner in range(width):
        shares = lengths[mixed] * path.mixes[rows[mixed] - width, owner]
        amounts[:, owner] += add_up(stretch[mixed], shares, count)
    amounts[:, [CODE[owners.ACCELERATOR.name], OUTSIDE]] = 0
    return normalised(amounts.astype(np.float32))
