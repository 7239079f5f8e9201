"""Spans: own time without inner spans, totals, nothing where nobody listens. The clock is a number."""

from __future__ import annotations

import mmap
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import pipeprof
from pipeprof.measure.probe import batch as batch_recorder
from pipeprof.measure.probe import spans as recorder
from pipeprof.measure.probe.batch import LARGE_BYTES, BatchRecorder
from pipeprof.measure.probe.layout import ANY_RECORD, BATCH, SPAN, STAGE, Layout
from pipeprof.measure.probe.ring import HEADER_BYTES, MOST_NAMES, OTHER, Ring, Slot
from pipeprof.measure.probe.spans import NOWHERE, Sink, activate, span, stage, storage_read


class Clock:
    now_ns = 1000

    def __call__(self) -> int:
        return self.now_ns


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(recorder, "monotonic_ns", clock)
    monkeypatch.setattr(batch_recorder, "monotonic_ns", clock)
    return clock


@pytest.fixture
def sink() -> Iterator[Sink]:
    sink = Sink()
    activate(sink)
    yield sink
    activate(None)


def test_inner_spans_are_taken_out(clock: Clock, sink: Sink) -> None:
    with span("outer"):
        clock.now_ns += 5
        for _ in range(2):
            with span("inner"):
                clock.now_ns += 10
                with stage("deepest"):
                    clock.now_ns += 100
        clock.now_ns += 1
    walls = {name: (t.wall_ns, t.count) for name, t in sink.totals.items()}
    assert walls == {"outer": (6, 1), "inner": (20, 2), "stage:deepest": (200, 2)}
    assert sink.inner_ns == 226
    assert sink.current is NOWHERE


def test_a_span_ends_with_an_exception(clock: Clock, sink: Sink) -> None:
    with pytest.raises(ValueError), span("outer"), span("inner"):
        clock.now_ns += 3
        raise ValueError
    assert sink.totals["inner"].wall_ns == 3
    assert sink.totals["outer"].wall_ns == 0


def test_reads_add_up_and_what_was_not_told_is_not_observed(sink: Sink) -> None:
    with storage_read() as read:
        read.bytes = 100
    assert sink.totals["read"].queue_ns == -1
    with storage_read() as read:
        read.bytes, read.queue_ns = 50, 7
    totals = sink.totals["read"]
    assert (totals.bytes, totals.queue_ns, totals.count) == (150, 7, 2)


def test_nothing_happens_where_nobody_listens() -> None:
    assert recorder.active() is None
    with pipeprof.stage("x") as one, storage_read() as other:
        other.bytes = 5
    assert one is other is span("y")


def make(records: int = 64, every_sample: bool = False) -> tuple[Ring, BatchRecorder]:
    ring = Ring(1, records)
    return ring, BatchRecorder(Slot(ring.block, 0, records, 0), every_sample)


def of_kind(records: Any, layout: Layout) -> Any:
    return records[records["kind"] == layout.kind].view(layout.dtype)


def test_a_batch_on_its_way_out(clock: Clock) -> None:
    ring, batch = make()
    batch.begin(3, 8, 900)
    with span("decode"):
        clock.now_ns += 40
    batch.samples = 4
    batch.finish(123)
    records = ring.drain(0)
    (row,) = of_kind(records, BATCH)
    figures = ("epoch", "seq", "dispatch_ns", "start_ns", "finish_ns", "samples")
    assert [row[name] for name in figures] == [3, 8, 900, 1000, 1040, 4]
    (stage_row,) = of_kind(records, STAGE)
    assert ring.names(0)[stage_row["name"]] == "decode"
    assert (stage_row["wall_ns"], stage_row["cpu_ns"], stage_row["count"]) == (40, -1, 1)
    assert row["bytes"] == 123
    assert ring.finished(3) == 1
    assert ring.finished(2) == 0
    assert recorder.active() is None
    ring.close()


def test_failed_abandoned_and_unfinished_batches() -> None:
    ring, batch = make()
    batch.begin(0, 0, 0)
    batch.fail()
    batch.begin(0, 1, 0)
    batch.abandon()
    batch.begin(0, 2, 0)
    batch.begin(0, 3, 0)
    batch.finish(0)
    rows = of_kind(ring.drain(0), BATCH)
    assert [(row["seq"], row["finish_ns"] == -1) for row in rows] == [(0, True), (2, True), (3, False)]
    assert ring.finished(0) == 1
    ring.close()


