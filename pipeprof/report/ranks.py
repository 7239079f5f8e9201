"""A job of several ranks, shown: in the terminal, and as a page beside its parts."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from pipeprof.analyse.meetings import Clock
from pipeprof.analyse.merged import Merged, RankRow, share
from pipeprof.analyse.shards import ShardRow
from pipeprof.report import document, units, words
from pipeprof.report.section import Row, Table
from pipeprof.report.terminal import WIDTH, clean
from pipeprof.trace import write_atomically

MOST_ROWS: Final = 12
"""Ranks that the terminal shows: those that cost the others most, then those that waited longest."""
MOST_ROWS_PAGE: Final = 256
WIDEST: Final = 24
"""Characters of a cell in the terminal."""


def lines(merged: Merged, page: str | None = None) -> list[str]:
    """What the terminal shows; `page` is the path of the page, for the last line."""
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
        said += ["", *_columns([table.heads, *(row.cells for row in table.rows)])]
    if len(merged.ranks) > MOST_ROWS:
        said.append(f"… {len(merged.ranks) - MOST_ROWS} more ranks")
    return [clean(line) for line in said] + ([clean(f"Report: {page}")] if page else [])


def write(merged: Merged, path: Path) -> Path:
    """Write the page of a job; whole or not at all."""
    view = {
        "headline": merged.verdict.sentence,
        "lead": _lead(merged),
        "emulated": [words.emulated_label(part) for part in merged.emulated],
        "doubts": [(doubt.problem, doubt.remedy) for doubt in merged.doubts],
        "tables": [
            _ranks_table(merged, MOST_ROWS_PAGE),
            *_nodes_table(merged),
            *_shards_table(merged.shards or ()),
            _ledgers(merged),
        ],
    }
    context = {"v": view, "crumbs": [_count(merged), merged.status]}
    text = document.render("ranks.html.j2", _count(merged), context, {"charts": {}}, timeline=False)
    write_atomically(path, text)
    return path


def _count(merged: Merged) -> str:
    there = len(merged.ranks)
    missing = "" if there == merged.world_size else f" of {merged.world_size}"
    return f"{there}{missing} ranks" if there != 1 or missing else "1 rank"


def _lead(merged: Merged) -> list[str]:
    """The figures below the sentence."""
    verdict = merged.verdict
    found = [
        f"Of all ranks' time {units.percent(verdict.lost_share)} was lost to data and to waiting for each "
        f"other, {words.BANDS.get(verdict.band or '', 'in no band')}; "
        f"{units.sample_rate(merged.throughput)} in all."
    ]
    if verdict.fix in words.FIXES:
        whom = "" if verdict.rank is None else f" on rank {verdict.rank}"
        found.append(f"To try{whom}: {words.FIXES[verdict.fix]} (not predicted for several ranks).")
    clocks = list(merged.clocks.values())
    apart = units.duration(merged.spread_ns)
    if len(clocks) == 1:
        found.append(f"One machine, one clock; the ranks left their meetings within {apart} (median).")
    elif clocks:
        found.append(_aligned(clocks))
    return found


def _aligned(clocks: Sequence[Clock]) -> str:
    """How well the clocks of several machines were brought together; the first is the reference."""
    residuals = [clock.residual_ns for clock in clocks[1:] if clock.residual_ns is not None]
    apart = len(clocks) - 1 - len(residuals)
    if not residuals:
        return f"The clocks of {len(clocks)} machines are not aligned."
    said = (
        f"The clocks of {1 + len(residuals)} machines were aligned by the ends of their meetings, to within "
        f"{units.duration(max(residuals))} (median residual of the worst)"
    )
    return f"{said}; those of {apart} more are not aligned." if apart else f"{said}."


def _order(merged: Merged, most: int) -> list[RankRow]:
    """The rows to show: all in order where there is room, else those that matter."""
    if len(merged.ranks) <= most:
        return merged.ranks
    return sorted(merged.ranks, key=lambda row: (-row.caused_ns, -row.waited_ns))[:most]


def _ranks_table(merged: Merged, most: int) -> Table:
    heads = ["rank", "host", "steps", "own stall", "waited", "cost others", "late for", "status"]
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
            ]
        )
        for row in _order(merged, most)
    ]
    how = (
        "Own stall: its accelerator wanted for a batch of its own. Waited: in meetings, for another rank to "
        "come. Cost others: what all other ranks together waited for this one."
    )
    return Table("The ranks", heads, rows, how=how)


def _late_for(row: RankRow) -> str:
    if not row.caused_ns:
        return "–"
    owner = max(row.cost_ns, key=lambda name: row.cost_ns[name])
    return words.owner(owner).label


def _nodes_table(merged: Merged) -> Iterator[Table]:
    """What the ranks of each node cost the others; only where there are several."""
    nodes = merged.nodes()
    if len(nodes) < 2:
        return
    rows = [
        Row(
            [
                host,
                str(len(ranks)),
                units.percent(share(sum(r.waited_ns for r in ranks), sum(r.wall_ns for r in ranks))),
                units.duration(sum(r.caused_ns for r in ranks)),
            ]
        )
        for host, ranks in sorted(nodes.items(), key=lambda item: -sum(r.caused_ns for r in item[1]))
    ]
    yield Table("The nodes", ["node", "ranks", "waited", "cost others"], rows[:MOST_ROWS_PAGE])


def _shards_table(shards: Sequence[ShardRow], longest: int | None = None) -> Iterator[Table]:
    """What the shards that ranks read from cost the others; only where some are known."""
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
    how = (
        "A shard is a file of many samples. Cost others: what all other ranks waited for batches that this "
        "rank made from it; beside it, its share of what they waited for this rank's batches."
    )
    heads = ["shard", "rank", "steps", "of its steps", "cost others", "of its cost"]
    yield Table("The shards", heads, rows, how=how)


def _end(name: str, longest: int | None) -> str:
    """What tells shards apart stands at the end of their names."""
    return name if longest is None or len(name) <= longest else f"…{name[1 - longest :]}"


def _ledgers(merged: Merged) -> Table:
    """Every rank's whole time, by owner."""
    rows = []
    for row in _order(merged, MOST_ROWS_PAGE):
        parts = sorted(row.ledger_ns.items(), key=lambda item: -item[1])
        text = ", ".join(f"{_owner(owner)} {units.percent(ns / row.wall_ns)}" for owner, ns in parts[:8])
        rows.append(Row([str(row.rank), units.duration(row.wall_ns), text]))
    how = "Each rank's ledger sums to its wall time; waiting is charged to the rank waited for and its cause."
    return Table(
        "Where each rank's time went", ["rank", "wall", "by owner, the largest first"], rows, how=how
    )


def _owner(name: str) -> str:
    """`rank:2:storage` as a person says it."""
    head, _, rest = name.partition(":")
    number, _, owner = rest.partition(":")
    if head != "rank":
        return words.owner(name).label
    return f"rank {number}'s {words.owner(owner).label}" if owner else "other ranks"


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as aligned text, cut to the terminal's width."""
    widths = [min(WIDEST, max(len(row[i]) for row in rows)) for i in range(len(rows[0]))]
    padded = [[cell[:WIDEST].ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    return ["  ".join(cells).rstrip()[:WIDTH] for cells in padded]
