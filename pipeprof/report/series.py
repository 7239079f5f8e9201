"""What the charts over time draw: shares of computing, copying and waiting per bin of a run.

Arrays in, arrays out; no drawing. Intervals are in ns with `NOT_OBSERVED` where an end is not known; such
intervals are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeprof.pipeline import NOT_OBSERVED, Ints, Timeline, ints
from pipeprof.trace import Run

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Shares:
    """Shares of each bin's time; they sum to 1. `edges_ns` has one entry more than the others."""

    edges_ns: Ints
    computing: Floats
    copying: Floats
    waiting: Floats
    idle: Floats


def edges(start_ns: int, end_ns: int, at_most: int = 180) -> Ints:
    """Bin edges over a window: whole seconds where that gives enough bins, else a rounder fraction."""
    wall = max(1, end_ns - start_ns)
    steps = [m * 10**e for e in range(3, 16) for m in (1, 2, 5)]
    width = next(step for step in steps if wall / step <= at_most)
    if width < 1_000_000_000 and wall / 1_000_000_000 >= 30:
        width = 1_000_000_000
    return np.append(np.arange(start_ns, end_ns, width), max(end_ns, start_ns + 1)).astype(np.int64)


def shares(timeline: Timeline, edges_ns: Ints) -> Shares:
    """Split each bin into computing, copying with nothing computing, waiting for a batch, and other idling.

    Without a device clock the time between taking a batch and asking for the next counts as computing.
    """
    wait = _intervals(timeline.request_ns, timeline.take_ns)
    compute = _intervals(timeline.compute_start_ns, timeline.compute_end_ns)
    copy = _intervals(timeline.copy_start_ns, timeline.copy_end_ns)
    if len(compute[0]) == 0:
        compute = _intervals(timeline.take_ns[:-1], timeline.request_ns[1:])
    grid = np.unique(np.concatenate([*wait, *compute, *copy, edges_ns]))
    grid = grid[(grid >= edges_ns[0]) & (grid <= edges_ns[-1])]
    at, length = grid[:-1], np.diff(grid)
    computing = _covers(compute, at)
    copying = _covers(copy, at) & ~computing
    waiting = _covers(wait, at) & ~computing & ~copying
    bins = np.searchsorted(edges_ns, at, side="right") - 1
    width = np.maximum(1, np.diff(edges_ns))

    def share(mask: npt.NDArray[np.bool_]) -> Floats:
        return np.bincount(bins, weights=length * mask, minlength=len(width)) / width

    return Shares(
        edges_ns, share(computing), share(copying), share(waiting), share(~(computing | copying | waiting))
    )


def _intervals(start: Ints, end: Ints) -> tuple[Ints, Ints]:
    known = (start != NOT_OBSERVED) & (end != NOT_OBSERVED) & (end > start)
    return np.sort(start[known]), np.sort(end[known])


def _covers(intervals: tuple[Ints, Ints], at: Ints) -> npt.NDArray[np.bool_]:
    """Which moments lie in at least one interval: more have begun than ended."""
    begun = np.searchsorted(intervals[0], at, side="right")
    ended = np.searchsorted(intervals[1], at, side="right")
    return np.asarray(begun > ended)


def mean_per_bin(time_ns: Ints, value: Floats, edges_ns: Ints) -> Floats:
    """Mean of the values in each bin, NaN where there is none."""
    inside = (time_ns >= edges_ns[0]) & (time_ns < edges_ns[-1]) & np.isfinite(value)
    bins = np.searchsorted(edges_ns, time_ns[inside], side="right") - 1
    held = np.bincount(bins, minlength=len(edges_ns) - 1)
    total = np.bincount(bins, weights=value[inside], minlength=len(edges_ns) - 1)
    return np.where(held > 0, total / np.maximum(1, held), np.nan)


def spread(start_ns: Ints, end_ns: Ints, amount: npt.NDArray[Any], edges_ns: Ints) -> Floats:
    """Sum of amounts in each bin, each spread evenly over its interval; intervals may overlap."""
    if len(start_ns) == 0:
        return np.zeros(len(edges_ns) - 1)
    rate = np.nan_to_num(amount.astype(np.float64)) / np.maximum(1, end_ns - start_ns)
    moments = np.concatenate([start_ns, np.maximum(end_ns, start_ns + 1)])
    order = np.argsort(moments, kind="stable")
    moments, rates = moments[order], np.cumsum(np.concatenate([rate, -rate])[order])
    until = np.append(0.0, np.cumsum(rates[:-1] * np.diff(moments)))
    return np.asarray(np.diff(np.interp(edges_ns, moments, until)))


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of the non-zero waits in logarithmic bins, and how many were zero."""

    edges_ns: Floats
    counts: Ints
    none: int
    """Steps that did not wait (less than 10 µs: what `next` costs when a batch is ready)."""


NO_WAIT_NS = 10_000


def histogram(waits_ns: Ints, bins_per_decade: int = 8) -> Histogram:
    """Logarithmic histogram of waits in ns."""
    waited = waits_ns[waits_ns >= NO_WAIT_NS]
    if len(waited) == 0:
        return Histogram(np.array([]), np.array([], dtype=np.int64), len(waits_ns))
    low = np.floor(np.log10(waited.min()) * bins_per_decade)
    high = np.floor(np.log10(waited.max()) * bins_per_decade) + 1
    bounds = 10 ** (np.arange(low, high + 1) / bins_per_decade)
    counts, _ = np.histogram(waited, bounds)
    return Histogram(bounds, counts.astype(np.int64), len(waits_ns) - len(waited))


def sensor(run: Run, name: str) -> tuple[Ints, Floats]:
    """Times in ns and values of one sensor of the telemetry; empty where it was not observed."""
    times, values = [np.array([], dtype=np.int64)], [np.array([], dtype=np.float64)]
    for piece in run.pieces("telemetry", ("time_ns", "sensor", "value")):
        names, code = codes(piece["sensor"])
        mine = code == (names.index(name) if name in names else -2)
        times.append(ints(piece["time_ns"])[mine])
        values.append(piece["value"].to_numpy()[mine])
    return np.concatenate(times), np.concatenate(values)


def sensors(run: Run, ending: str) -> list[str]:
    """Names of the telemetry's sensors that end so and told anything, in order."""
    found: set[str] = set()
    for piece in run.pieces("telemetry", ("sensor",)):
        names, code = codes(piece["sensor"])
        found.update(names[each] for each in np.unique(code) if each >= 0 and names[each].endswith(ending))
    return sorted(found)


def codes(column: Any) -> tuple[list[str], Ints]:
    """A dictionary column as its names and one index a row, `NOT_OBSERVED` for null."""
    array = column.combine_chunks()
    if len(array) == 0:
        return [], np.array([], dtype=np.int64)
    indices = array.indices.cast("int64").fill_null(NOT_OBSERVED).to_numpy(zero_copy_only=False)
    return [str(name) for name in array.dictionary.to_pylist()], np.asarray(indices)
