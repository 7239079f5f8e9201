"""The sections of one run's page, in the order of DESIGN §8: data for the template, no markup."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeprof.pipeline import NOT_OBSERVED, Window, ints, measured_window
from pipeprof.report import charts, series, timeline, units, words
from pipeprof.report.facts import Answer, Facts


@dataclass(slots=True)
class Row:
    """One row of a table; the first cell heads it."""

    cells: list[str]
    colour: str | None = None
    how: str = ""


@dataclass(slots=True)
class Table:
    """A table, beside a chart or by itself."""

    caption: str
    heads: list[str]
    rows: list[Row]
    summary: str = ""
    how: str = ""
    folded: bool = True


@dataclass(slots=True)
class Chart:
    """A chart by the name of its specification, with the same numbers as a table."""

    name: str
    spec: dict[str, Any]
    table: Table | None = None
    title: str = ""
    how: str = ""
    class_: str = ""

    def __getattr__(self, name: str) -> str:
        if name == "class":
            return self.class_
        raise AttributeError(name)


@dataclass(slots=True)
class Section:
    """One part of the page."""

    id: str
    title: str
    how: str = ""
    charts: list[Chart] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    legend: list[dict[str, str]] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)
    missing: str = ""
    text: str = ""
    text_title: str = ""
    foldable: bool = True


def sections(answer: Answer, facts: Facts) -> list[Section]:
    """Every section of the page after the verdict and the fixes."""
    window = measured_window(answer.timeline)
    parts = [_where(facts)]
    if window is not None:
        parts += [_when(answer, window), _waits(answer)]
    parts += [_workers(answer), _about(facts)]
    return parts


def _where(facts: Facts) -> Section:
    section = Section(
        "where",
        "Where each step's time went",
        "The first bar is the accelerator's day: its work, and who kept it idle. The second is the critical "
        "path: what the run's duration is made of, so that what is long there limits the speed.",
    )
    if not facts.owned:
        section.missing = "No measured step was recorded, so there is nothing to divide."
        return section
    rows = _bar_rows(facts, "accelerator's day", [row.ledger_share for row in facts.owned])
    if any(row.path_share is not None for row in facts.owned):
        rows += _bar_rows(facts, "critical path", [row.path_share or 0.0 for row in facts.owned])
    largest = max(facts.owned, key=lambda row: row.ledger_ns)
    spec = charts.step_bar(
        rows, f"The largest part is {largest.label}: {units.percent(largest.ledger_share)}."
    )
    table = Table(
        "Where each step's time went",
        ["owner", "each step", "of the time", "in all", "on the critical path"],
        [_owned_row(row) for row in facts.owned],
    )
    section.charts = [Chart("where", spec, table)]
    section.legend = [{"label": row.label, "colour": row.colour} for row in facts.owned]
    return section


def _owned_row(row: Any) -> Row:
    cells = [
        row.label,
        units.duration(row.step_ns),
        units.percent(row.ledger_share),
        units.duration(row.ledger_ns),
        units.percent(row.path_share),
    ]
    return Row(cells, row.colour, row.how)


def _bar_rows(facts: Facts, view: str, shares: Sequence[float]) -> list[dict[str, Any]]:
    rows, at = [], 0.0
    for row, share in zip(facts.owned, shares, strict=True):
        if share > 0:
            ns = row.ledger_ns if view.startswith("acc") else row.path_ns
            each = units.duration((ns or 0) / facts.steps) if facts.steps else units.NOT_OBSERVED
            rows.append(
                {
                    "view": view,
                    "label": row.label,
                    "colour": row.colour,
                    "ink": words.ink(row.colour),
                    "start": at,
                    "end": at + share,
                    "middle": at + share / 2,
                    "text": each if share > 0.11 else "",
                    "time": f"{each} each step",
                    "share": units.percent(share),
                }
            )
        at += share
    return rows


def _when(answer: Answer, window: Window) -> Section:
    edges = series.edges(window.start_ns, window.end_ns)
    shares = series.shares(answer.timeline, edges)
    width = units.duration(int(edges[1] - edges[0]))
    section = Section(
        "when",
        "When it happened",
        f"Means over {width}. Ready batches do not prevent waiting when the next one in order is late.",
    )
    parts = [
        ("computing", "accelerator", shares.computing),
        ("copying to the device", "h2d", shares.copying),
        ("otherwise idle", "idle", shares.idle),
        ("waiting for data", "waiting", shares.waiting),
    ]
    seen = [part for part in parts if part[2].sum() > 0] or parts[:1]
    labels, colours = [p[0] for p in seen], [words.colour(p[1]) for p in seen]
    section.legend = [{"label": a, "colour": b} for a, b in zip(labels, colours, strict=True)]
    seconds = (edges - window.start_ns) / 1e9
    waiting = float(np.average(shares.waiting, weights=np.diff(edges)))
    spec = charts.over_time(
        _stacked(seconds, [(p[0], p[2]) for p in seen]),
        labels,
        colours,
        f"Waiting for data took {units.percent(waiting)} of the measured time.",
    )
    heads = ["from second", *labels]
    rows = [
        Row([units.digits(seconds[i]), *(units.percent(p[2][i]) for p in seen)])
        for i in range(len(seconds) - 1)
    ]
    section.charts = [Chart("when", spec, Table("Shares over time", heads, rows))]
    section.charts += _ready(answer, edges, seconds)
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


def _ready(answer: Answer, edges: Any, seconds: Any) -> list[Chart]:
    """Depth of the ready queue at the moment of each request, where it was recorded."""
    steps = answer.run.table("steps").sort_by("step")
    ready = ints(steps["ready_batches"]).astype(np.float64)
    ready[ready == NOT_OBSERVED] = np.nan
    depth = series.mean_per_bin(ints(steps["request_ns"]), ready, edges)
    if not np.isfinite(depth).any():
        return []
    rows: list[dict[str, Any]] = [
        {
            "from": float(seconds[i]),
            "to": float(seconds[i + 1]),
            "value": float(depth[i]),
            "text": f"{units.digits(depth[i])} batches",
            "when": f"{units.digits(float(seconds[i]))} s",
        }
        for i in range(len(depth))
        if np.isfinite(depth[i])
    ]
    spec = charts.line_over_time(
        rows,
        "ready batches",
        "batches",
        words.colour("h2d"),
        f"{units.digits(float(np.nanmean(depth)))} batches were ready on average.",
    )
    table = Table(
        "Ready batches over time", ["from second", "batches"], [Row([r["when"], r["text"]]) for r in rows]
    )
    how = "Batches that workers had finished and the loop had not taken, when it asked for the next."
    return [Chart("ready", spec, table, "Ready batches", how)]


def _waits(answer: Answer) -> Section:
    t = answer.timeline
    waits = (t.take_ns - t.request_ns)[~t.warmup]
    found = series.histogram(waits)
    p50, p95, p99, worst = (float(q) for q in np.quantile(waits, [0.5, 0.95, 0.99, 1.0]))
    section = Section(
        "waits",
        "Which waits hurt",
        f"{units.count(found.none)} of {units.plural(len(waits), 'step')} found the batch ready. Half waited "
        f"at most {units.duration(p50)}, one in twenty {units.duration(p95)} or more, one in a hundred "
        f"{units.duration(p99)}; the longest wait was {units.duration(worst)}.",
    )
    if len(found.counts):
        rows: list[dict[str, Any]] = [
            {
                "from": float(found.edges_ns[i]) / 1e6,
                "to": float(found.edges_ns[i + 1]) / 1e6,
                "steps": int(n),
                "text": f"{units.duration(found.edges_ns[i])} to {units.duration(found.edges_ns[i + 1])}",
            }
            for i, n in enumerate(found.counts)
        ]
        marks = [
            {"at": q / 1e6, "label": f"{name} {units.duration(q)}", "row": 8 + 16 * i}
            for i, (name, q) in enumerate((("p50", p50), ("p95", p95), ("p99", p99)))
            if q >= found.edges_ns[0]
        ]
        spec = charts.waits(rows, marks, section.how)
        table = Table(
            "Waits of the measured steps",
            ["wait", "steps"],
            [Row([r["text"], units.count(r["steps"])]) for r in rows],
        )
        section.charts = [Chart("waits", spec, table)]
    return section


def _workers(answer: Answer) -> Section:
    section = Section(
        "workers",
        "Inside the workers",
        "Each row is one process. Zoomed out, the height of a colour is its share of the time. Plus and "
        "minus zoom, as does the wheel with Ctrl or after a click; drag or arrow keys move; point at a "
        "batch to see its samples.",
    )
    if len(answer.timeline) == 0:
        section.missing = "No step was recorded."
    return section


def packed_timeline(answer: Answer) -> dict[str, Any] | None:
    """The timeline's data with its colours and the note on what was kept."""
    packed = timeline.pack(answer.run, answer.timeline)
    if packed is None:
        return None
    packed["colours"] = {
        key: {"label": label, "colour": words.colour(name), "ink": words.ink(words.colour(name))}
        for key, name, label in (
            ("wait", "waiting", "waiting for data"),
            ("copy", "h2d", "copying to the device"),
            ("compute", "accelerator", "computing"),
        )
    }
    notes = []
    if packed["kept"] < packed["steps"]:
        notes.append(
            f"Single batches are kept for {units.count(packed['kept'])} of "
            f"{units.count(packed['steps'])} steps: around the longest waits and an ordinary one. "
            "Elsewhere the colours are sums."
        )
    if packed["spans"] is not None:
        notes.append(
            "Batches whose single spans were kept show them in order; the others as one stack of sums."
        )
    packed["note"] = " ".join(notes)
    return packed


