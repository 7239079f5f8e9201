"""The accelerator's day: when it was busy, and who kept it idle when it was not."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeprof.analyse.breaks import Breaks, Spans
from pipeprof.analyse.tiling import CODE, Rows, Shares, Tiling, add_up, cut, tile
from pipeprof.analyse.walk import CHUNK
from pipeprof.pipeline import NOT_OBSERVED, Ints, Timeline, Window


def day_of(timeline: Timeline, window: Window, path: Tiling, breaks: Breaks | None = None) -> Tiling:
    """The accelerator's day: busy pieces, and idle ones with the mix of the path that ended in them."""
    starts, ends = idle_stretches(timeline, window, breaks)
    mixes = _mixes_of_path(path, ends)
    bounds = np.empty(2 * len(starts) + 2, dtype=np.int64)
    bounds[0], bounds[-1] = window
    bounds[1:-1:2], bounds[2:-1:2] = starts, ends
    rows = np.full(2 * len(starts) + 1, CODE["accelerator"], dtype=np.int32)
    rows[1::2] = len(path.owners) + np.arange(len(starts))
    return tile(path.owners, bounds, rows, mixes)


def idle_stretches(timeline: Timeline, window: Window, breaks: Breaks | None = None) -> Spans:
    """Starts and ends of the stretches of `window` in which the accelerator did nothing, in order.

    From the union of the computing intervals where the device was observed; else from the waits that were
    measured on the device, which end when the batch was taken; else from the loop: its waits, and the time
    that it spent in no step.
    """
    begun, ended = timeline.compute_start_ns, timeline.compute_end_ns
    seen = (begun != NOT_OBSERVED) & (ended != NOT_OBSERVED)
    if seen.any():
        starts, ends = union(begun[seen], ended[seen], window)
        return _nonempty(np.append(window.start_ns, ends), np.append(starts, window.end_ns))
    wait = timeline.take_ns - timeline.request_ns
    on_device = timeline.device_wait_ns
    starts = timeline.take_ns - np.where(on_device == NOT_OBSERVED, wait, on_device)
    ends = timeline.take_ns
    if breaks is not None and (on_device == NOT_OBSERVED).all():
        starts = np.concatenate([starts, *(begins for begins, _ in breaks)])
        ends = np.concatenate([ends, *(ended for _, ended in breaks)])
    return union(starts, ends, window)


def union(starts: Ints, ends: Ints, window: Window) -> Spans:
    """The parts of `window` that at least one span covers, as disjoint spans in order."""
    order = np.argsort(starts, kind="stable")
    starts = np.clip(starts[order], window.start_ns, window.end_ns)
    until = np.clip(np.maximum.accumulate(ends[order]), window.start_ns, window.end_ns)
    new = np.append(True, starts[1:] > until[:-1])
    last = np.append(new[1:], True)
    return _nonempty(starts[new], until[last])


def _nonempty(starts: Ints, ends: Ints) -> Spans:
    kept = ends > starts
    return starts[kept], ends[kept]


def _mixes_of_path(path: Tiling, ends: Ints) -> Shares:
    """For each idle stretch, the owners of the path since the one before, the accelerator's part left out."""
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
    """The same for some consecutive idle stretches, and the path cut at their ends."""
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
    amounts[:, CODE["accelerator"]] = 0
    return _shares(amounts)


def _shares(amounts: npt.NDArray[np.float64]) -> Shares:
    total = amounts.sum(axis=1)
    amounts[total <= 0, CODE["unknown"]] = 1
    amounts /= np.where(total <= 0, 1, total)[:, None]
    return amounts.astype(np.float32)
