"""A batch's pickle carries the times of its way, and what comes out is the batch."""

from __future__ import annotations

import gc
import pickle
from collections.abc import Iterator
from multiprocessing.reduction import ForkingPickler
from typing import Any

import pytest
import torch

from pipeprof.measure.probe import handover
from pipeprof.measure.probe.handover import Handed
from pipeprof.record.schema import MISSING

NUMBER = 1 << 40
"""Of an iterator that no loader has."""


@pytest.fixture
def inbox() -> Iterator[Any]:
    yield handover.open_inbox(NUMBER)
    handover.close_inbox(NUMBER)


@pytest.fixture(autouse=True)
def nothing_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sent", "key"):
        monkeypatch.setattr(handover._sending, name, getattr(type(handover._sending), name))


def sent(epoch: int, seq: int, batch: Any) -> Any:
    return pickle.loads(pickle.dumps(Handed(NUMBER, epoch, seq, batch)))


def test_the_batch_comes_out_alone_and_its_times_are_in_order(inbox: Any) -> None:
    batch = [torch.arange(3), {"name": "a"}]
    received = sent(2, 5, batch)
    assert type(received) is list
    assert received[0].tolist() == [0, 1, 2]
    assert received[1] == {"name": "a"}
    (times,) = inbox
    assert (times.epoch, times.seq) == (2, 5)
    assert 0 < times.pickled_ns <= times.receive_start_ns <= times.received_ns
    assert times.sent == (MISSING,) * 4


def test_the_next_batch_tells_when_the_one_before_was_written(inbox: Any) -> None:
    written: list[bytes] = []
    write = handover._timed(written.append)
    for seq in (4, 6):
        write(ForkingPickler.dumps(Handed(NUMBER, 1, seq, [seq])))
    for pickled in written:
        pickle.loads(pickled)
    first, second = inbox
    assert first.sent == (MISSING,) * 4
    epoch, seq, sent_ns, size = second.sent
    assert (epoch, seq, size) == (1, 4, len(written[0]))
    assert first.pickled_ns <= sent_ns <= second.pickled_ns


def test_what_is_no_batch_of_ours_is_told_of_none(inbox: Any) -> None:
    written: list[bytes] = []
    write = handover._timed(written.append)
    write(ForkingPickler.dumps(Handed(NUMBER, 1, 4, [])))
    write(ForkingPickler.dumps("an exception, or the end of a stream"))
    write(ForkingPickler.dumps(Handed(NUMBER, 1, 6, [])))
    pickle.loads(written[-1])
    assert inbox[0].sent[:2] == (MISSING, MISSING)


def test_a_closed_inbox_keeps_nothing() -> None:
    inbox = handover.open_inbox(NUMBER)
    handover.close_inbox(NUMBER)
    assert sent(0, 0, ["batch"]) == ["batch"]
    assert not inbox


def test_a_pickle_that_fails_fails_as_ever(inbox: Any) -> None:
    with pytest.raises(Exception, match="lambda"):
        pickle.dumps(Handed(NUMBER, 0, 0, [lambda: None]))
    assert not inbox


def test_without_torchs_private_names_nothing_is_watched() -> None:
    assert handover.watch_sending() is False
    data_queue = object()  # a local of that name, and nothing of a queue
    assert handover.watch_sending() is False
    del data_queue
    gc.collect()
