"""Which waits hurt: their distribution, the longest of them, and what each stage of a batch takes."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeprof.pipeline import NOT_OBSERVED, ints
from pipeprof.report import charts, series, units, words
from pipeprof.report.facts import Answer
from pipeprof.report.section import Chart, Row, Section, Table

QUANTILES = (0.5, 0.95, 0.99, 1.0)
LONGEST = 8


def waits(answer: Answer) -> Section:
    """Histogram of the waits, the longest of them, and the stages' own distributions."""
    t = answer.timeline
    measured = (t.take_ns - t.request_ns)[~t.warmup]
    found = series.histogram(measured)
    p50, p95, p99, worst = (float(q) for q in np.quantile(measured, QUANTILES))
    ready, steps = units.count(found.none), units.plural(len(measured), "step")
    section = Section(
        "waits",
        "Which waits hurt",
        f"{ready} of {steps} found the batch ready. Half waited at most {units.duration(p50)}, one in twenty "
        f"{units.duration(p95)} or more, one in a hundred {units.duration(p99)}; the longest wait was "
        f"{units.duration(worst)}.",
    )
    if len(found.counts):
        section.charts = [_chart(found, (("p50", p50), ("p95", p95), ("p99", p99)), section.how)]
        section.tables.append(_longest(answer))
    section.tables.append(_stages(answer))
    return section


def _chart(found: series.Histogram, quantiles: tuple[tuple[str, float], ...], says: str) -> Chart:
    rows: list[dict[str, Any]] = [
        {
            "from": float(found.edges_ns[i]) / 1e6,
            "to": float(found.edges_ns[i + 1]) / 1e6,
            "steps": int(steps),
            "text": f"{units.duration(found.edges_ns[i])} to {units.duration(found.edges_ns[i + 1])}",
        }
        for i, steps in enumerate(found.counts)
    ]
    marks = [
        {"at": value / 1e6, "label": f"{name} {units.duration(value)}", "row": 8 + 16 * i}
        for i, (name, value) in enumerate(quantiles)
        if value >= found.edges_ns[0]
    ]
    table = Table("Waits of the measured steps", ["wait", "steps"], [])
    table.rows = [Row([row["text"], units.count(row["steps"])]) for row in rows if row["steps"]]
    return Chart("waits", charts.waits(rows, marks, says), table)


def _longest(answer: Answer) -> Table:
    """The longest waits, each with the worker and the sample behind it."""
    t = answer.timeline
    lengths = np.where(t.warmup, -1, t.take_ns - t.request_ns)
    slowest, took = (ints(answer.run.table("batches")[name]) for name in ("slowest_index", "slowest_ns"))
    table = Table(
        "The longest waits",
        ["step", "waited", "made by", "made in", "slowest sample"],
        [],
        "The longest waits, with the worker and the sample behind each",
        folded=True,
    )
    for i in np.argsort(-lengths, kind="stable")[:LONGEST].tolist():
        if lengths[i] < series.NO_WAIT_NS:
            break
        row = int(t.batch_row[i])
        made = t.finish_ns[i] - t.start_ns[i] if t.finish_ns[i] != NOT_OBSERVED else None
        sample = int(slowest[row]) if row >= 0 and len(slowest) and slowest[row] != NOT_OBSERVED else None
        table.rows.append(
            Row(
                [
                    units.count(t.step[i]),
                    units.duration(lengths[i]),
                    f"worker {t.worker[i]}" if t.worker[i] >= 0 else "the main process",
                    units.duration(made),
                    units.NOT_OBSERVED
                    if sample is None
                    else f"{sample} ({units.duration(took[row] if took[row] != NOT_OBSERVED else None)})",
                ]
            )
        )
    return table


def _stages(answer: Answer) -> Table:
    """p50, p95, p99 and the longest of each stage, per batch."""
    table = Table(
        "What each batch takes, by stage",
        ["stage", "p50", "p95", "p99", "longest"],
        [],
        how="Own wall time of each stage in one batch, inner stages taken out. "
        "Half of the batches take less than p50.",
    )
    if answer.attribution is None:
        return table
    measured = ~answer.timeline.warmup
    stages = answer.attribution.stages.making
    for name in sorted(stages, key=words.rank):
        values = stages[name].wall_ns[measured]
        owner = words.owner(name)
        label = "read" if name == "read" else owner.label
        table.rows.append(Row([label, *_quantiles(values)], owner.colour))
    t = answer.timeline
    seen = measured & (t.arrival_ns != NOT_OBSERVED) & (t.finish_ns != NOT_OBSERVED)
    if seen.any():
        transfer = words.owner("transfer")
        table.rows.append(
            Row([transfer.label, *_quantiles((t.arrival_ns - t.finish_ns)[seen])], transfer.colour)
        )
    return table


def _quantiles(values: Any) -> list[str]:
    seen = values[np.isfinite(values)]
    if len(seen) == 0:
        return [units.NOT_OBSERVED] * len(QUANTILES)
    return [units.duration(float(q)) for q in np.quantile(seen, QUANTILES)]
