"""The ledger over time: how the accelerator's day divides within each bin of a run, other means per bin,
and the steps that are worth a look.

Arrays in, arrays out; no drawing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeprof.analyse.ledger.attribution import Attribution
from pipeprof.passes import NOT_OBSERVED, Ints
from pipeprof.record.columns import whole_numbers
from pipeprof.record.names.sensors import SensorName
from pipeprof.record.reader import Run
from pipeprof.record.telemetry import read_sensors
from pipeprof.timeline import Timeline
from pipeprof.units import NS_PER_S
from pipeprof.vocabulary import owners

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Shares:
    """Shares of each bin's time; they sum to 1 within the measured window, and to 0 outside it.

    `edges_ns` has one entry more than the others.
    """

    edges_ns: Ints
    computing: Floats
    copying: Floats
    """Share in which the accelerator waited for a copy to it."""
    waiting: Floats
    """Share of the stall, in which it waited for a batch."""
    idle: Floats
    """Share in which it waited for the loop's own Python, or for other ranks."""
    outside: Floats
    """Share in which no loop ran: a pause, or the first start-up of workers."""

    def of_loop(self, part: Floats) -> float:
        """Return one part as a share of the loop's time over all bins; 0 if there is no time."""
        width = np.diff(self.edges_ns)
        loop = float(((self.computing + self.copying + self.waiting + self.idle) * width).sum())
        return float((part * width).sum()) / loop if loop else 0.0


def edges(start_ns: int, end_ns: int, at_most: int = 180) -> Ints:
    """Return bin edges over a window: whole seconds if that gives enough bins, else a rounder fraction."""
    wall = max(1, end_ns - start_ns)
    steps = [m * 10**e for e in range(3, 16) for m in (1, 2, 5)]
    width = next(step for step in steps if wall / step <= at_most)
    if width < NS_PER_S and wall / NS_PER_S >= 30:
        width = NS_PER_S
    return np.append(np.arange(start_ns, end_ns, width), max(end_ns, start_ns + 1)).astype(np.int64)


def shares(attribution: Attribution, edges_ns: Ints) -> Shares:
    """Return how the accelerator's day divides within each bin: the ledger, over time."""
    width = np.maximum(1, np.diff(edges_ns))
    apart = (owners.ACCELERATOR.name, owners.H2D.name, owners.OUTSIDE.name)

    def share(wanted: Callable[[str], bool]) -> Floats:
        return np.asarray(attribution.day.between(wanted, edges_ns) / width)

    return Shares(
        edges_ns,
        computing=share(owners.ACCELERATOR.name.__eq__),
        copying=share(owners.H2D.name.__eq__),
        waiting=share(owners.is_stall),
        idle=share(lambda word: not owners.is_stall(word) and word not in apart),
        outside=share(owners.OUTSIDE.name.__eq__),
    )


def mean_per_bin(time_ns: Ints, value: Floats, edges_ns: Ints) -> Floats:
    """Return the mean of the values in each bin, NaN if there is none."""
    inside = (time_ns >= edges_ns[0]) & (time_ns < edges_ns[-1]) & np.isfinite(value)
    bins = np.searchsorted(edges_ns, time_ns[inside], side="right") - 1
    held = np.bincount(bins, minlength=len(edges_ns) - 1)
    total = np.bincount(bins, weights=value[inside], minlength=len(edges_ns) - 1)
    return np.where(held > 0, total / np.maximum(1, held), np.nan)


def mean_of(values: Floats) -> float:
    """Return the mean of the bins that have a value."""
    return float(np.nanmean(values))


def sensor_means(run: Run, sensor: SensorName, edges_ns: Ints) -> Floats:
    """Return the mean of a sensor's readings in each bin."""
    readings = read_sensors(run, sensor)[sensor]
    return mean_per_bin(readings.time_ns, readings.value, edges_ns)


def spread(start_ns: Ints, end_ns: Ints, amount: npt.NDArray[Any], edges_ns: Ints) -> Floats:
    """Sum amounts in each bin, each spread evenly over its interval; intervals may overlap."""
    if len(start_ns) == 0:
        return np.zeros(len(edges_ns) - 1)
    rate = np.nan_to_num(amount.astype(np.float64)) / np.maximum(1, end_ns - start_ns)
    moments = np.concatenate([start_ns, np.maximum(end_ns, start_ns + 1)])
    order = np.argsort(moments, kind="stable")
    moments, rates = moments[order], np.cumsum(np.concatenate([rate, -rate])[order])
    until = np.append(0.0, np.cumsum(rates[:-1] * np.diff(moments)))
    return np.asarray(np.diff(np.interp(edges_ns, moments, until)))


