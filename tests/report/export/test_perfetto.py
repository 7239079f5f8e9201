"""The Perfetto trace, parsed back with Perfetto's own protos."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeprof.analyse.analysis import Analysis, load
from pipeprof.errors import TraceError
from pipeprof.report.export import perfetto
from pipeprof.timeline import NOT_OBSERVED, ints
from tests.factory import MS, Plan, Sampled, make_run
from tests.report.page.test_html import ODD

protos = pytest.importorskip("perfetto.protos.perfetto.trace.perfetto_trace_pb2")


def parsed(answer: Analysis, path: Path) -> Any:
    trace = protos.Trace()
    trace.ParseFromString(perfetto.write(answer, path).read_bytes())
    return trace


def slices(trace: Any) -> list[tuple[str, str, int, int]]:
    """(category, name, start, end), checking on the way that each track's slices nest."""
    event = protos.TrackEvent
    open_: dict[int, list[tuple[str, str, int]]] = {}
    last: dict[int, int] = {}
    found = []
    for packet in trace.packet:
        if not packet.HasField("track_event") or packet.track_event.type in (
            event.TYPE_COUNTER,
            event.TYPE_INSTANT,
        ):
            continue
        track, at = packet.track_event.track_uuid, packet.timestamp
        assert at >= last.get(track, 0), "a track's events are in order of time"
        last[track] = at
        stack = open_.setdefault(track, [])
        if packet.track_event.type == event.TYPE_SLICE_BEGIN:
            assert packet.track_event.name
            stack.append((packet.track_event.categories[0], packet.track_event.name, at))
        else:
            category, name, start = stack.pop()
            found.append((category, name, start, at))
    assert not any(open_.values()), "every slice that begins ends"
    return found


def test_as_many_batches_as_rows_with_the_same_total_duration(stalled: Analysis, tmp_path: Path) -> None:
    found = slices(parsed(stalled, tmp_path / "t"))
    batches = [end - start for category, _, start, end in found if category == "batch"]
    table = stalled.run.table("batches")
    assert len(batches) == len(table)
    assert sum(batches) == int((ints(table["finish_ns"]) - ints(table["start_ns"])).sum())


def test_spans_lie_within_their_batches(stalled: Analysis, tmp_path: Path) -> None:
    found = slices(parsed(stalled, tmp_path / "t"))
    spans = [one for one in found if one[0] == "stage"]
    assert len(spans) == len(stalled.run.table("spans"))
    total = sum(end - start for _, _, start, end in spans)
    assert total == pytest.approx(int(ints(stalled.run.table("spans")["wall_ns"]).sum()), rel=0.001)


def test_every_taken_batch_flows_to_its_wait_and_its_step(stalled: Analysis, tmp_path: Path) -> None:
    begun: Counter[int] = Counter()
    ended: Counter[int] = Counter()
    for packet in parsed(stalled, tmp_path / "t").packet:
        begun.update(packet.track_event.flow_ids)
        ended.update(packet.track_event.terminating_flow_ids)
    taken = {int(row) + 1 for row in stalled.timeline.batch_row}
    assert set(begun) == set(ended) == taken
    assert set(ended.values()) == {1}, "a flow ends once, on the device"
    assert set(begun.values()) == {2}, "it leads over the batch and the wait"


def test_tracks_are_described_before_they_are_used(stalled: Analysis, tmp_path: Path) -> None:
    trace = parsed(stalled, tmp_path / "t")
    described: set[int] = set()
    names = []
    for packet in trace.packet:
        if packet.HasField("track_descriptor"):
            described.add(packet.track_descriptor.uuid)
            names.append(packet.track_descriptor.name)
        elif packet.HasField("track_event"):
            assert packet.track_event.track_uuid in described
    assert {"main loop", "device: compute", "worker 0", "worker 1", "computing"} <= set(names)


@pytest.mark.parametrize("name", ODD)
def test_odd_runs_are_written_and_nest(odd: dict[str, Analysis], name: str, tmp_path: Path) -> None:
    answer = odd[name]
    found = slices(parsed(answer, tmp_path / "t"))
    started = ints(answer.run.table("batches")["start_ns"])
    assert sum(one[0] == "batch" for one in found) == int((started != NOT_OBSERVED).sum())


def test_without_the_package_it_says_what_to_install(
    stalled: Analysis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "perfetto.trace_builder.proto_builder", None)
    with pytest.raises(TraceError, match=r"pipeprof\[perfetto\]"):
        perfetto.write(stalled, tmp_path / "t")


def test_perfettos_own_processor_reads_it(tmp_path: Path) -> None:
    shell = shutil.which("trace_processor_shell")
    if shell is None:
        pytest.skip("Perfetto's trace_processor_shell is not on the path")
    from perfetto.trace_processor import TraceProcessor, TraceProcessorConfig

    answer = load(make_run(tmp_path / "run", Plan(batches=30)))
    path = perfetto.write(answer, tmp_path / "t")
    with TraceProcessor(trace=str(path), config=TraceProcessorConfig(bin_path=shell)) as processor:
        rows = list(processor.query("select count(*) as n from slice where category = 'batch'"))
        assert rows[0].n == 30


def test_each_thread_has_the_lines_that_it_was_busiest_with(tmp_path: Path) -> None:
    data = "/home/me/project/data.py"
    sampled = (
        Sampled("getitem", ((data, 41, "Scenes.__getitem__"), ("<frozen x>", 1, "load")), 3 * MS, worker=0),
        Sampled("getitem", ((data, 44, "Scenes.__getitem__"),), MS, worker=0),
        Sampled("main", (("/home/me/project/train.py", 9, "main"),), MS),
        Sampled("wait", (("/home/me/project/train.py", 8, "main"),), 9 * MS),
    )
    trace = parsed(load(make_run(tmp_path / "run", Plan(batches=30, lines=sampled))), tmp_path / "t")
    tracks = {
        packet.track_descriptor.uuid: packet.track_descriptor.name
        for packet in trace.packet
        if packet.HasField("track_descriptor")
    }
    moments = [
        (tracks[packet.track_event.track_uuid], packet.track_event.name)
        for packet in trace.packet
        if packet.HasField("track_event") and packet.track_event.type == protos.TrackEvent.TYPE_INSTANT
    ]
    assert moments == [
        ("lines of the training thread", "train.py:9 main"),
        ("lines of worker 0", "data.py:41 Scenes.__getitem__"),
    ]


@pytest.mark.parametrize("kept", ["no name at all", "some names"])
def test_a_span_whose_stage_is_not_known_is_called_so(tmp_path: Path, kept: str) -> None:
    path = make_run(tmp_path / "run", Plan(batches=10, spans_every=1)) / "spans.parquet"
    table = pq.read_table(path)
    stages = [None] * len(table) if kept == "no name at all" else [None, *table["stage"].to_pylist()[1:]]
    column = pa.array(stages, pa.string()).dictionary_encode()
    at = table.column_names.index("stage")
    pq.write_table(table.set_column(at, "stage", column), path)
    names = [name for category, name, _, _ in slices(parsed(load(tmp_path / "run"), tmp_path / "t"))]
    assert names.count("unknown") == stages.count(None)