def test_every_sample_keeps_its_spans() -> None:
    ring, batch = make(every_sample=True)
    batch.begin(0, 0, 0)
    batch.sample = 17
    with span("decode"):
        pass
    batch.finish(0)
    (kept,) = of_kind(ring.drain(0), SPAN)
    assert (kept["sample"], kept["start_ns"] > 0) == (17, True)
    ring.close()


def test_one_batch_in_many_has_its_counters() -> None:
    ring, batch = make(1024)
    for seq in range(34):
        batch.begin(0, seq, 0)
        with span("decode"):
            pass
        batch.finish(0)
    stages = of_kind(ring.drain(0), STAGE)
    assert [int(row["seq"]) for row in stages if row["cpu_ns"] != -1] == [1, 33]
    ring.close()


def test_a_full_ring_drops_and_counts() -> None:
    ring = Ring(1, 4)
    slot = Slot(ring.block, 0, 4, 0)
    for number in range(6):
        slot.put_stage(0, 0, number)
    assert ring.fullest() == 1.0
    assert ring.drain(0)["seq"].tolist() == [0, 1, 2, 3]
    assert ring.dropped() == 2
    slot.put_stage(0, 0, 6)
    assert ring.drain(0)["seq"].tolist() == [6], "there is room again, round the corner"
    ring.close()


def test_a_record_that_is_not_whole_waits() -> None:
    """What a CPU that reorders its stores can show: counted, and not all there yet."""
    ring = Ring(1, 8)
    slot = Slot(ring.block, 0, 8, 0)
    for number in range(3):
        slot.put_stage(0, 0, number)
    records = np.frombuffer(ring.block.buffer, ANY_RECORD, 8, HEADER_BYTES)
    records["again"][1] = 99
    assert ring.drain(0)["seq"].tolist() == [0]
    records["again"][1] = 1
    assert ring.drain(0)["seq"].tolist() == [1, 2]
    del records, slot
    ring.close()


def test_stages_beyond_the_table_of_names_share_one() -> None:
    ring = Ring(1, 8)
    slot = Slot(ring.block, 0, 8, 0)
    ids = [slot.name_id(f"stage:{number}") for number in range(MOST_NAMES + 5)]
    names = ring.names(0)
    assert names[ids[3]] == "stage:3"
    assert {names[number] for number in ids[MOST_NAMES - 1 :]} == {OTHER}
    assert np.unique(ids).size == MOST_NAMES
    ring.close()


def stages_of(ring: Ring) -> dict[str, list[tuple[int, int]]]:
    """Own time and count of each stage, in the order of their records."""
    records = ring.drain(0)
    found: dict[str, list[tuple[int, int]]] = {}
    for row in of_kind(records, STAGE):
        found.setdefault(ring.names(0)[row["name"]], []).append((int(row["wall_ns"]), int(row["count"])))
    return found


@pytest.mark.parametrize("every_sample", [False, True], ids=["batch", "sample"])
def test_a_stage_that_is_held_across_a_yield_stays_with_the_one_around_it(
    every_sample: bool, clock: Clock
) -> None:
    def samples() -> Iterator[int]:
        for number in range(4):
            with stage("held"):
                clock.now_ns += 20
                with stage("quick"):
                    clock.now_ns += 5
                yield number

    ring, batch = make(every_sample=every_sample)
    stream = samples()
    for seq in range(3):  # the second one reads the counters: the stage began where they were not read
        batch.begin(0, seq, 0)
        with span("getitem"):
            next(stream)
        batch.samples = 1
        batch.finish(0)
        clock.now_ns += 1_000_000  # the loop's time, not the stage's
    stream.close()
    assert not batch.totals
    assert stages_of(ring) == {"stage:quick": [(5, 1)] * 3, "getitem": [(20, 1)] * 3}
    ring.close()


