"""Waits that hurt: their distribution, the longest of them, and what each stage of a batch takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pipeprof import units
from pipeprof.analyse import over_time as series
from pipeprof.analyse.analysis import Analysis
from pipeprof.analyse.counts import Counts, Drift, Spread
from pipeprof.analyse.over_time import longest_waits, waits_of
from pipeprof.report.page import charts
from pipeprof.report.page.section import Chart, Row, Section, Table
from pipeprof.report.wording import reading, words
from pipeprof.timeline import NOT_OBSERVED, read_ints
from pipeprof.vocabulary import owners

LONGEST = 8
_SAID = {"p50": "Half waited at most {}", "p95": "one in twenty {} or more", "p99": "one in a hundred {}"}


def waits(analysis: Analysis, counts: Counts) -> Section:
    """Draw the histogram of the waits, the longest of them, and the stages' own distributions."""
    t, spread = analysis.timeline, counts.wait
    wait_ns = waits_of(t, analysis.attribution)
    histogram = series.histogram(wait_ns[t.measured & (t.ready != 1)])
    section = Section("waits", "Which waits hurt", " ".join(_said(counts)))
    if spread is not None and sum(steps > 0 for steps in histogram.counts) > 1:
        section.charts = [_chart(histogram, tuple(spread.quantiles().items()), section.how)]
    if spread is not None and spread.max_ns:
        section.tables.append(_longest(analysis))
    section.tables.append(_stages(analysis))
    section.facts = list(_facts(counts))
    return section


def _said(counts: Counts) -> Iterator[str]:
    """Yield how many steps found their batch ready, how long the waits were, and how much was not a stall."""
    steps, wait = units.plural(counts.steps, "step"), counts.wait
    if counts.inline == counts.steps:
        yield f"The loop made the batches of all {steps} itself when it asked for them."
    elif counts.ready is not None:
        of = units.plural(counts.ready_known, "step")
        known = "" if counts.ready_known == counts.steps else " of which this is known"
        yield f"{units.count(counts.ready)} of {of}{known} found the batch ready."
    if wait is not None and not wait.max_ns:
        yield "No step waited."
    elif wait is not None:
        lasted = {name: units.duration(ns) for name, ns in wait.quantiles().items()}
        parts = [said.format(lasted[name]) for name, said in _SAID.items() if name in lasted]
        yield f"{', '.join(parts)}; the longest wait was {units.duration(wait.max_ns)}."
        if counts.masked_share:
            masked = units.percent(counts.masked_share)
            yield f"Of all the waiting, {masked} was masked: the accelerator still had work."


def _facts(counts: Counts) -> Iterator[tuple[str, str]]:
    """Say what of the waiting has to do with the order of batches, with the queue, and with time."""
    if counts.head_of_line_ns:
        held = f"{units.duration(counts.head_of_line_ns)} of waiting while a later batch was finished already"
        yield "Held up by order", held
    if counts.depth is not None:
        empty = f"there was none for {units.percent(counts.depth.empty_share)} of the time"
        yield "Finished batches", f"{units.digits(counts.depth.mean, 2)} lay ready on average; {empty}"
    if counts.drift is not None:
        yield "Drift", _drift(counts.drift)


def _drift(drift: Drift) -> str:
    """Return whether steps took longer at the end of the run than at its beginning."""
    quarters = "in the last quarter of the run than in the first"
    if not drift.significant:
        return f"steps took as long {quarters.replace('than', 'as')}, within noise"
    more = "more" if drift.share > 0 else "less"
    return f"steps took {units.percent(abs(drift.share))} {more} time {quarters}"


