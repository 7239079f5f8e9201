"""Unprobed batches: which they are, and that nothing but their times is written down."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from time import monotonic_ns
from typing import Any

import pytest

from pipeprof.measure.probe import batch, unprobed
from pipeprof.measure.probe.batch import BatchRecorder
from pipeprof.measure.probe.counting import counters
from pipeprof.measure.probe.layout import BATCH, SPAN, STAGE
from pipeprof.measure.probe.ring import Ring, Slot
from pipeprof.measure.probe.spans import Sink, activate, active, stage
from pipeprof.measure.probe.unprobed import Blocks
from pipeprof.record.schema import MISSING, PROBED_OF, UNPROBED_BLOCK, UNPROBED_PERIOD


class Every:
    """Blocks of which each batch is unprobed."""

    thread_cpu_ns = MISSING
    probes_next = False

    def begin(self) -> bool:
        return True


@pytest.fixture
def ring() -> Iterator[Ring]:
    ring = Ring(1, 256)
    yield ring
    ring.close()


def recorder_of(ring: Ring, blocks: Any) -> BatchRecorder:
    recorder = BatchRecorder(Slot(ring.block, 0, ring.records, 0))
    recorder.blocks = blocks
    return recorder


def test_one_block_in_each_period_after_the_first_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(1, 1000))
    monkeypatch.setattr(unprobed, "thread_time_ns", lambda: next(ticks))
    blocks = Blocks(100)
    seen = [(blocks.begin(), blocks.thread_cpu_ns) for _ in range(100 + 2 * UNPROBED_PERIOD)]
    assert not any(marked for marked, _ in seen[:100])
    assert all(cpu == MISSING for _, cpu in seen[:100])
    for period in range(2):
        part = seen[100 + period * UNPROBED_PERIOD :][:UNPROBED_PERIOD]
        marked = [n for n, (is_unprobed, _) in enumerate(part) if is_unprobed]
        edges = [n for n, (_, cpu) in enumerate(part) if cpu != MISSING]
        assert len(marked) == UNPROBED_BLOCK
        assert marked == list(range(marked[0], marked[0] + UNPROBED_BLOCK))
        assert edges == [marked[0] + n * UNPROBED_BLOCK for n in (-1, 0, 1, 2)]


class Clocks:
    """CPU and wall clock of a thread whose batches are handed in."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cpu_ns, self.wall_ns = 1_000, 5_000
        monkeypatch.setattr(unprobed, "thread_time_ns", lambda: self.cpu_ns)
        monkeypatch.setattr(unprobed, "monotonic_ns", lambda: self.wall_ns)

    def make(self, blocks: Blocks, batches: int, batch_ns: int, probing_ns: int) -> list[bool]:
        """Make batches of so long, and return which of them are unprobed."""
        seen = []
        for _ in range(batches):
            seen.append(blocks.begin())
            self.cpu_ns += batch_ns // 2 + (0 if seen[-1] else probing_ns)
            self.wall_ns += batch_ns
        return seen


DECIDED = 100 + unprobed.FEWEST_COMPARED * UNPROBED_PERIOD
"""Batches after which a process knows what probing costs."""


