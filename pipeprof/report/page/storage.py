"""Storage: how fast bytes came, from where, in what sizes, and how long a read took."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from pipeprof import units
from pipeprof.analyse import over_time as series
from pipeprof.analyse.analysis import Analysis
from pipeprof.analyse.counts import SingleReads
from pipeprof.analyse.figures import Facts
from pipeprof.record.meta import StorageMeta
from pipeprof.report.page.section import Chart, Row, Section, Table
from pipeprof.report.page.where import LineChart, line
from pipeprof.report.wording import reading
from pipeprof.timeline import Window
from pipeprof.vocabulary import owners


def storage(analysis: Analysis, window: Window) -> Section:
    """Return bytes over time, bytes from the device, and the reads that were kept individually."""
    meta, facts = analysis.run.meta.storage, analysis.facts
    emulated = bool(meta.emulated)
    section = Section("storage", "Storage", _how(meta))
    reads = analysis.attribution.stages.making.get(owners.READ) if analysis.attribution is not None else None
    if reads is None or reads.bytes is None or facts is None:
        section.missing = "No read was seen: sockets, readers in C and memory maps pass by Python's files."
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
    edges = series.edges(window.start_ns, window.end_ns, at_most=120)
    seconds = (edges - window.start_ns) / units.NS_PER_S
    rate = series.rate_per_s(analysis.timeline, reads.bytes, edges)
    what = LineChart(
        "storage",
        f"Bytes read{' (emulated device)' if emulated else ''}",
        reading.BYTES,
        "MB/s",
        "storage",
        lambda value: units.byte_rate(value * 1e6),
    )
    return line(what, rate / 1e6, seconds)


def _facts(facts: Facts, meta: StorageMeta) -> list[tuple[str, str]]:
    facts_of_storage = [
        ("Rate", f"{units.byte_rate(facts.read_bytes_per_s)} over the measured time"),
        ("Reads", _said(facts.reads_per_s, units.digits, "a second")),
        ("Size of a read", _said(facts.mean_read_bytes, units.size, "on average")),
        ("Time of a read", _said(facts.mean_read_ns, units.duration, "on average")),
        ("Queueing", _queueing(facts.read_queue_share)),
        *_requests(facts),
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


def _said(value: float | None, text: Callable[[float], str], what: str) -> str:
    return units.NOT_OBSERVED if value is None else f"{text(value)} {what}"


def _queueing(share: float | None) -> str:
    """Return the share of a read's time that other reads took."""
    return (
        "none behind other reads"
        if share == 0
        else _said(share, units.percent, "of that, behind other reads")
    )


IDLE_QUEUE: Final = 0.01
"""Reads in a disk's queue, on average, below which it is as good as empty."""


def _device(facts: Facts) -> list[tuple[str, str]]:
    """Return the state of the device, and what it rests on."""
    device = facts.device
    if device is None:
        return []
    rows = [("Full, or room for more", device.evidence)]
    if device.reads_in_flight is not None and not facts.requests:
        rows.append(("Reads in flight", f"{units.digits(device.reads_in_flight, 2)} waited for, on average"))
    if device.device_in_flight is not None:
        own = f"{units.digits(device.device_in_flight, 2)} reads, on average"
        if device.device_in_flight < IDLE_QUEUE:
            own = "next to empty"
        served = f"; {units.duration(device.service_ns)} each" if device.service_ns else ""
        rows.append(("The disk's own queue", f"{own}{served}"))
    if device.io_pressure is not None:
        rows.append(("Tasks waiting for I/O", f"{units.percent(device.io_pressure)} of the time (Linux PSI)"))
    if facts.page_cache is not None and facts.page_cache.later_share < 1:
        later = units.percent(facts.page_cache.later_share)
        rows.append(("Later epochs", f"memory serves at most {later} of their bytes"))
    return rows


def _requests(facts: Facts) -> list[tuple[str, str]]:
    """Return the requests below the reads of a remote place; nothing if no request was seen."""
    if not facts.requests or not facts.read_wall_ns:
        return []
    first_byte_ns = facts.mean_request_ns(owners.FIRST_BYTE)
    waited = _said(first_byte_ns, units.duration, "after a request was sent, on average")
    if first_byte_ns is not None:
        waited += f"; {_share(facts, owners.FIRST_BYTE)} of the reading"
    parts = [
        ("Reads in flight", _said(facts.reads_in_flight, units.digits, "at once, on average")),
        ("First byte", waited),
    ]
    for name, label in ((owners.THROTTLED, "Refused with 503 or 429"), (owners.RETRY, "Failed otherwise")):
        _, count = facts.requests.get(name, (0, 0))
        again = f"; {_share(facts, name)} of the reading went into asking again" if count else ""
        parts.append((label, f"{units.plural(count, 'request')}{again}"))
    return parts


def _share(facts: Facts, kind: str) -> str:
    return units.percent(facts.share_of_reading(facts.requests[kind][0]))


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
