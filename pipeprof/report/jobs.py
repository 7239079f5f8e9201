"""A job of several ranks, shown: in the terminal, and as a page beside its parts."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from pipeprof import units
from pipeprof.analyse.job.meetings import ClockFit
from pipeprof.analyse.job.merged import JobAnalysis, RankRow, share
from pipeprof.analyse.job.shards import ShardRow
from pipeprof.record.files import write_atomically
from pipeprof.record.schema import REPORT_HTML
from pipeprof.report import spread
from pipeprof.report.page import charts, document
from pipeprof.report.page.section import Chart, Row, Section, Table, legend
from pipeprof.report.text.table import TextTable
from pipeprof.report.text.terminal import WIDTH, clean
from pipeprof.report.wording import reading, words
from pipeprof.vocabulary import bands, fixes, owners

MOST_ROWS: Final = 12
"""Ranks that the terminal shows: those that cost the others most, then those that waited longest."""
MOST_ROWS_PAGE: Final = 32
"""Ranks that the page shows individually; if there are more, it shows those that matter, and all as a
distribution."""
EXCHANGE: Final = "the exchange itself"
"""What is left of a meeting when all ranks have come."""
LEAST_DRAWN: Final = 0.002
"""Share of a rank's time below which a part of its bar is at most as wide as a line."""
WIDEST: Final = 24
"""Characters of a cell in the terminal."""


def lines(merged: JobAnalysis, page: str | None = None) -> list[str]:
    """Return the lines that the terminal shows; `page` is the path of the page, for the last line."""
    verdict = merged.verdict
    said = [f"pipeprof · {_count(merged)}{'' if merged.status == 'complete' else ' · ' + merged.status}"]
    said += textwrap.wrap(verdict.sentence, WIDTH)
    said += [text for lead in _lead(merged) for text in textwrap.wrap(lead, WIDTH)]
    if merged.emulated:
        said += textwrap.wrap(f"Emulated: {', '.join(merged.emulated)}", WIDTH)
    for doubt in merged.doubts:
        said += textwrap.wrap(f"Doubt: {doubt.problem}; {doubt.remedy}.", WIDTH)[:3]
    shards = _shards_table([row for row in merged.shards or () if row.caused_ns][:MOST_ROWS], WIDEST)
    for table in (_ranks_table(merged, MOST_ROWS), *_nodes_table(merged), *shards):
        said += ["", *_columns(table)]
    if len(merged.ranks) > MOST_ROWS:
        said.append(f"… {len(merged.ranks) - MOST_ROWS} more ranks")
        said += textwrap.wrap(spread.line(merged.ranks), WIDTH)
    return [clean(line) for line in said] + ([clean(f"Report: {page}")] if page else [])


def _columns(table: Table) -> list[str]:
    shown = TextTable(table.heads, WIDTH, widest=WIDEST)
    for row in table.rows:
        shown.row(*row.cells)
    return shown.plain()


def write(merged: JobAnalysis, path: Path) -> Path:
    """Write the page of a job; whole or not at all."""
    bars = _bars(merged)
    is_large = len(merged.ranks) > MOST_ROWS_PAGE
    view = {
        "spread": spread.table(merged.ranks) if is_large else None,
        "headline": merged.verdict.statement.headline,
        "lead": [text for text in (merged.verdict.statement.evidence, *_lead(merged)) if text],
        "emulated": [words.emulated_label(part) for part in merged.emulated],
        "doubts": [(doubt.problem, doubt.remedy) for doubt in merged.doubts],
        "tables": [
            _ranks_table(merged, MOST_ROWS_PAGE, path),
            *_nodes_table(merged),
            *_shards_table((merged.shards or ())[:MOST_ROWS_PAGE]),
        ],
        "bars": bars,
    }
    context = {"v": view, "crumbs": [_count(merged), merged.status]}
    specs = {chart.name: chart.spec for chart in bars.charts}
    if is_large:
        specs["spread"] = spread.chart(merged.ranks)
    text = document.render("ranks.html.j2", _count(merged), context, {"charts": specs}, timeline=False)
    write_atomically(path, text)
    return path


