"""Intervals that respect autocorrelation: batch means.

A run's steps are cut into consecutive groups of equal length; the groups' means are nearly independent, and
Student's t for them gives the interval (Law, Simulation Modeling and Analysis, ch. 9; Schmeiser 1982 for
10 to 30 groups).
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

GROUPS: Final = 10
MIN_RESTARTS: Final = 5
_T_975: Final = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Student's t at 0.975 for 1 to 9 degrees of freedom, from the usual tables."""


def batch_means(
    values: Floats, weights: Floats, starts: npt.NDArray[np.int64] | None = None
) -> tuple[float, float] | None:
    """A 95 % interval of sum(values) / sum(weights) over consecutive steps. None for fewer than 4 steps.

    `starts` are steps at which the run begins again, such as its epochs: with at least five of them the
    groups begin there, so that what happens once in each is no noise.
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