def rate_per_s(timeline: Timeline, amount: npt.NDArray[Any], edges_ns: Ints) -> Floats:
    """Return an amount of each step's batch, spread over the time it was made in, per second of each bin."""
    seen = (timeline.start_ns != NOT_OBSERVED) & (timeline.finish_ns != NOT_OBSERVED)
    held = spread(timeline.start_ns[seen], timeline.finish_ns[seen], amount[seen], edges_ns)
    return held / np.diff(edges_ns) * NS_PER_S


def next_ready(timeline: Timeline, edges_ns: Ints) -> Floats:
    """Return the share of the steps of each bin whose batch was ready when it was asked for."""
    known = timeline.measured & (timeline.ready != NOT_OBSERVED) & (timeline.worker >= 0)
    ready = np.where(known, timeline.ready.astype(np.float64), np.nan)
    # a loop that runs ahead of its device asks for the first batches before the window: they are its first
    asked_ns = np.clip(timeline.request_ns, edges_ns[0], edges_ns[-1] - 1)
    return mean_per_bin(asked_ns, ready, edges_ns)


def work_shares(timeline: Timeline, wall_ns: npt.NDArray[Any], edges_ns: Ints) -> list[Floats]:
    """Return, of each worker in order, the share of each bin in which it spent `wall_ns` of its batches.

    `wall_ns` has an entry a step.
    """
    seen = (timeline.start_ns != NOT_OBSERVED) & (timeline.finish_ns != NOT_OBSERVED)
    width = np.maximum(1, np.diff(edges_ns))
    shares_of = []
    for worker in np.unique(timeline.worker):
        own = np.flatnonzero(seen & (timeline.worker == worker))
        shares_of.append(
            spread(timeline.start_ns[own], timeline.finish_ns[own], wall_ns[own], edges_ns) / width
        )
    return shares_of


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of waits in logarithmic bins."""

    edges_ns: Floats
    counts: Ints


def histogram(waits_ns: Ints, bins_per_decade: int = 8) -> Histogram:
    """Return the logarithmic histogram of the waits that lasted."""
    waited = waits_ns[waits_ns > 0]
    if len(waited) == 0:
        return Histogram(np.array([]), np.array([], dtype=np.int64))
    low = np.floor(np.log10(waited.min()) * bins_per_decade)
    high = np.floor(np.log10(waited.max()) * bins_per_decade) + 1
    bounds = 10 ** (np.arange(low, high + 1) / bins_per_decade)
    counts, _ = np.histogram(waited, bounds)
    return Histogram(bounds, counts.astype(np.int64))


def waits_of(timeline: Timeline, attribution: Attribution | None) -> Ints:
    """Return the time of each wait: in the measured window, if there is one."""
    return timeline.wait_ns if attribution is None else attribution.wait_ns


def longest_waits(timeline: Timeline, wait_ns: Ints, most: int = 1) -> Ints:
    """Return the positions of the measured steps that waited the longest for batches that were not ready.

    The longest first, by the waits `wait_ns`; empty if no step waited.
    """
    lengths = np.where(timeline.measured & (timeline.ready != 1), wait_ns, 0)
    order = np.argsort(-lengths, kind="stable")[:most]
    return np.asarray(order[lengths[order] > 0])


def ordinary_step(timeline: Timeline) -> int:
    """Return the index of a step of median wait, the nearest to the middle of the run."""
    waits_ns = timeline.wait_ns
    from_median = np.abs(waits_ns - np.median(waits_ns))
    near = np.flatnonzero(from_median == from_median.min())
    return int(near[np.argmin(np.abs(near - len(waits_ns) // 2))])


def stretches(timeline: Timeline, most_steps: int, stretch: int) -> Ints:
    """Return the places of at most `most_steps` steps: all, or the stretches that show most of the run.

    Those are `stretch` steps each, around the first step, an ordinary one, and the longest waits.
    """
    steps = len(timeline)
    if steps <= most_steps:
        return np.arange(steps)
    centres = [0, ordinary_step(timeline), *np.argsort(timeline.wait_ns)[::-1]]
    keep = np.zeros(steps, dtype=bool)
    for centre in centres:
        if keep.sum() + stretch > most_steps:
            break
        keep[max(0, int(centre) - stretch // 2) : int(centre) + stretch // 2] = True
    return np.flatnonzero(keep)


def codes(column: Any) -> tuple[list[str], Ints]:
    """Return a dictionary column as its names and one index a row, `NOT_OBSERVED` for null."""
    array = column.combine_chunks()
    if len(array) == 0:
        return [], np.array([], dtype=np.int64)
    indices = whole_numbers(array.indices, NOT_OBSERVED)
    return [str(name) for name in array.dictionary.to_pylist()], indices