def _count(merged: JobAnalysis) -> str:
    there = len(merged.ranks)
    missing = "" if there == merged.world_size else f" of {merged.world_size}"
    return f"{there}{missing} ranks" if there != 1 or missing else "1 rank"


def _lead(merged: JobAnalysis) -> list[str]:
    """Return the figures below the sentence."""
    verdict = merged.verdict
    sentences = [
        f"The ranks lost {units.percent(verdict.lost_share)} of their time{_lost_to(merged)} "
        f"({bands.label_of(verdict.band)}); {units.sample_rate(merged.throughput)} in all."
    ]
    if verdict.fix != fixes.NONE.word:
        whom = "" if verdict.rank is None else f" on rank {verdict.rank}"
        sentences.append(
            f"To try{whom}: {fixes.BY_WORD[verdict.fix].label} (not predicted for several ranks)."
        )
    clocks = list(merged.clocks.values())
    apart = units.duration(merged.spread_ns)
    if len(clocks) == 1:
        sentences.append(f"One clock: the ranks leave each all-reduce within {apart} of each other (median).")
    elif clocks:
        sentences.append(_aligned(clocks))
    return sentences


def _lost_to(merged: JobAnalysis) -> str:
    """Return what the lost time went to, so that the headline's share is seen to be a part of it."""
    lost = merged.verdict.lost_share
    if lost is None:
        return ""
    own = merged.stall_share or 0.0
    return f": {units.percent(own)} to waiting for data, {units.percent(max(0.0, lost - own))} to each other"


def _aligned(clocks: Sequence[ClockFit]) -> str:
    """Return how well the clocks of several machines were aligned; the first is the reference."""
    residuals = [clock.residual_ns for clock in clocks[1:] if clock.residual_ns is not None]
    apart = len(clocks) - 1 - len(residuals)
    if not residuals:
        return f"The clocks of {len(clocks)} machines are not aligned."
    said = (
        f"The clocks of {1 + len(residuals)} machines were aligned by the ends of all-reduces, to within "
        f"{units.duration(max(residuals))} (median residual of the worst)"
    )
    return f"{said}; those of {apart} more are not aligned." if apart else f"{said}."


def _order(merged: JobAnalysis, most: int) -> list[RankRow]:
    """Return the rows to show: all in order if there is room, else those that matter."""
    if len(merged.ranks) <= most:
        return merged.ranks
    return sorted(merged.ranks, key=lambda row: (-row.caused_ns, -row.waited_ns))[:most]


def _ranks_table(merged: JobAnalysis, most: int, page: Path | None = None) -> Table:
    """List the ranks; on a `page` each leads to its own page, if there is one below."""
    heads = ["rank", "host", "steps", "data wait", "rank wait", "delayed others", "late for", "status"]
    rows = [
        Row(
            [
                str(row.rank),
                row.host or units.NOT_OBSERVED,
                str(row.steps),
                units.percent(share(row.stall_ns, row.wall_ns)),
                units.percent(share(row.waited_ns, row.wall_ns)),
                units.duration(row.caused_ns),
                _late_for(row),
                row.status,
            ],
            link=_link(row, page),
        )
        for row in _order(merged, most)
    ]
    how = reading.RANKS
    if len(merged.ranks) > most:
        how += f" The {most} that cost the others most, of {len(merged.ranks):,}; `--json` has all."
    if page is not None:
        how += " A rank leads to its own page, where `pipeprof report` of its directory has written one."
    return Table("The ranks", heads, rows, how=how)


def _link(row: RankRow, page: Path | None) -> str:
    """Return the link from the job's page to a rank's page; empty if the rank has none below it."""
    own = row.directory / REPORT_HTML
    if page is None or not own.is_relative_to(page.parent) or not own.is_file():
        return ""
    return quote(own.relative_to(page.parent).as_posix())


def _late_for(row: RankRow) -> str:
    if not row.caused_ns:
        return "–"
    owner = max(row.cost_ns, key=lambda name: row.cost_ns[name])
    return owners.label_of(owner)