def test_spans_that_end_in_the_wrong_order(clock: Clock, sink: Sink) -> None:
    first, second = span("first"), span("second")
    with span("outer"):
        first.__enter__()
        clock.now_ns += 1
        second.__enter__()
        clock.now_ns += 10
        first.__exit__(None, None, None)
        clock.now_ns += 100
        second.__exit__(None, None, None)
    assert {name: t.wall_ns for name, t in sink.totals.items()} == {"first": 11, "outer": 100}
    assert sink.current is NOWHERE


def test_a_span_inside_itself_ends(sink: Sink) -> None:
    again, stale = span("again"), span("stale")
    with stale, again, again:
        pass
    stale.__exit__(None, None, None)
    assert sink.totals["again"].count == 2


def test_an_iterable_set_that_has_no_more_samples() -> None:
    ring, batch = make()
    for seq, samples in enumerate((0, 2)):
        batch.begin(0, seq, 0)
        for _ in range(samples + 1):  # the last call finds the end
            with span("getitem"):
                pass
        batch.exhausted()
        assert not ring.busy(0)
    assert batch.open, "it may be collated still"
    batch.samples = 2
    batch.finish(0)
    records = ring.drain(0)
    assert [(row["seq"], row["samples"]) for row in of_kind(records, BATCH)] == [(1, 2)]
    assert [(row["seq"], row["count"]) for row in of_kind(records, STAGE)] == [(1, 2)]
    ring.close()


def test_batches_find_room_where_spans_do_not() -> None:
    """A batch without its record would make the steps after it take the record of the one before."""
    ring = Ring(1, 16)
    slot = Slot(ring.block, 0, 16, 0)
    for number in range(20):
        slot.put_span(0, 0, number)
    for number in range(3):
        slot.put_batch(0, 0, number)
    records = ring.drain(0)
    assert of_kind(records, SPAN)["seq"].tolist() == list(range(14))
    assert of_kind(records, BATCH)["seq"].tolist() == [0, 1]
    assert ring.dropped() == 6 + 1
    ring.close()


def test_cpu_time_of_a_workers_other_threads() -> None:
    ring, batch = make()
    batch.begin(0, 0, 0)
    thread = threading.Thread(target=spin, args=(0.05,))
    thread.start()
    thread.join()
    batch.finish(0)
    (row,) = of_kind(ring.drain(0), BATCH)
    assert row["helper_cpu_ns"] >= 0.04e9, "the thread's"
    assert row["cpu_ns"] < row["helper_cpu_ns"]
    ring.close()


def test_memory_that_a_batch_touched_first_is_counted_behind_a_large_one() -> None:
    ring, batch = make()
    for seq, size in enumerate((LARGE_BYTES, 100, 100)):
        batch.begin(0, seq, 0)
        with mmap.mmap(-1, 64 * mmap.PAGESIZE) as memory:
            memory[:] = bytes(len(memory))
        batch.finish(size)
    rows = of_kind(ring.drain(0), BATCH)
    first, behind_it, last = (int(row["touched_bytes"]) for row in rows)
    assert (first, last) == (-1, -1), "what small batches touch is not worth a look"
    assert 64 * mmap.PAGESIZE <= behind_it < 640 * mmap.PAGESIZE, "the map, and what copies zeros into it"
    assert [int(row["system_ns"]) >= 0 for row in rows] == [False, True, False]
    ring.close()


def test_cpu_time_between_two_batches() -> None:
    ring, batch = make()
    for seq in range(2):
        batch.begin(0, seq, 0)
        batch.finish(0)
        spin(0.02)
    first, second = of_kind(ring.drain(0), BATCH)
    assert int(first["handover_cpu_ns"]) == -1, "there is none before it"
    assert int(second["handover_cpu_ns"]) >= 0.02e9 > int(second["cpu_ns"])
    ring.close()


def test_a_kernel_that_stands_in_for_linux_is_not_believed_its_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    """gVisor has no schedstat, and its getrusage leaves `ru_inblock` and `ru_majflt` at zero."""
    ring, batch = make()
    monkeypatch.setattr(batch.run_queue, "read", lambda: -1)
    batch.begin(0, 0, 0)
    batch.finish(0)
    (row,) = of_kind(ring.drain(0), BATCH)
    assert [int(row[name]) for name in ("runq_ns", "device_bytes", "major_faults")] == [-1, -1, -1]
    assert row["helper_cpu_ns"] >= 0
    ring.close()


def spin(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
