"""The ranks of a large job as a distribution, drawn: as a table, a line and a chart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from pipeprof import units
from pipeprof.analyse.job.merged import RankRow
from pipeprof.analyse.job.spread import Kind, RankSpread, bounds_of, spreads
from pipeprof.report.page import charts
from pipeprof.report.page.section import Row, Table

BINS: Final = 40
"""Bars of the chart for all ranks' shares, from the least to the largest."""
_TEXT: Final[dict[Kind, Callable[[float], str]]] = {
    "share": units.percent,
    "ns": units.duration,
    "count": units.count,
}
_AT: Final = (("least", 0.0), ("10%", 0.1), ("half", 0.5), ("90%", 0.9), ("most", 1.0))
"""Heads of the table's columns, and the share of the ranks that lie below each."""


def table(ranks: Sequence[RankRow]) -> Table:
    """Return the quantiles of each figure over all ranks, and the rank with the most."""
    rows = []
    for each in spreads(ranks):
        cells = map(_TEXT[each.kind], each.steps(*(at for _, at in _AT)))
        is_one = each.values.min() == each.values.max()
        rows.append(Row([each.name, *cells, "all" if is_one else str(each.farthest)]))
    how = "So much or less for that share of the ranks; the last column names the rank with the most."
    return Table("All ranks", ["of each rank", *(head for head, _ in _AT), "rank"], rows, how=how)


def _shares(ranks: Sequence[RankRow]) -> list[RankSpread]:
    return [each for each in spreads(ranks) if each.kind == "share"]


def line(ranks: Sequence[RankRow]) -> str:
    """Return the middle of the shares over all ranks, with the range of most of them, in one sentence."""
    parts = []
    for each in _shares(ranks):
        low, middle, high = map(units.percent, each.middle())
        parts.append(f"{each.name} {middle} ({low} to {high} for four fifths of them)")
    return f"All ranks: {', '.join(parts)}." if parts else ""


def chart(ranks: Sequence[RankRow]) -> charts.Spec:
    """Return a histogram of the ranks by their shares of waiting for data and for other ranks."""
    shares = _shares(ranks)
    bounds = bounds_of(shares, BINS)
    rows = [
        {
            "what": each.name,
            "from": float(begin),
            "to": float(end),
            "ranks": count,
            "text": f"{units.percent(begin)} to {units.percent(end)}",
        }
        for each in shares
        for begin, end, count in zip(bounds, bounds[1:], each.histogram(bounds), strict=False)
        if count
    ]
    said = f"How many of {len(ranks):,} ranks waited which share of their time, for data and for each other."
    return charts.of_ranks(rows, said)
