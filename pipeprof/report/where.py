"""Where each step's time went, and when: the bar of owners and the shares over time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import numpy as np

from pipeprof.pipeline import NOT_OBSERVED, Window, ints
from pipeprof.report import charts, series, units, words
from pipeprof.report.facts import Answer, Facts, Owned
from pipeprof.report.section import Chart, Row, Section, Table, legend

DAY: Final = "accelerator's day"
PATH: Final = "critical path"
_UTILIZATION: Final = ".utilization"


def where(facts: Facts) -> Section:
    """The accelerator's day and the critical path as two stacked bars, and the ledger."""
    section = Section(
        "where",
        "Where each step's time went",
        "The first bar is the accelerator's day: its work, and who kept it idle. The second is the critical "
        "path: what the run's duration is made of, so what is long there limits the speed.",
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
    return section


def _row(row: Owned) -> Row:
    cells = [
        row.label,
        units.duration(row.step_ns),
        units.percent(row.ledger_share),
        units.duration(row.ledger_ns),
        units.percent(row.path_share),
    ]
    return Row(cells, row.colour, row.how)


def _boxes(facts: Facts, view: str) -> list[dict[str, Any]]:
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
                    "text": each,
                    "time": f"{each} each step",
                    "share": units.percent(share),
                }
            )
        at += share
    return rows


def when(answer: Answer, window: Window) -> Section:
    """Shares of computing, copying and waiting over time, with the queue and NVML on the same axis."""
    edges = series.edges(window.start_ns, window.end_ns)
    shares = series.shares(answer.timeline, edges)
    section = Section(
        "when", "When it happened", f"Means over {units.round_duration(int(edges[1] - edges[0]))}."
    )
    parts = [
        ("computing", "accelerator", shares.computing),
        ("copying to the device", "h2d", shares.copying),
        ("otherwise idle", "idle", shares.idle),
        ("waiting for data", "waiting", shares.waiting),
    ]
    seen = [part for part in parts if part[2].max() > 0.002] or parts[:1]
    labels, colours = [p[0] for p in seen], [words.colour(p[1]) for p in seen]
    section.legend = legend(list(zip(labels, colours, strict=True)))
    seconds = (edges - window.start_ns) / 1e9
    waiting = float(np.average(shares.waiting, weights=np.diff(edges)))
    says = f"Waiting for data took {units.percent(waiting)} of the measured time."
    spec = charts.over_time(_stacked(seconds, [(p[0], p[2]) for p in seen]), labels, colours, says)
    rows = [
        Row([units.digits(seconds[i]), *(units.percent(p[2][i]) for p in seen)])
        for i in range(len(edges) - 1)
    ]
    section.charts = [Chart("when", spec, Table("Shares over time", ["from second", *labels], rows))]
    more = (one(answer, edges, seconds) for one in (_next_ready, _ready, _nvml))
    section.charts += [chart for chart in more if chart is not None]
    return section


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


class Line(NamedTuple):
    """What a chart over time is called, how to read it, and how its values are written."""

    name: str
    title: str
    how: str
    unit: str
    owner: str
    """Whose colour it has."""
    text: Callable[[float], str]
    share: bool = False


def line(what: Line, values: Any, seconds: Any) -> Chart | None:
    """A stepped area over the bins that have a value; None where none has."""
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
    says = f"The mean is {what.text(float(np.nanmean(values)))}."
    colour = words.colour(what.owner)
    spec = charts.line_over_time(
        rows, what.title, what.unit, colour, says, until=float(seconds[-1]), share=what.share
    )
    table = Table(
        what.title, ["from", what.unit], [Row([str(row["when"]), str(row["text"])]) for row in rows]
    )
    return Chart(what.name, spec, table, what.title, what.how)


_NEXT = Line(
    "next",
    "Was the next batch ready?",
    "Share of steps whose own batch was finished when the loop asked for it. Other ready batches do not help "
    "while the next one in order is late.",
    "of the steps",
    "decode",
    units.percent,
    share=True,
)
_READY = Line(
    "ready",
    "Ready batches",
    "Batches that workers had finished and the loop had not taken, when it asked for the next. Near 0 means "
    "that the workers are too slow; steadily high, that the accelerator sets the pace.",
    "batches",
    "h2d",
    lambda value: f"{units.digits(value)} batches",
)
_NVML = Line(
    "nvml",
    "NVML utilisation",
    "Sampled by the driver; it counts the GPU as used when one kernel, however small, ran in the sample "
    "period{period}. The computing share above is the union of the steps' own intervals, each from its first "
    "event on the device to its last, so that gaps between a step's kernels count as computing.",
    "utilisation",
    "accelerator",
    units.percent,
    share=True,
)


def _next_ready(answer: Answer, edges: Any, seconds: Any) -> Chart | None:
    """Was the batch that the loop asked for already there?"""
    t = answer.timeline
    there = np.where(t.arrival_ns != NOT_OBSERVED, t.arrival_ns, t.finish_ns)
    known = (there != NOT_OBSERVED) & (t.worker >= 0)
    ready = np.where(known, (there <= t.request_ns).astype(np.float64), np.nan)
    return line(_NEXT, series.mean_per_bin(t.request_ns, ready, edges), seconds)


def _ready(answer: Answer, edges: Any, seconds: Any) -> Chart | None:
    """Depth of the ready queue at the moment of each request."""
    steps = answer.run.table("steps").sort_by("step")
    ready = ints(steps["ready_batches"]).astype(np.float64)
    ready[ready == NOT_OBSERVED] = np.nan
    return line(_READY, series.mean_per_bin(ints(steps["request_ns"]), ready, edges), seconds)


def _nvml(answer: Answer, edges: Any, seconds: Any) -> Chart | None:
    """NVML's own figure of the GPU that trained, where it can be told which one that was."""
    gpu = _trained_on(answer)
    if gpu is None:
        return None
    times, values = series.sensor(answer.run, f"{gpu}.utilization")
    period_s = _part(answer, "telemetry").get("nvml_sample_period_s")
    period = f" of {units.duration(period_s * 1e9)}" if period_s else ""
    what = _NVML._replace(title=f"NVML utilisation of {gpu}", how=_NVML.how.format(period=period))
    return line(what, series.mean_per_bin(times, values, edges), seconds)


def _part(answer: Answer, name: str) -> Mapping[str, Any]:
    found = answer.run.meta.get(name)
    return found if isinstance(found, Mapping) else {}


def _trained_on(answer: Answer) -> str | None:
    """Which of NVML's GPUs is the accelerator: NVML counts all, CUDA those that the program may see."""
    seen = [name.removesuffix(_UTILIZATION) for name in series.sensors(answer.run, _UTILIZATION)]
    uuid = _part(answer, "accelerator").get("uuid")
    uuids = _part(answer, "telemetry").get("gpu_uuids") or {}
    same = [gpu for gpu in seen if uuid and uuids.get(gpu) == f"GPU-{uuid}"]  # CUDA leaves the prefix out
    candidates = same or seen
    return candidates[0] if len(candidates) == 1 else None
