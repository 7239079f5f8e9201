"""The run as a Perfetto trace, written with the `perfetto` package's own builder and protos.

One track a worker, one for the main loop, one for the device; counters for the ready queue, the share of
computing and every sensor. A flow leads from the slice in which a worker made a batch to the wait that it
ended and to its step on the device. Slices of one track nest as Perfetto demands: a batch that would overlap
the one before it gets a track of its own beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

import numpy as np

from pipeprof.errors import TraceError
from pipeprof.pipeline import NOT_OBSERVED, Ints, Timeline, ints, measured_window
from pipeprof.report import series
from pipeprof.report.series import codes
from pipeprof.trace import MAIN_PROCESS, Run

SEQUENCE: Final = 1
_ROOT, _MAIN, _DEVICE = 1, 2, 3
_FIRST_FREE: Final = 1000


class Slice(NamedTuple):
    """One box of a track; `inner` lie within it."""

    name: str
    start_ns: int
    end_ns: int
    category: str
    flow: int | None = None
    ends_flow: bool = False
    notes: tuple[tuple[str, int | str], ...] = ()
    inner: Sequence[Any] = ()


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

    def track(self, name: str, parent: int = _ROOT, unit: str | None = None, uuid: int = 0) -> int:
        """Describe a track; a counter where a unit is given."""
        if not uuid:
            self.tracks += 1
        packet = self.packet()
        descriptor = packet.track_descriptor
        descriptor.uuid, descriptor.name = uuid or self.tracks, name
        if descriptor.uuid != _ROOT:
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

    def counter(self, track: int, times: Ints, values: Any) -> None:
        """Write a counter's values."""
        for time_ns, value in zip(times.tolist(), np.asarray(values).tolist(), strict=True):
            packet = self.packet()
            packet.timestamp = time_ns
            packet.track_event.type = self.event.TYPE_COUNTER
            packet.track_event.track_uuid = track
            packet.track_event.double_counter_value = value
            self.builder.write_packet(packet)


def write(run: Run, timeline: Timeline, path: Path) -> Path:
    """Write the trace of a run. Raises `TraceError` where the optional `perfetto` package is missing."""
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
            _clock(out, run)
            out.track(str(run.meta.get("name") or "pipeprof"), uuid=_ROOT)
            _loop(out, timeline)
            _workers(out, run, timeline)
            _counters(out, run, timeline)
        temporary.replace(path)
    except OSError as error:
        raise TraceError(f"cannot write {path}: {error.strerror}", "choose another --out") from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _clock(out: _Out, run: Run) -> None:
    """One instant on the trace's clock and on the wall, so that Perfetto can show the time of day."""
    clock = run.meta.get("clock") or {}
    if "monotonic_ns" not in clock or "unix_ns" not in clock:
        return
    packet = out.packet()
    snapshot = packet.clock_snapshot
    boot, real = snapshot.clocks.add(), snapshot.clocks.add()
    boot.clock_id, boot.timestamp = 6, int(clock["monotonic_ns"])  # BUILTIN_CLOCK_BOOTTIME, the trace's own
    real.clock_id, real.timestamp = 1, int(clock["unix_ns"])  # BUILTIN_CLOCK_REALTIME
    out.builder.write_packet(packet)


def _flow(row: int) -> int:
    """A flow's id: that of the batch's row, and never 0."""
    return row + 1


def _loop(out: _Out, t: Timeline) -> None:
    """The main loop's waits and the device's copies and steps, where they were observed."""
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


def _workers(out: _Out, run: Run, timeline: Timeline) -> None:
    """A slice for each row of `batches`, its kept spans within it."""
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
    found: dict[tuple[int, int, int], list[tuple[int, int, str, int]]] = {}
    for piece in run.pieces("spans", ("loader", "epoch", "seq", "stage", "sample", "start_ns", "wall_ns")):
        names, stage = codes(piece["stage"])
        columns = [
            ints(piece[name]).tolist() for name in ("loader", "epoch", "seq", "start_ns", "wall_ns", "sample")
        ]
        for loader, epoch, seq, start, wall, sample, code in zip(*columns, stage.tolist(), strict=True):
            found.setdefault((loader, epoch, seq), []).append((start, wall, names[code], sample))
    return found


def _nested(spans: Sequence[tuple[int, int, str, int]], start: int, end: int) -> Iterator[Slice]:
    """Spans of one batch, one after the other and within it: a span's own time leaves out inner ones."""
    at = start
    ordered = sorted(spans)
    for i, (begun, wall, name, sample) in enumerate(ordered):
        following = ordered[i + 1][0] if i + 1 < len(ordered) else end
        first = min(max(begun, at), end)
        at = min(max(first, min(begun + max(0, wall), following)), end)
        notes = (("sample", sample),) if sample != NOT_OBSERVED else ()
        yield Slice(name, first, at, "stage", notes=notes)


def _lanes(out: _Out, name: str, boxes: Sequence[Slice], uuid: int = 0) -> None:
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


def _counters(out: _Out, run: Run, t: Timeline) -> None:
    steps = run.table("steps").sort_by("step")
    ready, request = ints(steps["ready_batches"]), ints(steps["request_ns"])
    seen = ready != NOT_OBSERVED
    if seen.any():
        out.counter(out.track("ready batches", unit="batches"), request[seen], ready[seen].astype(float))
    window = measured_window(t)
    if window is not None and window.wall_ns > 0:
        edges = series.edges(window.start_ns, window.end_ns, at_most=5000)
        shares = series.shares(t, edges)
        out.counter(out.track("computing", unit="%"), edges[:-1], shares.computing * 100)
        out.counter(out.track("waiting for data", unit="%"), edges[:-1], shares.waiting * 100)
    table = run.table("telemetry")
    names, sensor = codes(table["sensor"])
    times, values = ints(table["time_ns"]), table["value"].to_numpy()
    for code, name in enumerate(names):
        mine = (sensor == code) & np.isfinite(values)
        if mine.any():
            out.counter(out.track(name, unit=_unit(name)), times[mine], values[mine])


def _unit(sensor: str) -> str:
    for ending, unit in (("bytes_per_s", "bytes/s"), ("_bytes", "bytes"), ("_hz", "Hz"), ("_watts", "W")):
        if sensor.endswith(ending):
            return unit
    return "cores" if sensor.startswith("cpu.") else ""
