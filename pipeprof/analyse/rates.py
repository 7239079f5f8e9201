"""Throughput, utilisation and the stall share, each with an interval."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeprof.analyse.attribution import NOT_STALL, Attribution
from pipeprof.analyse.interval import batch_means
from pipeprof.analyse.tiling import NS_PER_S
from pipeprof.pipeline import NOT_OBSERVED, Ints

Floats = npt.NDArray[np.float64]


def step_bounds(found: Attribution) -> Ints:
    """The start of the window and the end of each measured step, never going back."""
    timeline = found.timeline
    following = np.append(timeline.request_ns[1:], timeline.take_ns[-1:])
    ends = np.where(timeline.compute_end_ns == NOT_OBSERVED, following, timeline.compute_end_ns)
    ends = np.clip(ends[~timeline.warmup], found.window.start_ns, found.window.end_ns)
    return np.maximum.accumulate(np.append(found.window.start_ns, ends))


def _epoch_starts(found: Attribution) -> Ints:
    """Among the measured steps, the first of each epoch of each loader."""
    measured = ~found.timeline.warmup
    epoch, loader = found.timeline.epoch[measured], found.timeline.loader[measured]
    return np.append(0, np.flatnonzero((np.diff(epoch) != 0) | (np.diff(loader) != 0)) + 1)


def stall_interval(found: Attribution) -> tuple[float, float] | None:
    """A 95 % interval of the stall share, between 0 and 1."""
    bounds = step_bounds(found)
    stalls = stall_between(found, bounds)
    interval = batch_means(stalls, np.diff(bounds).astype(np.float64), _epoch_starts(found))
    return None if interval is None else (max(0.0, interval[0]), min(1.0, interval[1]))


def stall_between(found: Attribution, bounds: Ints) -> Floats:
    """Stall ns between each two of `bounds`, which do not go back."""
    day = found.day
    stalling = np.array([owner not in NOT_STALL for owner in day.owners], dtype=np.float64)
    rate = np.append(stalling, day.mixes @ stalling.astype(np.float32))[day.rows]
    spent = np.append(0.0, np.cumsum(np.diff(day.bounds) * rate))
    return np.diff(np.interp(bounds, day.bounds, spent))


def throughput(found: Attribution) -> tuple[float | None, tuple[float, float] | None]:
    """Samples a second over the measured window, with a 95 % interval."""
    measured = ~found.timeline.warmup
    samples = np.maximum(found.timeline.samples[measured], 0).astype(np.float64)
    if found.window.wall_ns == 0 or not samples.any():
        return None, None
    seconds = np.diff(step_bounds(found)) / NS_PER_S
    interval = batch_means(samples, seconds, _epoch_starts(found))
    return float(samples.sum() * NS_PER_S / found.window.wall_ns), interval


def utilization(found: Attribution, kind: str | None, emulated: bool) -> tuple[float | None, str]:
    """Busy share of the window and what kind of number that is (DESIGN §5)."""
    wall = found.window.wall_ns
    busy = found.whole.ledger_ns.get("accelerator", 0)
    share = busy / wall if wall else None
    if emulated:
        return share, "emulated"
    on_device = bool((found.timeline.device_wait_ns != NOT_OBSERVED).any())
    seen = bool((found.timeline.compute_end_ns != NOT_OBSERVED).any())
    return share, "cuda-events" if on_device or (kind == "cuda" and seen) else "loop-body"
