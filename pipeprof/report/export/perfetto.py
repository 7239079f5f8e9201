"""The run as a Perfetto trace, written with the `perfetto` package's own builder and protos.

One track a worker, one for the main loop, one for the device; counters for the ready queue, the share of
computing and every sensor. A flow leads from the slice in which a worker made a batch to the wait that it
ended and to its step on the device. Slices of one track nest as Perfetto demands: a batch that would overlap
the one before it gets a track of its own next to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, Protocol

import numpy as np

from pipeprof.analyse import over_time as series
from pipeprof.analyse.analysis import Analysis
from pipeprof.analyse.ledger.attribution import Attribution
from pipeprof.analyse.over_time import codes
from pipeprof.analyse.why.lines import hottest_over_time
from pipeprof.errors import TraceError
from pipeprof.record.reader import Run
from pipeprof.record.schema import MAIN_PROCESS
from pipeprof.record.telemetry import read_sensors
from pipeprof.timeline import NOT_OBSERVED, Ints, Timeline, ints
from pipeprof.units import percent
from pipeprof.vocabulary import owners

SEQUENCE: Final = 1
ROOT, _MAIN, _DEVICE = 1, 2, 3
_FIRST_FREE: Final = 1000


class Slice(NamedTuple):
    """Box of a track; `inner` lie within it."""

    name: str
    start_ns: int
    end_ns: int
    category: str
    flow: int | None = None
    ends_flow: bool = False
    notes: tuple[tuple[str, int | str], ...] = ()
    inner: Sequence[Any] = ()


class Tracks(Protocol):
    """A file of tracks, in one of the formats that ui.perfetto.dev opens."""

    def clock(self, run: Run) -> None:
        """Write the run's time of day, if the format has a place for it."""

    def track(self, name: str, parent: int = ROOT, unit: str | None = None, uuid: int = 0) -> int:
        """Describe a track, and return its number; a counter if a unit is given."""
        ...

    def slices(self, track: int, boxes: Sequence[Slice]) -> None:
        """Write the boxes of a track in order of time."""

    def instants(self, track: int, boxes: Sequence[Slice]) -> None:
        """Write boxes as single moments, at their starts."""

    def counter(self, track: int, times: Ints, values: Any) -> None:
        """Write a counter's values."""


@dataclass(slots=True)
class _Out:
    """The file with the protos that are written into it, imported when a trace is asked for."""

    file: IO[bytes]
    builder: Any = None
    event: Any = None
    tracks: int = _FIRST_FREE
    _free: dict[tuple[str, int], int] = field(default_factory=dict)

    def packet(self) -> Any:
        packet = self.builder.create_packet()
        packet.trusted_packet_sequence_id = SEQUENCE
        return packet

    def clock(self, run: Run) -> None:
        """Write one instant on the trace's clock and on the wall: Perfetto then shows the time of day."""
        clock = run.meta.clock
        if clock.monotonic_ns is None or clock.unix_ns is None:
            return
        packet = self.packet()
        snapshot = packet.clock_snapshot
        boot, real = snapshot.clocks.add(), snapshot.clocks.add()
        boot.clock_id, boot.timestamp = 6, clock.monotonic_ns  # BUILTIN_CLOCK_BOOTTIME, the trace's own
        real.clock_id, real.timestamp = 1, clock.unix_ns  # BUILTIN_CLOCK_REALTIME
        self.builder.write_packet(packet)

    def track(self, name: str, parent: int = ROOT, unit: str | None = None, uuid: int = 0) -> int:
        """Describe a track; a counter if a unit is given."""
        if not uuid:
            self.tracks += 1
        packet = self.packet()
        descriptor = packet.track_descriptor
        descriptor.uuid, descriptor.name = uuid or self.tracks, name
        if descriptor.uuid != ROOT:
            descriptor.parent_uuid = parent
            descriptor.sibling_order_rank = descriptor.uuid
        else:
            descriptor.process.pid, descriptor.process.process_name = 1, name
            descriptor.child_ordering = descriptor.EXPLICIT
        if unit is not None:
            descriptor.counter.unit_name = unit
        self.builder.write_packet(packet)
        return int(descriptor.uuid)

    def slices(self, track: int, boxes: Sequence[Slice]) -> None:
        """Write the boxes of a track in order of time."""
        for box in boxes:
            self._edge(track, box.start_ns, self.event.TYPE_SLICE_BEGIN, box)
            self.slices(track, box.inner)
            self._edge(track, box.end_ns, self.event.TYPE_SLICE_END, None)

    def _edge(self, track: int, time_ns: int, kind: int, box: Slice | None) -> None:
        packet = self.packet()
        packet.timestamp = time_ns
        event = packet.track_event
        event.type, event.track_uuid = kind, track
        if box is not None:
            event.name = box.name
            event.categories.append(box.category)
            if box.flow is not None:
                (event.terminating_flow_ids if box.ends_flow else event.flow_ids).append(box.flow)
            for name, value in box.notes:
                note = event.debug_annotations.add()
                note.name = name
                if isinstance(value, int):
                    note.int_value = value
                else:
                    note.string_value = value
        self.builder.write_packet(packet)

    def instants(self, track: int, boxes: Sequence[Slice]) -> None:
        """Write boxes as single moments, at their starts."""
        for box in sorted(boxes, key=lambda box: box.start_ns):
            self._edge(track, box.start_ns, self.event.TYPE_INSTANT, box)

    def counter(self, track: int, times: Ints, values: Any) -> None:
        """Write a counter's values."""
        for time_ns, value in zip(times.tolist(), np.asarray(values).tolist(), strict=True):
            packet = self.packet()
            packet.timestamp = time_ns
            packet.track_event.type = self.event.TYPE_COUNTER
            packet.track_event.track_uuid = track
            packet.track_event.double_counter_value = value
            self.builder.write_packet(packet)