def _about(facts: Facts) -> Section:
    section = Section(
        "run", "About this run", "What was measured, how, and at what cost of its own.", foldable=False
    )
    meta = facts.meta
    machine = meta.get("machine") or {}
    overhead = meta.get("overhead") or {}
    command = " ".join(str(part) for part in meta.get("command") or ()) or units.NOT_OBSERVED
    section.facts = [
        ("Command", command),
        ("Started", facts.created),
        ("Status", facts.status),
        (
            "Measured",
            f"{units.plural(facts.steps, 'step')} in {units.duration(facts.wall_ns)}, after warm-up",
        ),
        ("Machine", _machine(machine)),
        ("Accelerator", _accelerator(meta.get("accelerator") or {})),
        ("Storage", _storage(meta.get("storage") or {})),
        ("Emulated", ", ".join(facts.emulated) or "nothing"),
        ("Not observed", ", ".join(facts.not_observed) or "nothing is missing"),
        (
            "Cost of its own",
            f"{units.duration(overhead.get('span_ns'))} a span, "
            f"{units.duration(overhead.get('batch_ns'))} a batch",
        ),
        ("Record", facts.directory),
    ]
    section.facts += [("Warning", text) for text in facts.warnings]
    scenario = meta.get("scenario") or {}
    if isinstance(scenario, dict) and scenario.get("text"):
        section.text, section.text_title = str(scenario["text"]), "The scenario"
    return section