def _chart(histogram: series.Histogram, quantiles: tuple[tuple[str, int], ...], says: str) -> Chart:
    rows: list[dict[str, Any]] = [
        {
            "from": float(histogram.edges_ns[i]) / 1e6,
            "to": float(histogram.edges_ns[i + 1]) / 1e6,
            "steps": int(steps),
            "text": f"{units.duration(histogram.edges_ns[i])} to {units.duration(histogram.edges_ns[i + 1])}",
        }
        for i, steps in enumerate(histogram.counts)
    ]
    marks = [
        {"at": value / 1e6, "label": f"{name} {units.duration(value)}"}
        for name, value in quantiles
        if value >= histogram.edges_ns[0]
    ]
    table = Table("Waits of the steps whose batch was not ready", ["wait", "steps"], [])
    table.rows = [Row([row["text"], units.count(row["steps"])]) for row in rows if row["steps"]]
    return Chart("waits", charts.waits(rows, marks, says), table)


def _longest(analysis: Analysis) -> Table:
    """Return the longest waits, each with the worker and the sample behind it."""
    t = analysis.timeline
    slowest, took = read_ints(analysis.run, "batches", ("slowest_index", "slowest_ns")).values()
    table = Table(
        "The longest waits",
        ["step", "waited", "made by", "made in", "slowest sample"],
        [],
        "The longest waits, with the worker and the sample behind each",
        folded=True,
    )
    files = {(each.loader, each.sample): each.path for each in analysis.run.meta.reading.slowest}
    wait_ns = waits_of(t, analysis.attribution)
    for i in longest_waits(t, wait_ns, LONGEST).tolist():
        row = int(t.batch_row[i])
        made = t.finish_ns[i] - t.start_ns[i] if t.finish_ns[i] != NOT_OBSERVED else None
        sample = int(slowest[row]) if row >= 0 and len(slowest) and slowest[row] != NOT_OBSERVED else None
        table.rows.append(
            Row(
                [
                    units.count(t.step[i]),
                    units.duration(wait_ns[i]),
                    f"worker {t.worker[i]}" if t.worker[i] >= 0 else "the main process",
                    units.duration(made),
                    units.NOT_OBSERVED
                    if sample is None
                    else f"{sample} ({units.duration(took[row] if took[row] != NOT_OBSERVED else None)})",
                ],
                how=files.get((int(t.loader[i]), sample), "") if sample is not None else "",
            )
        )
    return table


def _stages(analysis: Analysis) -> Table:
    """Return p50, p95, p99 and the longest of each stage, per batch, and of the parts of its way."""
    table = Table(
        "What each batch takes, by stage",
        ["stage", "p50", "p95", "p99", "longest"],
        [],
        how=reading.STAGES,
    )
    if analysis.counts is None:
        return table
    if analysis.counts.inline == analysis.counts.steps:
        table.how = reading.STAGES_INLINE
    spreads = {name: spread for name, spread in analysis.counts.stages.items() if name != "transform"}
    for name in sorted(spreads, key=words.stage_order):
        owner = words.drawn_stage(name)
        label = name if name == owners.READ else owner.label
        table.rows.append(Row([label, *_quantiles(spreads[name])], owner.colour))
    way = list(_way(analysis, analysis.counts))
    if way:
        table.rows, table.how = [*table.rows, *way], f"{table.how} {reading.WAY}"
    return table


def _way(analysis: Analysis, counts: Counts) -> Iterator[Row]:
    """Yield the rows of a batch's way to the main process: all of it, and its parts."""
    drawn, means = words.drawn(owners.TRANSFER.name), analysis.verdict.measured.transfer
    if counts.transfer is not None:
        yield Row([drawn.label, *_quantiles(counts.transfer)], drawn.colour)
    pickle = means.sent_bytes if means else None
    tensors = means.tensor_bytes if means else None
    for name, size in (("pickling", pickle), ("pipe", pickle), ("receiving", tensors)):
        if name in counts.way:
            bytes_of = "" if size is None else units.size(size)
            yield Row([f"{drawn.label}: {name}", *_quantiles(counts.way[name])], drawn.colour, bytes_of)


def _quantiles(spread: Spread) -> list[str]:
    return [units.duration(ns) for ns in (spread.p50_ns, spread.p95_ns, spread.p99_ns, spread.max_ns)]
