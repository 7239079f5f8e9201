from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pipeprof.measure.probe.changes.limit import LONGEST_S, MOST_PASSES, Ended, Limit, PassEnd


class Batches:
    """Gives what a loader's iterator gives, through a limit."""

    def __init__(self, limit: Limit, many: int = 10) -> None:
        self.limit, self.given = limit, iter(range(many))
        limit.begin_pass(self)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return self.limit.next(lambda: next(self.given), self)


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_the_loop_ends_after_so_many_batches_of_all_loaders() -> None:
    said: list[str] = []
    limit = Limit(12, None, False, said.append)
    assert len(list(Batches(limit))) == 10
    assert not limit.is_over and not said
    assert len(list(Batches(limit))) == 2
    assert said == ["after 12 steps"]


def test_each_later_pass_gives_one_batch() -> None:
    """The next epochs and a validation: scripts divide by the number of their batches."""
    limit = Limit(1, None, False, lambda why: None)
    under_way = Batches(limit)
    assert len(list(Batches(limit))) == 1
    assert [len(list(Batches(limit))) for _ in range(5)] == [1] * 5
    assert list(under_way) == [], "a pass that had begun before has its end"


def test_time_begins_with_the_first_batch() -> None:
    clock = Clock()
    limit = Limit(None, 2.0, False, lambda why: None, clock)
    clock.now_s = 100.0
    batches = Batches(limit)
    next(batches)
    clock.now_s = 101.9
    next(batches)
    clock.now_s = 102.0
    with pytest.raises(PassEnd):
        next(batches)


def test_an_end_of_the_script_is_an_exit() -> None:
    limit = Limit(2, None, True, lambda why: None)
    batches = Batches(limit)
    next(batches), next(batches)
    with pytest.raises(Ended) as ended:
        next(batches)
    assert ended.value.code == 0


def test_a_script_that_goes_on_is_ended() -> None:
    limit = Limit(1, None, False, lambda why: None, Clock())
    list(Batches(limit))
    with pytest.raises(Ended):
        for _ in range(MOST_PASSES + 1):
            list(Batches(limit))
    assert limit.went_on


def test_a_script_that_goes_on_for_long_is_ended() -> None:
    clock = Clock()
    limit = Limit(1, None, False, lambda why: None, clock)
    list(Batches(limit))
    clock.now_s = LONGEST_S - 1
    list(Batches(limit))
    clock.now_s = LONGEST_S + 1
    with pytest.raises(Ended):
        list(Batches(limit))