def _machine(machine: dict[str, Any]) -> str:
    cores, quota = machine.get("usable_cores"), machine.get("cpu_quota_cores")
    parts = [
        f"{cores} usable CPU cores" if cores is not None else "",
        f"limited to {quota:g} by its container" if isinstance(quota, (int, float)) else "",
        str(machine.get("cpu_name") or ""),
        units.size(machine.get("memory_bytes")) + " of memory" if machine.get("memory_bytes") else "",
        ", ".join(str(name) for name in machine.get("gpu_names") or ()) or "no GPU",
        f"Linux {machine['kernel']}" if machine.get("kernel") else "",
    ]
    return ", ".join(part for part in parts if part)


def _accelerator(accelerator: dict[str, Any]) -> str:
    kind = "emulated" if accelerator.get("emulated") else accelerator.get("kind")
    step = accelerator.get("step_ns")
    parts = [
        str(accelerator.get("name") or units.NOT_OBSERVED),
        str(kind or ""),
        f"{units.duration(step)} a step" if step else "",
        f"figures: {accelerator['source']}" if accelerator.get("source") else "",
    ]
    return ", ".join(part for part in parts if part)


def _storage(storage: dict[str, Any]) -> str:
    model = storage.get("model") or {}
    parts = [
        str(storage.get("name") or storage.get("tier") or units.NOT_OBSERVED),
        "emulated" if storage.get("emulated") else "real" if storage else "",
        str(storage.get("path") or ""),
        f"{units.byte_rate(model['bandwidth_bytes_per_s'])}" if model.get("bandwidth_bytes_per_s") else "",
        f"cache {storage['cache']}" if storage.get("cache") else "",
        f"figures: {model['source']}" if model.get("source") else "",
    ]
    return ", ".join(part for part in parts if part)