def _nodes_table(merged: JobAnalysis) -> Iterator[Table]:
    """Yield the cost of each node's ranks to the others; only if there are several."""
    nodes = merged.nodes()
    if len(nodes) < 2:
        return
    rows = [
        Row(
            [
                node.host,
                str(len(node.ranks)),
                units.percent(node.waited_share),
                units.duration(node.caused_ns),
            ]
        )
        for node in sorted(nodes, key=lambda node: -node.caused_ns)
    ]
    yield Table("The nodes", ["node", "ranks", "rank wait", "delayed others"], rows[:MOST_ROWS_PAGE])


def _shards_table(shards: Sequence[ShardRow], longest: int | None = None) -> Iterator[Table]:
    """Yield the cost of the ranks' shards to the others; only if some are known."""
    if not shards:
        return
    rows = [
        Row(
            [
                _end(row.shard, longest),
                str(row.rank),
                str(row.steps),
                units.percent(row.steps_share),
                units.duration(row.caused_ns),
                units.percent(row.caused_share),
            ]
        )
        for row in shards
    ]
    heads = ["shard", "rank", "steps", "of its steps", "delayed others", "of that delay"]
    yield Table("The shards", heads, rows, how=reading.SHARDS)


def _end(name: str, longest: int | None) -> str:
    """Return the end of a name: the part that distinguishes shards."""
    return name if longest is None or len(name) <= longest else f"…{name[1 - longest :]}"


def _ledgers(merged: JobAnalysis) -> Table:
    """Return every rank's whole time, by owner."""
    rows = []
    for row in _order(merged, MOST_ROWS_PAGE):
        parts = sorted(row.ledger_ns.items(), key=lambda item: -item[1])
        text = ", ".join(f"{_label(owner)} {units.percent(ns / row.wall_ns)}" for owner, ns in parts[:8])
        rows.append(Row([str(row.rank), units.duration(row.wall_ns), text]))
    return Table("By rank", ["rank", "wall", "by owner, the largest first"], rows)


def _label(owner: str) -> str:
    """Return an owner's label in a job, in which the waiting for other ranks has the owners it was for."""
    return EXCHANGE if owner == owners.COLLECTIVE.name else owners.label_of(owner)


def _bars(merged: JobAnalysis) -> Section:
    """Draw each rank's whole time as a stacked bar, with the same as a table."""
    is_large = len(merged.ranks) > MOST_ROWS_PAGE
    ranks = _order(merged, MOST_ROWS if is_large else MOST_ROWS_PAGE)
    total: dict[str, int] = {}
    for row in ranks:
        for owner, ns in row.ledger_ns.items():
            total[owner] = total.get(owner, 0) + ns
    order = sorted(total, key=lambda owner: (owners.order_of(owner), owner))
    boxes = [box for row in ranks for box in _boxes(row, order)]
    shown = [owner for owner in order if any(box["owner"] == owner for box in boxes)]
    which = f" The {MOST_ROWS} ranks that cost the others most, then those that waited longest, "
    some = f"{which}of {len(merged.ranks):,}." if is_large else ""
    section = Section("bars", "Where each rank's time went", reading.RANK_LEDGERS + some)
    section.legend = legend([(_label(owner), words.drawn(owner).colour) for owner in shown])
    title = section.title
    spec = charts.stacked_bars(
        boxes, title, f"One bar a rank, {units.plural(len(ranks), 'rank')}.", len(ranks)
    )
    section.charts = [Chart("ranks", spec, _ledgers(merged))]
    return section


def _boxes(row: RankRow, order: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the parts of one rank's bar; what is too small to be seen is left out."""
    at = 0.0
    for owner in order:
        part = row.ledger_ns.get(owner, 0) / max(1, row.wall_ns)
        if part >= LEAST_DRAWN:
            drawn, each = words.drawn(owner), units.percent(part)
            yield {
                "view": f"rank {row.rank}",
                "owner": owner,
                "label": _label(owner),
                "colour": drawn.colour,
                "ink": words.ink(drawn.colour),
                "start": at,
                "end": at + part,
                "middle": at + part / 2,
                "text": each,
                "time": units.duration(row.ledger_ns[owner]),
                "share": each,
            }
        at += part
