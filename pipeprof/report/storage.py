"""Storage: how fast bytes came, from where, in what sizes, and how long a read took."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeprof.pipeline import NOT_OBSERVED, Window, ints
from pipeprof.report import series, units
from pipeprof.report.facts import Answer
from pipeprof.report.section import Chart, Row, Section, Table
from pipeprof.report.where import Line, line


def storage(answer: Answer, window: Window) -> Section:
    """Bytes over time, what came from the device, and the reads that were kept one by one."""
    facts = answer.run.meta.get("storage")
    facts = facts if isinstance(facts, Mapping) else {}
    emulated = bool(facts.get("emulated"))
    section = Section("storage", "Storage", _how(facts))
    reads = answer.attribution.stages.making.get("read") if answer.attribution is not None else None
    if reads is None or reads.bytes is None:
        section.missing = "No read was seen: readers written in C and memory maps pass by Python's files."
        return section
    measured = ~answer.timeline.warmup
    section.charts = [chart for chart in (_rate(answer, window, reads, emulated),) if chart is not None]
    section.facts = _facts(answer, window, reads, measured, facts)
    section.tables = [_single(answer)]
    return section


def _how(facts: Mapping[str, Any]) -> str:
    name = str(facts.get("name") or facts.get("tier") or "the storage")
    if facts.get("emulated"):
        return (
            f"The device {name} is emulated: its cost model decides when bytes arrive, while they are really "
            "read from a warm file."
        )
    return f"Reads through Python's files, on {name}."


def _rate(answer: Answer, window: Window, reads: Any, emulated: bool) -> Chart | None:
    t = answer.timeline
    edges = series.edges(window.start_ns, window.end_ns, at_most=120)
    seconds = (edges - window.start_ns) / 1e9
    seen = (t.start_ns != NOT_OBSERVED) & (t.finish_ns != NOT_OBSERVED)
    read = series.spread(t.start_ns[seen], t.finish_ns[seen], reads.bytes[seen], edges)
    rate = read / np.diff(edges) * 1e9
    what = Line(
        "storage",
        f"Bytes read{' (emulated device)' if emulated else ''}",
        "Each batch's bytes are spread over the time of its making.",
        "MB/s",
        "storage",
        lambda value: units.byte_rate(value * 1e6),
    )
    return line(what, rate / 1e6, seconds)


def _facts(
    answer: Answer, window: Window, reads: Any, measured: Any, facts: Mapping[str, Any]
) -> list[tuple[str, str]]:
    seconds = max(1, window.wall_ns) / 1e9
    size, wall = (float(np.nansum(one[measured])) for one in (reads.bytes, reads.wall_ns))
    count = None if reads.count is None else float(np.nansum(reads.count[measured]))
    queue = None if reads.queue_ns is None else float(np.nansum(reads.queue_ns[measured]))
    model = facts.get("model") if isinstance(facts.get("model"), Mapping) else None
    found = [
        ("Rate", f"{units.byte_rate(size / seconds)} over the measured time"),
        ("Reads", f"{units.digits(count / seconds)} a second" if count else units.NOT_OBSERVED),
        ("Size of a read", f"{units.size(size / count)} on average" if count else units.NOT_OBSERVED),
        ("Time of a read", f"{units.duration(wall / count)} on average" if count else units.NOT_OBSERVED),
        (
            "Queueing",
            f"{units.percent(queue / wall)} of that, behind other reads"
            if queue is not None and wall
            else units.NOT_OBSERVED,
        ),
        *_requests(answer, measured, wall, seconds),
        (
            "From a block device",
            "not of this machine: the data are remote, and no page cache holds them"
            if facts.get("remote")
            else _from_device(answer, size, bool(facts.get("emulated"))),
        ),
    ]
    if model and model.get("bandwidth_bytes_per_s"):
        found.append(
            ("The device's bandwidth", f"{units.byte_rate(model['bandwidth_bytes_per_s'])} (its model)")
        )
    return found


def _requests(answer: Answer, measured: Any, wall: float, seconds: float) -> list[tuple[str, str]]:
    """What lay below the reads of a remote place; nothing where no request was seen."""
    parts = answer.attribution.stages.parts if answer.attribution is not None else {}
    if not parts or not wall:
        return []

    def of(name: str) -> tuple[float, float]:
        part = parts.get(name)
        if part is None or part.count is None:
            return 0.0, 0.0
        return float(np.nansum(part.wall_ns[measured])), float(np.nansum(part.count[measured]))

    first_byte, answers = of("first-byte")
    waited = f"{units.duration(first_byte / max(1, answers))} after a request was sent, on average"
    share = f"{units.percent(first_byte / wall)} of the reading"
    found = [
        ("Reads under way", f"{units.digits(wall / 1e9 / seconds)} at once, on average"),
        ("First byte", f"{waited}; {share}" if answers else units.NOT_OBSERVED),
    ]
    for name, label in (("throttled", "Refused with 503 or 429"), ("retry", "Failed otherwise")):
        lost, count = of(name)
        told = f"; {units.percent(lost / wall)} of the reading went into asking again" if count else ""
        found.append((label, f"{units.plural(int(count), 'request')}{told}"))
    return found


def _from_device(answer: Answer, size: float, emulated: bool) -> str:
    """Bytes that really came from a disk, as against the page cache."""
    table, rows = answer.run.table("batches"), answer.timeline.batch_row[~answer.timeline.warmup]
    values = ints(table["device_bytes"])[rows[rows >= 0]] if len(table) else np.array([])
    values = values[values != NOT_OBSERVED]
    if len(values) == 0:
        return units.NOT_OBSERVED
    text = f"{units.size(float(values.sum()))} of {units.size(size)}, the rest from the page cache"
    return f"{text}; the emulated device stands before both" if emulated else text


def _single(answer: Answer) -> Table:
    """Sizes and times of the reads that were kept as single spans."""
    table = Table(
        "Single reads",
        ["", "p50", "p95", "p99", "longest"],
        [],
        how="Of the batches whose single spans were kept.",
    )
    sizes, times = [], []
    for piece in answer.run.pieces("spans", ("stage", "wall_ns", "bytes")):
        names, code = series.codes(piece["stage"])
        mine = code == (names.index("read") if "read" in names else -2)
        sizes.append(ints(piece["bytes"])[mine])
        times.append(ints(piece["wall_ns"])[mine])
    for label, parts, text in (
        ("time of a read", times, units.duration),
        ("size of a read", sizes, units.size),
    ):
        values = np.concatenate(parts) if parts else np.array([])
        values = values[values != NOT_OBSERVED]
        if len(values):
            quantiles = np.quantile(values, [0.5, 0.95, 0.99, 1.0])
            table.rows.append(Row([label, *(text(float(q)) for q in quantiles)]))
    return table