def write(analysis: Analysis, path: Path) -> Path:
    """Write the trace of a run. Raises `TraceError` if the optional `perfetto` package is missing."""
    try:
        from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import TrackEvent
        from perfetto.trace_builder.proto_builder import StreamingTraceProtoBuilder
    except ImportError as error:
        raise TraceError(
            "a Perfetto trace needs the package perfetto", "pip install 'pipeprof[perfetto]'"
        ) from error
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            out = _Out(file, StreamingTraceProtoBuilder(file), TrackEvent)
            compose(out, analysis)
        temporary.replace(path)
    except OSError as error:
        raise TraceError(f"cannot write {path}: {error.strerror}", "choose another --out") from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def compose(out: Tracks, analysis: Analysis) -> None:
    """Write all tracks of a run."""
    run, timeline = analysis.run, analysis.timeline
    out.clock(run)
    out.track(run.meta.name or "pipeprof", uuid=ROOT)
    _loop(out, timeline)
    _insides(out, run)
    _workers(out, run, timeline)
    _hot_lines(out, run)
    _counters(out, run)
    _day(out, analysis.attribution)


def _flow(row: int) -> int:
    """Return a flow's id: that of the batch's row, and never 0."""
    return row + 1


def _loop(out: Tracks, t: Timeline) -> None:
    """Write the main loop's waits and the device's copies and steps, if they were observed."""
    last = t.compute_end_ns != NOT_OBSERVED
    steps = range(len(t))
    waits = [
        Slice(
            f"wait {t.step[i]}",
            int(t.request_ns[i]),
            int(t.take_ns[i]),
            "wait",
            _flow(int(t.batch_row[i])) if t.batch_row[i] >= 0 else None,
            not last[i],
            (("samples", int(t.samples[i])),),
        )
        for i in steps
        if t.take_ns[i] >= t.request_ns[i] != NOT_OBSERVED
    ]
    _lanes(out, "main loop", waits, _MAIN)
    if last.any():
        _lanes(out, "device: compute", _device(t, "compute", ends_flow=True), _DEVICE)
    if (t.copy_end_ns != NOT_OBSERVED).any():
        _lanes(out, "device: copy", _device(t, "copy", ends_flow=False))


