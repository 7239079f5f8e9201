"""The runs at which the rate of a script changed for good: change points of its logarithm, by ruptures.

The rate of each run is taken on a logarithmic scale, in units of its noise from one run to the next, and cut
into stretches of constant level by optimal partitioning of the squared error (Killick, Fearnhead, Eckley:
PELT, 2012; `ruptures.KernelCPD` with the linear kernel). A cut must save more than Schwarz's criterion asks
of two parameters, half as much again since runs resemble their neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeprof.errors import PipeprofError

Values = npt.NDArray[np.float64]
FEWEST: Final = 5
"""Runs of a stretch at least: fewer are an outlier."""
PENALTY: Final = 3.0
"""Times log n, for each change."""
CLIPPED: Final = 4.0
"""Distance from the neighbours' median, in units of the noise, beyond which a single run no longer counts."""
_NEIGHBOURS: Final = 11
_LEAST_NOISE: Final = 0.002
"""Noise below which no series is taken to be: rates have three digits."""


def change_points(rates: Sequence[float]) -> list[int]:
    """Return the places of the first runs of new levels of the rate, in order.

    `rates` are above 0, in order of time. Raises `PipeprofError` if ruptures is not installed.
    """
    if len(rates) < 2 * FEWEST:
        return []
    try:
        from ruptures import KernelCPD
    except ImportError as error:
        raise PipeprofError(
            "changes of the rate need ruptures", "install it: pip install 'pipeprof[history]'"
        ) from error
    levels = _in_noise(np.log(np.asarray(rates, np.float64)))
    found = KernelCPD(kernel="linear", min_size=FEWEST).fit(levels[:, None])
    return [int(place) for place in found.predict(pen=PENALTY * math.log(len(levels)))[:-1]]


def _in_noise(values: Values) -> Values:
    """Return the values in units of their noise, with values far from their neighbours moved closer.

    The noise is taken from the differences of neighbours, by their median absolute deviation, so that levels
    do not count in it.
    """
    steps = np.diff(values)
    noise = float(np.median(np.abs(steps - np.median(steps)))) * 1.4826 / math.sqrt(2)
    noise = max(noise, _LEAST_NOISE)
    half = min(_NEIGHBOURS, len(values)) // 2
    padded = np.pad(values, half, mode="edge")
    middle = np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1), axis=1)
    return np.asarray(np.clip(values, middle - CLIPPED * noise, middle + CLIPPED * noise) / noise)
