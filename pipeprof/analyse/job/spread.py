"""Figures of a large job's ranks as distributions: what is usual, how far it spreads, who is farthest out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeprof.analyse.job.merged import RankRow, share

Kind = Literal["share", "ns", "count"]


class RankSpread(NamedTuple):
    """One figure of all ranks that have it."""

    name: str
    kind: Kind
    values: npt.NDArray[np.float64]
    farthest: int
    """The rank with the most."""

    def steps(self, *below: float) -> list[float]:
        """Return quantiles of the figure: for each share of the ranks, the value below which it lies."""
        return [float(value) for value in np.quantile(self.values, below, method="nearest")]

    def middle(self) -> tuple[float, float, float]:
        """Return the values below which a tenth, half and nine tenths of the ranks lie."""
        low, middle, high = (float(value) for value in np.quantile(self.values, (0.1, 0.5, 0.9)))
        return low, middle, high

    def histogram(self, bounds: npt.NDArray[np.float64]) -> list[int]:
        """Return how many ranks lie in each bin."""
        return [int(ranks) for ranks in np.histogram(self.values, bounds)[0]]


_FIGURES: Final[tuple[tuple[str, Kind, Callable[[RankRow], float | None]], ...]] = (
    ("data wait", "share", lambda row: share(row.stall_ns, row.wall_ns)),
    ("rank wait", "share", lambda row: share(row.waited_ns, row.wall_ns)),
    ("delayed others", "ns", lambda row: float(row.caused_ns)),
    ("steps", "count", lambda row: float(row.steps)),
)


def spreads(ranks: Sequence[RankRow]) -> list[RankSpread]:
    """Return each figure that some ranks have; the waits first, as shares."""
    spreads_of = []
    for name, kind, figure in _FIGURES:
        values = [(value, row.rank) for row in ranks if (value := figure(row)) is not None]
        if values:
            farthest = max(values, key=lambda pair: pair[0])[1]
            spreads_of.append(RankSpread(name, kind, np.array([value for value, _ in values]), farthest))
    return spreads_of


def bounds_of(spreads_of: Sequence[RankSpread], bins: int) -> npt.NDArray[np.float64]:
    """Return the edges of bins from 0 to the largest value of all."""
    most = max((float(each.values.max()) for each in spreads_of), default=0.0) or 1.0
    return np.linspace(0, most, bins + 1)
