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
from pipeprof.measure.probe.handover import Handed, read
from pipeprof.record.schema import MISSING

NUMBER = 1 << 40
"""Of an iterator that no loader has."""


@pytest.fixture
def inbox() -> Iterator[Any]:
    yield handover.open_inbox(NUMBER)
    handover.close_inbox(NUMBER)


@pytest.fixture(autouse=True)
def nothing_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sent", "key", "carries"):
        monkeypatch.setattr(handover._sending, name, getattr(handover._Sending(), name))


def sent(epoch: int, seq: int, batch: Any) -> Any:
    return pickle.loads(pickle.dumps(Handed(NUMBER, (epoch, seq), batch)))


def test_the_batch_comes_out_alone_and_its_times_are_in_order(inbox: Any) -> None:
    batch = [torch.arange(3), {"name": "a"}]
    received = sent(2, 5, batch)
    assert type(received) is list
    assert received[0].tolist() == [0, 1, 2]
    assert received[1] == {"name": "a"}
    (times,) = map(read, inbox)
    assert (times.epoch, times.seq) == (2, 5)
    assert 0 < times.pickled_ns <= times.receive_start_ns <= times.received_ns
    assert times.sent == (MISSING,) * 5


def test_the_next_batch_tells_when_the_one_before_was_written(inbox: Any) -> None:
    written: list[bytes] = []
    write = handover._timed(written.append)
    for seq in (4, 6):
        write(ForkingPickler.dumps(Handed(NUMBER, (1, seq), [seq])))
    for pickled in written:
        pickle.loads(pickled)
    first, second = map(read, inbox)
    assert first.sent == (MISSING,) * 5
    epoch, seq, sent_ns, size, state = second.sent
    assert (epoch, seq, size, state) == (1, 4, len(written[0]), MISSING)
    assert first.pickled_ns <= sent_ns <= second.pickled_ns


@pytest.mark.parametrize("as_view", [False, True])
def test_the_state_that_travels_with_a_batch_has_its_own_bytes(inbox: Any, as_view: bool) -> None:
    """torchdata's loader sends batch, worker and state in one tuple; what is received is that tuple."""
    written: list[bytes] = []
    write = handover._timed(lambda data: written.append(bytes(data)))
    state, batch = {"waiting": list(range(50_000))}, ["a batch", list(range(3_000))]
    for seq in (4, 6, 8):
        if seq == 4:
            handover.note_state(1, seq)
        message = (seq, (Handed(NUMBER, (1, seq), batch), 0, state if seq == 4 else None))
        pickled = ForkingPickler.dumps(message)
        write(pickled if as_view else bytes(pickled))
    received = [pickle.loads(pickled) for pickled in written]
    assert received[0] == (4, (batch, 0, state)) and received[1] == (6, (batch, 0, None))
    alone = len(pickle.dumps(state))
    with_state, without = (read(arrived).sent for arrived in list(inbox)[1:])
    assert with_state[4] == pytest.approx(alone, rel=0.01)
    assert with_state[3] == len(written[0]) > with_state[4] + 3_000
    assert without[3:] == (len(written[1]), MISSING)
    assert not handover._with_state


def test_what_is_no_batch_of_ours_is_told_of_none(inbox: Any) -> None:
    written: list[bytes] = []
    write = handover._timed(written.append)
    write(ForkingPickler.dumps(Handed(NUMBER, (1, 4), [])))
    write(ForkingPickler.dumps("an exception, or the end of a stream"))
    write(ForkingPickler.dumps(Handed(NUMBER, (1, 6), [])))
    pickle.loads(written[-1])
    assert read(inbox[0]).sent[:2] == (MISSING, MISSING)


def test_a_closed_inbox_keeps_nothing() -> None:
    inbox = handover.open_inbox(NUMBER)
    handover.close_inbox(NUMBER)
    assert sent(0, 0, ["batch"]) == ["batch"]
    assert not inbox


def test_a_pickle_that_fails_fails_as_ever(inbox: Any) -> None:
    with pytest.raises(Exception, match="lambda"):
        pickle.dumps(Handed(NUMBER, (0, 0), [lambda: None]))
    assert not inbox


def test_without_torchs_private_names_nothing_is_watched() -> None:
    assert handover.watch_sending() is False
    data_queue = object()  # a local of that name, and nothing of a queue
    assert handover.watch_sending() is False
    del data_queue
    gc.collect()
