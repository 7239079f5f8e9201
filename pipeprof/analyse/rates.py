"""Throughput, utilisation and the stall share, each with an interval that respects autocorrelation.

Batch means: a run's steps are cut into consecutive groups of equal length; the groups' means are nearly
independent, and Student's t for them gives the interval (Law, Simulation Modeling and Analysis, ch. 9;
Schmeiser 1982 for 10 to 30 groups).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeprof.analyse.ledger.attribution import Attribution
from pipeprof.passes import Bools, Ints
from pipeprof.record.meta import AcceleratorMeta
from pipeprof.units import NS_PER_S
from pipeprof.vocabulary import owners
from pipeprof.vocabulary.utilization import DEVICE_EVENTS, EMULATED, LOOP_BODY, UtilizationKind

Floats = npt.NDArray[np.float64]

GROUPS: Final = 10
MIN_RESTARTS: Final = 5
_T_975: Final = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Student's t at 0.975 for 1 to 9 degrees of freedom, from the usual tables."""


def batch_means(
    values: Floats, weights: Floats, starts: npt.NDArray[np.int64] | None = None
) -> tuple[float, float] | None:
    """Return a 95% interval of sum(values) / sum(weights) over consecutive steps; None for fewer than 4
    steps.

    `starts` are steps at which the run begins again, such as its epochs: with at least five of them the
    groups begin there, so that what happens once in each is not noise.
    """
    groups = min(GROUPS, len(values) // 2)
    if groups < 2 or weights.sum() <= 0:
        return None
    edges = np.linspace(0, len(values), groups + 1).astype(np.int64)[:-1]
    if starts is not None and len(starts) >= MIN_RESTARTS:
        groups = min(GROUPS, len(starts))
        edges = starts[np.linspace(0, len(starts), groups + 1).astype(np.int64)[:-1]]
    over = np.add.reduceat(weights, edges)
    ratios = np.add.reduceat(values, edges) / np.where(over > 0, over, 1)
    mean = float(values.sum() / weights.sum())
    half = _T_975[groups - 2] * float(np.std(ratios, ddof=1)) / math.sqrt(groups)
    return mean - half, mean + half


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean of 2 to 10 independent values, with its 95% interval by Student's t."""
    mean = float(np.mean(values))
    half = _T_975[len(values) - 2] * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def interval_of(attribution: Attribution, values: Floats, weights: Floats) -> tuple[float, float] | None:
    """Return a 95% interval of sum(values) / sum(weights) over the measured steps.

    Each loader's steps are examined separately: a difference between training and evaluation is not noise. If
    one of them has too few, all are examined together.
    """
    t = attribution.timeline
    kinds, first = t.kinds[t.measured], t.epoch_first[t.measured]
    total, squares = float(weights.sum()), 0.0
    for kind in np.unique(kinds):
        mine = kinds == kind
        part = batch_means(values[mine], weights[mine], _starts(first[mine]))
        if part is None:
            return batch_means(values, weights, _starts(first))
        squares += ((part[1] - part[0]) / 2 * float(weights[mine].sum()) / total) ** 2
    mean, half = float(values.sum()) / total, math.sqrt(squares)
    return mean - half, mean + half


def _starts(first: Bools) -> Ints:
    """Return which of some steps begin a pass; the first of all does."""
    return np.append(0, np.flatnonzero(first[1:]) + 1)


def stall_interval(attribution: Attribution) -> tuple[float, float] | None:
    """Return a 95% interval of the stall share, between 0 and 1."""
    return share_interval(attribution, owners.is_stall)


def share_interval(attribution: Attribution, wanted: Callable[[str], bool]) -> tuple[float, float] | None:
    """Return a 95% interval of the ledger's share of the owners that are `wanted`, between 0 and 1."""
    owned = attribution.day.between(wanted, attribution.step_bounds)
    interval = interval_of(attribution, owned, attribution.step_lengths)
    return None if interval is None else (max(0.0, interval[0]), min(1.0, interval[1]))


def throughput(attribution: Attribution) -> tuple[float | None, tuple[float, float] | None]:
    """Return samples a second over the measured window, with a 95% interval.

    It is as wide, in shares, as that of the time a sample takes, so that a rate and the time of a step which
    say the same of two runs are beyond noise together.
    """
    measured = attribution.timeline.measured
    samples = np.maximum(attribution.timeline.samples[measured], 0).astype(np.float64)
    if attribution.window.wall_ns == 0 or not samples.any():
        return None, None
    seconds = attribution.step_lengths / NS_PER_S
    rate = float(samples.sum() * NS_PER_S / attribution.window.wall_ns)
    each = interval_of(attribution, seconds, samples)
    if each is None:
        return rate, None
    half = rate * (each[1] - each[0]) / (each[1] + each[0])
    return rate, (max(0.0, rate - half), rate + half)


def utilization(attribution: Attribution, device: AcceleratorMeta) -> tuple[float | None, UtilizationKind]:
    """Return the busy share of the window, 0 to 1, and what kind of number that is.

    A CPU has no clock other than the loop's own. A run that names no device may still have its waits.
    """
    wall = attribution.window.wall_ns
    busy = attribution.whole.ledger_ns.get(owners.ACCELERATOR.name, 0)
    share = busy / wall if wall else None
    if device.emulated:
        return share, EMULATED.word
    timeline = attribution.timeline
    timed = timeline.device_waits or (device.device_of_torch and timeline.device_observed)
    return share, (DEVICE_EVENTS if timed and device.kind != "cpu" else LOOP_BODY).word
