"""What aides write into their ring becomes rows: whole stacks, in whatever pieces they came."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from pipeprof.measure.probe.counting import tally
from pipeprof.measure.probe.counting.allocated import AllocationLooks
from pipeprof.measure.probe.layout import NODE_TEXT_BYTES
from pipeprof.measure.probe.ring import Ring, Slot
from pipeprof.measure.probe.sampling import worker_aide
from pipeprof.measure.probe.sampling.call_tree import CallTree
from pipeprof.measure.probe.sampling.worker_aide import WorkerAide
from pipeprof.measure.session.lines.drain import AideReader, Paths, TreeReader
from pipeprof.record.names.counters import OWN_LINES_CPU_NS
from pipeprof.record.schema import MAIN_PROCESS

LOADER = 3
THREAD = 7


class NoSampler:
    """Samples nothing, and notes that it was stopped."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.tree = CallTree(lambda code: code.co_name == "pytest_pyfunc_call")
        self.own_cpu_ns = 0
        self.stopped = False

    def start(self) -> bool:
        return True

    def is_running(self) -> bool:
        return True

    def queued(self, ns: int) -> None:
        raise AssertionError("nothing is sampled")

    def stop(self) -> None:
        self.stopped = True


@pytest.fixture
def aide(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """An aide whose samples the test adds, with the reader of its ring."""
    for name in ("CpuSampler", "LineSampler"):
        monkeypatch.setattr(worker_aide, name, NoSampler)
    ring = Ring(1, 64)
    recorder: Any = SimpleNamespace(
        open=True,
        key=(1, 0),
        current=worker_aide.NOWHERE,
        after=None,
        unprobed=False,
        allocated=AllocationLooks(),
    )
    slot = Slot(ring.block, 0, ring.records, THREAD)
    made = WorkerAide(recorder, slot)
    reader = AideReader(ring, LOADER)
    tally.clear()
    parts = SimpleNamespace(aide=made, reader=reader, tree=made._sampler.tree, slot=slot)
    yield parts
    parts.__dict__.clear()  # the slot is a view of the ring, which could not be unmapped
    del made, slot
    if ring.slots:
        ring.close()


def sample(tree: CallTree, wall_ns: int) -> None:
    tree.add(sys._getframe(1), "decode", wall_ns)


def a_function_whose_name_is_longer_than_the_room_that_one_record_has_for_the_text_of_a_call_path(
    tree: CallTree,
) -> None:
    sample(tree, 7)


def send(aide: SimpleNamespace) -> list[Any]:
    aide.aide._send(aide.tree)
    return list(aide.reader.drain()[0])


def test_a_stack_is_whole_and_its_samples_add_up(aide: SimpleNamespace) -> None:
    a_function_whose_name_is_longer_than_the_room_that_one_record_has_for_the_text_of_a_call_path(aide.tree)
    (row,) = send(aide)
    _, loader, worker, stage, stack, samples, wall_ns, cpu_ns = row
    assert (loader, worker, stage, samples, wall_ns, cpu_ns) == (LOADER, 0, "decode", 1, 7, None)
    last = stack.splitlines()[-1]
    assert len(last) > NODE_TEXT_BYTES
    assert last.startswith(__file__)
    assert last.endswith("a_call_path")


def test_where_the_ring_was_full_nodes_and_samples_are_sent_again(aide: SimpleNamespace) -> None:
    while aide.slot.put_samples(0, 0, 0, samples=0, wall_ns=0, cpu_ns=0):
        pass
    a_function_whose_name_is_longer_than_the_room_that_one_record_has_for_the_text_of_a_call_path(aide.tree)
    aide.aide._send(aide.tree)
    aide.slot.name_id("decode")
    aide.reader.drain()
    (row,) = send(aide)
    assert row[4].splitlines()[-1].endswith("a_call_path")
    assert row[6] == 7


def test_counts_and_levels_come_with_their_epoch(aide: SimpleNamespace) -> None:
    tally.add("open.count", 2)
    aide.aide._send(aide.tree)
    _, counters = aide.reader.drain()
    found = {name: (loader, epoch, worker, value) for _, loader, epoch, worker, name, value in counters}
    assert found["open.count"] == (LOADER, 1, 0, 2)
    assert found[OWN_LINES_CPU_NS][-1] >= 0
    assert found["level.threads"][-1] >= 1


def test_it_stops_when_nobody_reads_any_more(aide: SimpleNamespace) -> None:
    aide.reader.ring.close()
    sample(aide.tree, 5)
    aide.aide._send(aide.tree)
    assert aide.aide._sampler.stopped
    assert aide.aide._computing.stopped


def test_the_last_is_sent_once_it_is_asked_for(aide: SimpleNamespace) -> None:
    sample(aide.tree, 5)
    send(aide)
    aide.reader.ring.ask_last()
    sample(aide.tree, 6)
    assert aide.reader.ring.awaited() == [THREAD]
    assert [row[6] for row in send(aide)] == [6]
    assert aide.reader.ring.awaited() == []
    sample(aide.tree, 7)
    assert send(aide) == [], "the run may be over"
    assert aide.aide._sampler.stopped


def test_what_has_no_room_is_not_the_last_yet(aide: SimpleNamespace) -> None:
    while aide.slot.put_samples(0, 0, 0, samples=0, wall_ns=0, cpu_ns=0):
        pass
    aide.reader.ring.ask_last()
    sample(aide.tree, 5)
    aide.aide._send(aide.tree)
    assert aide.reader.ring.awaited() == [THREAD]
    aide.slot.name_id("decode")
    aide.reader.drain()
    assert [row[6] for row in send(aide)] == [5]
    assert aide.reader.ring.awaited() == []


def test_nothing_is_counted_between_batches(aide: SimpleNamespace) -> None:
    assert aide.aide._stage() is not None
    aide.aide._recorder.unprobed = True
    assert aide.aide._stage() is None, "counters and spans leave it out, and so do lines"
    aide.aide._recorder.open = False
    assert aide.aide._stage() is None
    aide.aide._recorder.after = "stage:state_dict"
    assert aide.aide._stage() == "stage:state_dict", "the batch is not handed over yet"


def test_a_path_that_comes_later_is_found_then() -> None:
    paths = Paths()
    assert paths.stack(5) == ""
    paths.add(4, 0, "outer")
    paths.add(5, 4, "inner")
    assert paths.stack(5) == "outer\ninner"


def test_the_loops_own_stacks() -> None:
    tree = CallTree(lambda code: code.co_name == "pytest_pyfunc_call")
    reader = TreeReader()
    sample(tree, 5)
    (row,) = reader.rows(tree)
    assert row[1:4] == (None, MAIN_PROCESS, "decode")
    assert row[4].splitlines()[-1].endswith("test_the_loops_own_stacks")
    assert reader.rows(tree) == []
    assert row[-1] is None