@pytest.mark.parametrize(("batch_ns", "block"), [(1_000_000, UNPROBED_BLOCK), (400_000_000, 1)])
def test_where_probing_costs_more_than_a_hundredth_one_of_eight_is_probed(
    batch_ns: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clocks, blocks = Clocks(monkeypatch), Blocks(100)
    seen = clocks.make(blocks, DECIDED + 10 * 32, batch_ns, batch_ns // 50)
    assert sum(seen[:DECIDED]) == unprobed.FEWEST_COMPARED * UNPROBED_BLOCK
    thinned = seen[DECIDED:]
    assert thinned.count(False) == len(thinned) / PROBED_OF
    starts = [n for n in range(1, len(thinned)) if thinned[n - 1] and not thinned[n]]
    assert all(thinned[n : n + block + 1] == [False] * block + [True] for n in starts)
    assert len(starts) == 10 * 4 / block


@pytest.mark.parametrize("batch_ns", [1_000_000, 400_000_000])
def test_a_reading_of_the_clock_is_of_one_batch(batch_ns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    clocks, blocks, readings = Clocks(monkeypatch), Blocks(100), []
    for _ in range(DECIDED + 10 * 32):
        clocks.make(blocks, 1, batch_ns, batch_ns // 50)
        readings.append(blocks.thread_cpu_ns)
    for _ in range(25 * UNPROBED_PERIOD):  # probing costs nothing any more, so that all are probed again
        clocks.make(blocks, 1, batch_ns, 0)
        readings.append(blocks.thread_cpu_ns)
    taken = [reading for reading in readings if reading != MISSING]
    assert blocks.plan is unprobed.FULL and len(set(taken)) == len(taken)


@pytest.mark.parametrize(("batch_ns", "probing_ns"), [(1_000_000, 5_000), (4_000_000_000, 400_000_000)])
def test_cheap_probing_and_very_long_batches_keep_their_detail(
    batch_ns: int, probing_ns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Clocks(monkeypatch).make(Blocks(100), DECIDED + 640, batch_ns, probing_ns)
    assert sum(seen) == (unprobed.FEWEST_COMPARED + 10) * UNPROBED_BLOCK


def test_a_loader_whose_batches_become_longer_has_its_detail_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clocks, blocks = Clocks(monkeypatch), Blocks(0)
    clocks.make(blocks, 640, 1_000_000, 30_000)
    assert blocks.plan is unprobed.THIN
    clocks.make(blocks, 1280, 100_000_000, 30_000)
    assert blocks.plan is unprobed.FULL


def test_noise_thins_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparisons of which half are below 0 show no cost, however large the others are."""
    clocks, blocks = Clocks(monkeypatch), Blocks(0)
    for period in range(20):
        clocks.make(blocks, UNPROBED_PERIOD, 1_000_000, 200_000 if period % 2 else -200_000)
        assert blocks.plan is unprobed.FULL


def test_an_unprobed_batch_has_times_and_nothing_else(ring: Ring) -> None:
    recorder, turned_ns = recorder_of(ring, Every()), monotonic_ns() - 50
    recorder.begin(2, 7, 900, turned_ns)
    assert recorder.unprobed
    assert active() is None
    with stage("mine"):
        pass
    recorder.finish_unprobed(5, recorder.start_ns + 10)
    records = ring.drain(0)
    (row,) = records[records["kind"] == BATCH.kind].view(BATCH.dtype)
    known = {"epoch": 2, "seq": 7, "dispatch_ns": 900, "samples": 5, "unprobed": 1}
    assert {name: int(row[name]) for name in known} == known
    assert row["finish_ns"] - row["start_ns"] == 10
    assert 0 < row["own_ns"] <= row["start_ns"] - turned_ns
    others = [name for name in BATCH.figures if name not in {*known, "start_ns", "finish_ns", "own_ns"}]
    assert {int(row[name]) for name in others} == {MISSING}
    assert not (records["kind"] == STAGE.kind).any()
    assert not (records["kind"] == SPAN.kind).any()
    assert ring.finished(2) == 1
    assert not ring.busy(0)


@pytest.mark.parametrize("name", ["FULL", "THIN", "THIN_OF_LONG"])
def test_a_probed_batch_has_the_cpu_time_since_any_before_it(
    name: str, ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan: bytes = getattr(unprobed, name)
    ticks = itertools.count(1_000, 7)
    for module in (batch, counters):
        monkeypatch.setattr(module, "thread_time_ns", lambda: next(ticks))
    monkeypatch.setattr(unprobed, "FULL", plan)
    recorder = recorder_of(ring, Blocks(0))
    for seq in range(len(plan)):
        recorder.begin(0, seq, 0)
        if recorder.unprobed:
            recorder.finish_unprobed(1, recorder.start_ns)
        else:
            recorder.finish(0)
    records = ring.drain(0)
    rows = records[records["kind"] == BATCH.kind].view(BATCH.dtype)
    known = {int(row["seq"]): int(row["handover_cpu_ns"]) for row in rows if row["unprobed"] == MISSING}
    assert {ns for seq, ns in known.items() if seq} == {7}, "one reading after the other"
    assert known.get(0, MISSING) == MISSING, "there is none before it"
    assert {int(row["handover_cpu_ns"]) for row in rows if row["unprobed"] == 1} == {MISSING}


def test_one_that_raises_or_is_none_leaves_the_sink_as_it_was(ring: Ring) -> None:
    recorder, outer = recorder_of(ring, Every()), Sink()
    activate(outer)
    try:
        recorder.begin(0, 0, 0)
        recorder.fail()
        assert active() is outer
        recorder.begin(0, 1, 0)
        recorder.exhausted()  # no sample yet: there was no batch
        assert active() is outer
        recorder.begin(0, 1, 0)
        recorder.gave_sample = True
        recorder.exhausted()  # one that may be collated still
        assert recorder.open
        recorder.finish_unprobed(1, recorder.start_ns)
    finally:
        activate(None)
    records = ring.drain(0)
    rows = records[records["kind"] == BATCH.kind].view(BATCH.dtype)
    assert [(int(row["seq"]), int(row["finish_ns"]) == MISSING) for row in rows] == [(0, True), (1, False)]
    assert not recorder.open
    assert not recorder.unprobed


def test_the_detailed_batches_are_those_of_the_others(ring: Ring) -> None:
    """An unprobed batch takes no turn of theirs: details come once in so many probed batches."""
    recorder = recorder_of(ring, None)
    recorder.begin(0, 0, 0)
    recorder.finish(0)
    recorder.unprobed_next = True
    recorder.begin(0, 1, 0)
    recorder.finish_unprobed(1, recorder.start_ns)
    recorder.unprobed_next = False
    recorder.begin(0, 2, 0)
    assert recorder.counting
    recorder.finish(0)
