"""The ranks of a large job as a distribution: what is usual, how far it spreads, and who is farthest out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np

from pipeprof import units
from pipeprof.analyse.job.merged import RankRow, share
from pipeprof.report.page import charts
from pipeprof.report.page.section import Row, Table

BINS: Final = 40
"""Bars of the chart for all ranks' shares, from the least to the largest."""


class _Measure(NamedTuple):
    """A figure of each rank."""

    name: str
    value: Callable[[RankRow], float | None]
    text: Callable[[float], str]


_MEASURES: Final = (
    _Measure("data wait", lambda row: share(row.stall_ns, row.wall_ns), units.percent),
    _Measure("rank wait", lambda row: share(row.waited_ns, row.wall_ns), units.percent),
    _Measure("delayed others", lambda row: float(row.caused_ns), units.duration),
    _Measure("steps", lambda row: float(row.steps), units.count),
)
_AT: Final = (("least", 0.0), ("10%", 0.1), ("half", 0.5), ("90%", 0.9), ("most", 1.0))
"""Heads of the table's columns, and the share of the ranks that lie below each."""


def table(ranks: Sequence[RankRow]) -> Table:
    """Return the quantiles of each figure over all ranks, and the rank with the most."""
    rows = []
    for measure in _MEASURES:
        values = _values(ranks, measure)
        if not values:
            continue
        spread = np.quantile([value for _, value in values], [at for _, at in _AT], method="nearest")
        farthest = max(values, key=lambda one: one[1])[0]
        rows.append(
            Row([measure.name, *(measure.text(float(value)) for value in spread), str(farthest.rank)])
        )
    how = "So much or less for that share of the ranks; the last column names the rank with the most."
    return Table("All ranks", ["of each rank", *(head for head, _ in _AT), "rank"], rows, how=how)


def line(ranks: Sequence[RankRow]) -> str:
    """Return the middle of the shares over all ranks, with the range of most of them, in one sentence."""
    parts = []
    for measure in _MEASURES[:2]:
        values = [value for _, value in _values(ranks, measure)]
        if values:
            low, middle, high = (measure.text(float(at)) for at in np.quantile(values, (0.1, 0.5, 0.9)))
            parts.append(f"{measure.name} {middle} ({low} to {high} for four fifths of them)")
    return f"All ranks: {', '.join(parts)}." if parts else ""


def chart(ranks: Sequence[RankRow]) -> charts.Spec:
    """Return a histogram of the ranks by their shares of waiting for data and for other ranks."""
    shares = {measure.name: [value for _, value in _values(ranks, measure)] for measure in _MEASURES[:2]}
    most = max((value for values in shares.values() for value in values), default=0.0) or 1.0
    bounds = np.linspace(0, most, BINS + 1)
    rows = [
        {
            "what": name,
            "from": float(begin),
            "to": float(end),
            "ranks": int(count),
            "text": f"{units.percent(begin)} to {units.percent(end)}",
        }
        for name, values in shares.items()
        for begin, end, count in zip(bounds, bounds[1:], np.histogram(values, bounds)[0], strict=False)
        if count
    ]
    said = f"How many of {len(ranks):,} ranks waited which share of their time, for data and for each other."
    return charts.of_ranks(rows, said)


def _values(ranks: Sequence[RankRow], measure: _Measure) -> list[tuple[RankRow, float]]:
    return [(row, value) for row in ranks if (value := measure.value(row)) is not None]