def _device(t: Timeline, what: str, ends_flow: bool) -> list[Slice]:
    start, end = getattr(t, f"{what}_start_ns"), getattr(t, f"{what}_end_ns")
    seen = np.flatnonzero((start != NOT_OBSERVED) & (end >= start))
    return [
        Slice(
            f"{what} {t.step[i]}",
            int(start[i]),
            int(end[i]),
            what,
            _flow(int(t.batch_row[i])) if ends_flow and t.batch_row[i] >= 0 else None,
            ends_flow,
        )
        for i in seen.tolist()
    ]


def _insides(out: Tracks, run: Run) -> None:
    """Write the parts of the steps, and the kernels that were traced, by device and stream."""
    parts = run.table("parts")
    columns = (parts["part"].to_pylist(), ints(parts["start_ns"]).tolist(), ints(parts["end_ns"]).tolist())
    boxes = [
        Slice(str(part), start, max(start, end), "part") for part, start, end in zip(*columns, strict=True)
    ]
    if boxes:
        _lanes(out, "device: parts of a step", boxes)
    table = run.table("kernels")
    streams: dict[str, list[Slice]] = {}
    lengths = zip(ints(table["start_ns"]).tolist(), ints(table["wall_ns"]).tolist(), strict=True)
    names, devices, numbers = (table[name].to_pylist() for name in ("kernel", "device", "stream"))
    for name, device, stream, (start, wall) in zip(names, devices, numbers, lengths, strict=True):
        where = "operators" if device is None else f"kernels: device {device}, stream {stream}"
        streams.setdefault(where, []).append(Slice(str(name), start, start + max(0, wall), "kernel"))
    for where, boxes in sorted(streams.items()):
        _lanes(out, where, boxes)


def _workers(out: Tracks, run: Run, timeline: Timeline) -> None:
    """Write a slice for each row of `batches`, its kept spans within it."""
    table = run.table("batches")
    columns = {
        name: ints(table[name]) for name in ("loader", "epoch", "seq", "worker", "start_ns", "finish_ns")
    }
    slowest, samples = ints(table["slowest_index"]), ints(table["samples"])
    spans = _spans_by_batch(run)
    taken = {int(row): int(step) for row, step in zip(timeline.batch_row, timeline.step, strict=True)}
    tracks: dict[tuple[int, int], list[Slice]] = {}
    for row in np.argsort(columns["start_ns"], kind="stable").tolist():
        loader, epoch, seq, worker, start, finish = (int(column[row]) for column in columns.values())
        if start == NOT_OBSERVED:
            continue
        end = max(start, finish)  # a batch whose making raised has no end
        notes = [("epoch", epoch), ("batch", seq)]
        if samples[row] != NOT_OBSERVED:
            notes.append(("samples", int(samples[row])))
        if row in taken:
            notes.append(("step", taken[row]))
        if slowest[row] != NOT_OBSERVED:
            notes.append(("slowest sample", int(slowest[row])))
        inner = list(_nested(spans.get((loader, epoch, seq), ()), start, end))
        name = f"batch {seq}" if finish != NOT_OBSERVED else f"batch {seq}, not finished"
        flow = _flow(row) if row in taken else None
        box = Slice(name, start, end, "batch", flow, False, tuple(notes), inner)
        tracks.setdefault((loader, worker), []).append(box)
    several = len({loader for loader, _ in tracks}) > 1
    for (loader, worker), boxes in sorted(tracks.items()):
        name = "made in the main process" if worker == MAIN_PROCESS else f"worker {worker}"
        _lanes(out, f"loader {loader}, {name}" if several else name, boxes)


def _spans_by_batch(run: Run) -> dict[tuple[int, int, int], list[tuple[int, int, str, int]]]:
    by_batch: dict[tuple[int, int, int], list[tuple[int, int, str, int]]] = {}
    for piece in run.pieces("spans", ("loader", "epoch", "seq", "stage", "sample", "start_ns", "wall_ns")):
        names, stage = codes(piece["stage"])
        names.append(owners.UNKNOWN.name)  # at -1, which stands for none
        columns = [
            ints(piece[name]).tolist() for name in ("loader", "epoch", "seq", "start_ns", "wall_ns", "sample")
        ]
        for loader, epoch, seq, start, wall, sample, code in zip(*columns, stage.tolist(), strict=True):
            by_batch.setdefault((loader, epoch, seq), []).append((start, wall, names[code], sample))
    return by_batch


