"""The parts of one read of a remote place, from the events of its requests; time is handed in."""

from __future__ import annotations

import contextvars
from typing import Any

import pytest

from pipeprof.measure.probe.remote_requests import (
    CLIENT,
    FIRST_BYTE,
    RETRY,
    THROTTLED,
    Tally,
    remote_read,
    timed_sync,
)
from pipeprof.measure.probe.spans import READ, Sink, Span, activate

TASK, OTHER = object(), object()


def parts(tally: Tally) -> dict[str, tuple[int, int]]:
    return {name: (ns, count) for name, (ns, count) in tally.took.items()}


def test_a_read_is_its_clients_work_then_a_first_byte_then_the_body() -> None:
    tally = Tally(start_ns=100)
    tally.sent(TASK, 130)
    tally.answered(TASK, 130, 180, 206)
    assert parts(tally) == {CLIENT: (30, 1), FIRST_BYTE: (50, 1)}


@pytest.mark.parametrize(
    ("status", "part"), [(503, THROTTLED), (429, THROTTLED), (500, RETRY), (504, RETRY), (None, RETRY)]
)
def test_a_refusal_and_the_waiting_after_it_are_told_from_slow_storage(status: int | None, part: str) -> None:
    tally = Tally(0)
    tally.sent(TASK, 0)
    tally.answered(TASK, 0, 10, status)
    tally.sent(TASK, 510)  # the client slept half a thousand
    tally.answered(TASK, 510, 540, 200)
    assert parts(tally) == {CLIENT: (0, 1), part: (510, 1), FIRST_BYTE: (30, 1)}


def test_a_refusal_that_no_request_follows_costs_what_it_took() -> None:
    tally = Tally(0)
    tally.sent(TASK, 0)
    tally.answered(TASK, 0, 10, 503)
    assert parts(tally)[THROTTLED] == (10, 1)


def test_an_answer_that_there_is_no_such_file_is_an_answer() -> None:
    tally = Tally(0)
    tally.sent(TASK, 0)
    tally.answered(TASK, 0, 10, 404)
    assert parts(tally)[FIRST_BYTE] == (10, 1)


def test_requests_of_one_read_back_off_each_for_itself() -> None:
    tally = Tally(0)
    tally.sent(TASK, 0)
    tally.sent(OTHER, 0)
    tally.answered(TASK, 0, 10, 503)
    tally.answered(OTHER, 0, 20, 200)
    tally.sent(OTHER, 30)  # goes on: it was not refused
    tally.sent(TASK, 110)
    assert parts(tally)[THROTTLED] == (110, 1)


def test_parts_are_taken_out_of_the_read_and_never_more_than_it_took() -> None:
    sink = Sink()
    tally = Tally(0)
    for task in (TASK, OTHER):  # side by side: together longer than the read
        tally.sent(task, 0)
        tally.answered(task, 0, 80, 200)
    tally.charge(sink, 100)
    assert sink.totals[FIRST_BYTE].wall_ns == sink.inner_ns == 100
    assert sink.totals[FIRST_BYTE].count == 2


@pytest.fixture
def sink() -> Any:
    found = Sink()
    before = activate(found)
    yield found
    activate(before)


def test_the_read_of_the_calling_thread_is_known_where_its_call_arrives(sink: Sink) -> None:
    from pipeprof.measure.probe.remote_requests import _reading

    with remote_read() as record:
        inside = contextvars.copy_context()[_reading]
        assert inside is not None
        record.bytes = 7
    assert _reading.get() is None
    assert sink.totals[READ].count == 1
    assert sink.totals[READ].bytes == 7


def test_nobody_listens_nothing_is_kept() -> None:
    from pipeprof.measure.probe.remote_requests import _reading

    with remote_read() as record:
        assert not isinstance(record, Span)
        assert _reading.get() is None


def test_blocking_calls_of_fsspec_outside_a_batch_are_left_alone(sink: Sink) -> None:
    assert timed_sync(lambda loop, function, *rest: function(*rest))(None, bytes, 3) == b"\0\0\0"
    assert sink.totals == {}
