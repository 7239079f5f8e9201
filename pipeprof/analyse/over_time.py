"""The ledger over time: how the accelerator's day divides within each bin of a run, and other means per bin.

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
from pipeprof.units import NS_PER_S
from pipeprof.vocabulary import owners

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Shares:
    """Shares of each bin's time; they sum to 1 within the measured window, and to 0 beside it.

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
        """Return what one of the parts is of the loop's time in all bins; 0 where there is none."""
        width = np.diff(self.edges_ns)
        loop = float(((self.computing + self.copying + self.waiting + self.idle) * width).sum())
        return float((part * width).sum()) / loop if loop else 0.0


def edges(start_ns: int, end_ns: int, at_most: int = 180) -> Ints:
    """Return bin edges over a window: whole seconds where that gives enough bins, else a rounder fraction."""
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
    """Return the mean of the values in each bin, NaN where there is none."""
    inside = (time_ns >= edges_ns[0]) & (time_ns < edges_ns[-1]) & np.isfinite(value)
    bins = np.searchsorted(edges_ns, time_ns[inside], side="right") - 1
    held = np.bincount(bins, minlength=len(edges_ns) - 1)
    total = np.bincount(bins, weights=value[inside], minlength=len(edges_ns) - 1)
    return np.where(held > 0, total / np.maximum(1, held), np.nan)


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


def codes(column: Any) -> tuple[list[str], Ints]:
    """Return a dictionary column as its names and one index a row, `NOT_OBSERVED` for null."""
    array = column.combine_chunks()
    if len(array) == 0:
        return [], np.array([], dtype=np.int64)
    indices = whole_numbers(array.indices, NOT_OBSERVED)
    return [str(name) for name in array.dictionary.to_pylist()], indices