def _nested(spans: Sequence[tuple[int, int, str, int]], start: int, end: int) -> Iterator[Slice]:
    """Nest the spans of one batch, in sequence and within it: a span's own time leaves out inner ones."""
    at = start
    ordered = sorted(spans)
    for i, (begun, wall, name, sample) in enumerate(ordered):
        following = ordered[i + 1][0] if i + 1 < len(ordered) else end
        first = min(max(begun, at), end)
        at = min(max(first, min(begun + max(0, wall), following)), end)
        notes = (("sample", sample),) if sample != NOT_OBSERVED else ()
        yield Slice(name, first, at, "stage", notes=notes)


def _lanes(out: Tracks, name: str, boxes: Sequence[Slice], uuid: int = 0) -> None:
    """Write boxes so that none of a track overlaps another: what would goes onto a further track."""
    lanes: list[list[Slice]] = []
    for box in sorted(boxes, key=lambda box: box.start_ns):
        lane = next((lane for lane in lanes if lane[-1].end_ns <= box.start_ns), None)
        if lane is None:
            lanes.append([box])
        else:
            lane.append(box)
    for number, lane in enumerate(lanes):
        track = out.track(f"{name} ({number + 1})" if number else name, uuid=0 if number else uuid)
        out.slices(track, lane)


def _hot_lines(out: Tracks, run: Run) -> None:
    """Write a moment for each time of written samples: the line that the thread had spent most in."""
    tracks: dict[tuple[int, int], list[Slice]] = {}
    for at in hottest_over_time(run):
        hot = at.hot
        notes = (("share", percent(hot.share)), ("owner", hot.owner), ("calls", hot.call))
        box = Slice(f"{hot.place} {hot.function}", at.time_ns, at.time_ns, "line", notes=notes)
        tracks.setdefault((at.worker, at.loader or 0), []).append(box)
    several = len({loader for worker, loader in tracks if worker != MAIN_PROCESS}) > 1
    for (worker, loader), boxes in sorted(tracks.items()):
        of = "the training thread" if worker == MAIN_PROCESS else f"worker {worker}"
        name = f"lines of {of}, loader {loader}" if several and worker != MAIN_PROCESS else f"lines of {of}"
        out.instants(out.track(name), boxes)


def _counters(out: Tracks, run: Run) -> None:
    steps = run.table("steps").sort_by("step")
    ready, request = ints(steps["ready_batches"]), ints(steps["request_ns"])
    seen = ready != NOT_OBSERVED
    if seen.any():
        out.counter(out.track("ready batches", unit="batches"), request[seen], ready[seen].astype(float))
    for name, readings in read_sensors(run).items():
        seen = np.isfinite(readings.value)
        if seen.any():
            out.counter(out.track(name, unit=_unit(name)), readings.time_ns[seen], readings.value[seen])


def _day(out: Tracks, attribution: Attribution | None) -> None:
    """Write the accelerator's day over time, as the ledger has it, and the loop's pauses."""
    if attribution is None or attribution.window.wall_ns == 0:
        return
    edges = series.edges(attribution.window.start_ns, attribution.window.end_ns, at_most=5000)
    shares = series.shares(attribution, edges)
    out.counter(out.track("computing", unit="%"), edges[:-1], shares.computing * 100)
    out.counter(out.track("waiting for data", unit="%"), edges[:-1], shares.waiting * 100)
    begins, ends = attribution.window.outside
    boxes = [
        Slice(owners.OUTSIDE.label, begin, end, owners.OUTSIDE.name)
        for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)
    ]
    if boxes:
        _lanes(out, owners.OUTSIDE.label, boxes)


def _unit(sensor: str) -> str:
    for ending, unit in (("bytes_per_s", "bytes/s"), ("_bytes", "bytes"), ("_hz", "Hz"), ("_watts", "W")):
        if sensor.endswith(ending):
            return unit
    return "cores" if sensor.startswith("cpu.") else ""
