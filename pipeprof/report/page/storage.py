"""Storage: how fast bytes came, from where, in what sizes, and how long a read took."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeprof import units
from pipeprof.analyse import over_time as series
from pipeprof.analyse.analysis import Analysis
from pipeprof.analyse.counts import SingleReads
from pipeprof.analyse.figures import Facts
from pipeprof.record.meta import StorageMeta
from pipeprof.report.page.section import Chart, Row, Section, Table
from pipeprof.report.page.where import Line, line
from pipeprof.report.wording import reading
from pipeprof.timeline import NOT_OBSERVED, Window
from pipeprof.vocabulary import owners


def storage(analysis: Analysis, window: Window) -> Section:
    """Return bytes over time, bytes from the device, and the reads that were kept one by one."""
    meta, facts = analysis.run.meta.storage, analysis.facts
    emulated = bool(meta.emulated)
    section = Section("storage", "Storage", _how(meta))
    reads = analysis.attribution.stages.making.get(owners.READ) if analysis.attribution is not None else None
    if reads is None or reads.bytes is None or facts is None:
        section.missing = "No read was seen: readers written in C and memory maps pass by Python's files."
        return section
    section.charts = [chart for chart in (_rate(analysis, window, reads, emulated),) if chart is not None]
    section.facts = _facts(facts, meta)
    section.tables = [_single(analysis.single_reads)]
    return section


def _how(facts: StorageMeta) -> str:
    name = facts.name or facts.tier
    if facts.emulated:
        return (
            f"The device {name} is emulated: the bytes are read from a warm file, and its cost model decides "
            "when they arrive."
        )
    return f"Reads made through Python file objects{f', on {name}' if name else ''}."


def _rate(analysis: Analysis, window: Window, reads: Any, emulated: bool) -> Chart | None:
    t = analysis.timeline
    edges = series.edges(window.start_ns, window.end_ns, at_most=120)
    seconds = (edges - window.start_ns) / units.NS_PER_S
    seen = (t.start_ns != NOT_OBSERVED) & (t.finish_ns != NOT_OBSERVED)
    read = series.spread(t.start_ns[seen], t.finish_ns[seen], reads.bytes[seen], edges)
    rate = read / np.diff(edges) * units.NS_PER_S
    what = Line(
        "storage",
        f"Bytes read{' (emulated device)' if emulated else ''}",
        reading.BYTES,
        "MB/s",
        "storage",
        lambda value: units.byte_rate(value * 1e6),
    )
    return line(what, rate / 1e6, seconds)


def _facts(facts: Facts, meta: StorageMeta) -> list[tuple[str, str]]:
    seconds = max(1, facts.wall_ns) / units.NS_PER_S
    size, wall, count, queue = facts.read_bytes or 0, facts.read_wall_ns, facts.reads, facts.read_queue_ns
    facts_of_storage = [
        ("Rate", f"{units.byte_rate(size / seconds)} over the measured time"),
        ("Reads", f"{units.digits(count / seconds)} a second" if count else units.NOT_OBSERVED),
        ("Size of a read", f"{units.size(size / count)} on average" if count else units.NOT_OBSERVED),
        (
            "Time of a read",
            f"{units.duration(wall / count)} on average" if count and wall else units.NOT_OBSERVED,
        ),
        (
            "Queueing",
            f"{units.percent(queue / wall)} of that, behind other reads"
            if queue is not None and wall
            else units.NOT_OBSERVED,
        ),
        *_requests(facts, seconds),
        *_device(facts),
        (
            "From a block device",
            "not of this machine: the data are remote, and no page cache holds them"
            if facts.remote
            else _from_device(facts),
        ),
    ]
    if meta.model is not None and meta.model.bandwidth_bytes_per_s:
        rate = units.byte_rate(meta.model.bandwidth_bytes_per_s)
        facts_of_storage.append(("The device's bandwidth", f"{rate} (its model)"))
    return facts_of_storage


def _device(facts: Facts) -> list[tuple[str, str]]:
    """Return the state of the device, and what it rests on."""
    device = facts.device
    if device is None:
        return []
    words = {"full": "full", "room": "has room for more readers", "not-known": "not known"}
    rows = [("Full, or room for more", f"{words[device.state]}. {device.evidence}")]
    if device.reads_in_flight is not None and not facts.requests:
        rows.append(("Reads in flight", f"{units.digits(device.reads_in_flight, 2)} waited for, on average"))
    if device.device_in_flight is not None:
        own = f"{units.digits(device.device_in_flight, 2)} reads, on average"
        served = f"; {units.duration(device.service_ns)} each" if device.service_ns is not None else ""
        rows.append(("The disk's own queue", f"{own}{served}"))
    if device.io_pressure is not None:
        rows.append(("Tasks waiting for I/O", f"{units.percent(device.io_pressure)} of the time (Linux PSI)"))
    if facts.page_cache is not None:
        later = units.percent(facts.page_cache.later_share)
        rows.append(("Later epochs", f"memory serves at most {later} of their bytes"))
    return rows


def _requests(facts: Facts, seconds: float) -> list[tuple[str, str]]:
    """Return the requests below the reads of a remote place; nothing where no request was seen."""
    wall = facts.read_wall_ns
    if not facts.requests or not wall:
        return []
    first_byte, answers = facts.requests.get(owners.FIRST_BYTE, (0, 0))
    waited = f"{units.duration(first_byte / max(1, answers))} after a request was sent, on average"
    share = f"{units.percent(first_byte / wall)} of the reading"
    parts = [
        ("Reads in flight", f"{units.digits(wall / units.NS_PER_S / seconds)} at once, on average"),
        ("First byte", f"{waited}; {share}" if answers else units.NOT_OBSERVED),
    ]
    for name, label in ((owners.THROTTLED, "Refused with 503 or 429"), (owners.RETRY, "Failed otherwise")):
        lost, count = facts.requests.get(name, (0, 0))
        again = f"; {units.percent(lost / wall)} of the reading went into asking again" if count else ""
        parts.append((label, f"{units.plural(count, 'request')}{again}"))
    return parts


def _from_device(facts: Facts) -> str:
    """Return the bytes that really came from a disk, as against the page cache."""
    if facts.device_bytes is None:
        return units.NOT_OBSERVED
    real = f"{units.size(facts.device_bytes)} of {units.size(facts.read_bytes)}"
    text = f"{real} came from the real disk, the rest from the page cache"
    return f"{text}; both were slowed to the emulated device's speed" if facts.emulated_storage else text


def _single(reads: SingleReads) -> Table:
    """Return the sizes and times of the reads that were kept as single spans."""
    table = Table(
        "Single reads",
        ["", "p50", "p95", "p99", "longest"],
        [],
        how=reading.SINGLE_READS,
    )
    for label, values, text in (
        ("time of a read", reads.wall_ns, units.duration),
        ("size of a read", reads.size_bytes, units.size),
    ):
        if values is not None:
            table.rows.append(Row([label, *(text(value) for value in values)]))
    return table
