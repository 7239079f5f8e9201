"""Time of each step by owner, as a bar and as shares over time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np

from pipeprof import units
from pipeprof.analyse import over_time as series
from pipeprof.analyse.analysis import Analysis
from pipeprof.analyse.ledger.attribution import Attribution
from pipeprof.analyse.resources.makeup import Makeup
from pipeprof.analyse.telemetry import trained_gpu
from pipeprof.record.names.sensors import of_gpu
from pipeprof.report.page import charts
from pipeprof.report.page.section import Chart, Row, Section, Table, legend
from pipeprof.report.wording import reading, words
from pipeprof.report.wording.view import Owned, RunView
from pipeprof.vocabulary import owners

DAY: Final = "average step"
PATH: Final = "critical path"
MOST_KERNELS: Final = 20


def where(facts: RunView, makeup: Makeup | None = None) -> Section:
    """Return the accelerator's day and the critical path as stacked bars, the ledger, and a step's parts."""
    section = Section(
        "where",
        "Where each step's time went",
        reading.WHERE,
    )
    if not facts.owned:
        section.missing = "No measured step was recorded, so there is nothing to divide."
        return section
    rows = _boxes(facts, DAY) + (_boxes(facts, PATH) if facts.owned[0].path_ns is not None else [])
    largest = max(facts.owned, key=lambda row: row.ledger_ns)
    says = f"The largest part is {largest.label}: {units.percent(largest.ledger_share)}."
    heads = ["owner", "each step", "of the time", "in all", "on the critical path"]
    table = Table(section.title, heads, [_row(row) for row in facts.owned])
    section.charts = [Chart("where", charts.step_bar(rows, says), table)]
    section.legend = legend([(row.label, row.colour) for row in facts.owned])
    section.tables = _insides(makeup) if makeup is not None else []
    return section


def _insides(makeup: Makeup) -> list[Table]:
    """Return what a step is made of, and its kernels, if they were observed."""
    tables = []
    if makeup.parts:
        rows = [
            Row([name, units.duration(step_ns), units.percent(share)])
            for name, step_ns, share in makeup.parts
        ]
        steps = units.plural(makeup.steps, "step")
        how = f"From the mark at the beginning of each part to the next, on average over {steps}."
        tables.append(Table("What a step is made of", ["part", "each step", "of the parts"], rows, how=how))
    if makeup.kernels:
        what = "Kernels" if makeup.on_device else "Operators on the CPU"
        kernels = [
            Row([each.name, units.duration(each.wall_ns), units.count(each.times), units.percent(each.share)])
            for each in makeup.kernels[:MOST_KERNELS]
        ]
        title = f"{what} of {units.plural(makeup.traced_steps, 'step')}"
        more = len(makeup.kernels) - len(kernels)
        how = "Traced by torch.profiler; these steps are not measured." + (
            f" {units.plural(more, 'shorter kind')} left out." if more else ""
        )
        heads = ["name", "in all", "times", "of kernel time"]
        tables.append(Table(title, heads, kernels, how=how, folded=True))
    return tables


def _row(row: Owned) -> Row:
    cells = [
        row.label,
        units.duration(row.step_ns),
        units.percent(row.ledger_share),
        units.duration(row.ledger_ns),
        units.percent(row.path_share),
    ]
    return Row(cells, row.colour, row.how)


def _boxes(facts: RunView, view: str) -> list[dict[str, Any]]:
    rows, at = [], 0.0
    for row in facts.owned:
        ns = row.ledger_ns if view == DAY else row.path_ns or 0
        share = row.ledger_share if view == DAY else row.path_share or 0.0
        if share > 0:
            each = units.duration(ns / facts.steps if facts.steps else None)
            rows.append(
                {
                    "view": view,
                    "label": row.label,
                    "colour": row.colour,
                    "ink": words.ink(row.colour),
                    "start": at,
                    "end": at + share,
                    "middle": at + share / 2,
                    "text": each if view == DAY else units.percent(share),
                    "time": f"{each} each step{'' if view == DAY else ', of what sets its length'}",
                    "share": units.percent(share),
                }
            )
        at += share
    return rows


def when(analysis: Analysis, attribution: Attribution) -> Section:
    """Draw the ledger over time, with the queue and NVML on the same axis."""
    window = attribution.window
    edges = series.edges(window.start_ns, window.end_ns)
    shares = series.shares(attribution, edges)
    section = Section(
        "when", "When it happened", f"One bar = {units.round_duration(int(edges[1] - edges[0]))}."
    )
    parts = [
        ("computing", owners.ACCELERATOR.name, shares.computing),
        ("copying to the device", owners.H2D.name, shares.copying),
        ("otherwise idle", words.IDLE, shares.idle),
        ("waiting for data", words.WAITING, shares.waiting),
        (owners.OUTSIDE.label, owners.OUTSIDE.name, shares.outside),
    ]
    seen = [part for part in parts if part[2].max() > 0.002] or parts[:1]
    labels, colours = [p[0] for p in seen], [words.colour(p[1]) for p in seen]
    section.legend = legend(list(zip(labels, colours, strict=True)))
    seconds = (edges - window.start_ns) / units.NS_PER_S
    says = f"Waiting for data took {units.percent(shares.of_loop(shares.waiting))} of the measured time."
    spec = charts.over_time(_stacked(seconds, [(p[0], p[2]) for p in seen]), labels, colours, says)
    rows = [
        Row([units.digits(seconds[i]), *(units.percent(p[2][i]) for p in seen)])
        for i in range(len(edges) - 1)
    ]
    if len({tuple(row.cells[1:]) for row in rows}) == 1:
        parts_said = (f"{cell} {label}" for label, cell in zip(labels, rows[0].cells[1:], strict=True))
        section.facts.append(("The whole run", f"{', '.join(parts_said)}, all along"))
        section.legend, section.how = [], ""
    else:
        section.charts = [Chart("when", spec, Table("Shares over time", ["from second", *labels], rows))]
    for panel in (_next_ready, _nvml):
        chart = panel(analysis, edges, seconds)
        if chart is not None and (constant := _constant(chart)) is not None:
            section.facts.append((chart.title, f"{constant} all along"))
        elif chart is not None:
            section.charts.append(chart)
    return section


def _constant(chart: Chart) -> str | None:
    """Return the value of a chart over time that does not vary; None if it does."""
    values = {row.cells[1] for row in chart.table.rows} if chart.table is not None else set()
    return values.pop() if len(values) == 1 else None


def _stacked(seconds: Any, parts: list[tuple[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for i in range(len(seconds) - 1):
        low = 0.0
        for what, share in parts:
            high = min(1.0, low + float(share[i]))
            if high > low:
                rows.append(
                    {
                        "from": round(float(seconds[i]), 4),
                        "to": round(float(seconds[i + 1]), 4),
                        "what": what,
                        "low": round(low, 4),
                        "high": round(high, 4),
                        "share": units.percent(float(share[i])),
                        "when": f"{units.digits(float(seconds[i]))} s",
                    }
                )
            low = high
    return rows


class LineChart(NamedTuple):
    """Name of a chart over time, instructions for reading it, and the format of its values."""

    name: str
    title: str
    how: str
    unit: str
    owner: str
    """Name of the owner whose colour it has."""
    text: Callable[[float], str]
    share: bool = False


def line(what: LineChart, values: Any, seconds: Any) -> Chart | None:
    """Return a stepped area over the bins that have a value; None if none has."""
    rows = [
        {
            "from": round(float(seconds[i]), 4),
            "to": round(float(seconds[i + 1]), 4),
            "value": float(values[i]),
            "text": what.text(float(values[i])),
            "when": f"{units.digits(float(seconds[i]))} s",
        }
        for i in range(len(values))
        if np.isfinite(values[i])
    ]
    if not rows:
        return None
    says = f"The mean is {what.text(series.mean_of(values))}."
    colour = words.colour(what.owner)
    spec = charts.line_over_time(
        rows, what.title, what.unit, colour, says, until=float(seconds[-1]), share=what.share
    )
    table = Table(
        what.title, ["from", what.unit], [Row([str(row["when"]), str(row["text"])]) for row in rows]
    )
    return Chart(what.name, spec, table, what.title, what.how)


_NEXT = LineChart(
    "next",
    "Was the next batch ready?",
    "Share of steps whose own batch lay there when the loop asked for it. Batches come in order: one slow "
    "batch blocks those behind it.",
    "of the steps",
    owners.DECODE.name,
    units.percent,
    share=True,
)
_NVML = LineChart(
    "nvml",
    "NVML utilisation",
    "Sampled by the driver; it counts the GPU as used when one kernel, however small, ran in the sample "
    "period{period}. The computing share above is the union of the steps' own intervals, each from its first "
    "event on the device to its last, so that gaps between a step's kernels count as computing.",
    "utilisation",
    owners.ACCELERATOR.name,
    units.percent,
    share=True,
)


def _next_ready(analysis: Analysis, edges: Any, seconds: Any) -> Chart | None:
    """Return a chart of the share of steps whose batch was ready when the loop asked for it."""
    return line(_NEXT, series.next_ready(analysis.timeline, edges), seconds)


def _nvml(analysis: Analysis, edges: Any, seconds: Any) -> Chart | None:
    """Return the driver's own figure for the GPU that trained, if that GPU can be identified."""
    gpu = trained_gpu(analysis.run)
    if gpu is None:
        return None
    period_s = analysis.run.meta.telemetry.nvml_sample_period_s
    period = f" of {units.duration(period_s * units.NS_PER_S)}" if period_s else ""
    driver = "amdsmi" if analysis.run.meta.accelerator.kind == "rocm" else "NVML"
    what = _NVML._replace(title=f"{driver} utilisation of {gpu}", how=_NVML.how.format(period=period))
    return line(what, series.sensor_means(analysis.run, of_gpu(gpu, "utilization"), edges), seconds)
