"""What a busy machine may excuse, and what not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import pytest_runtest_call
from tests.timing import RUN_AGAIN, Timing


class Busy:
    """Other programs that keep `taken` cores busy."""

    def __init__(self, taken: float) -> None:
        self.taken = taken

    def cores(self) -> float:
        return self.taken


def machine(*taken: float) -> Timing:
    """A machine on which others have so many cores, one number a start."""
    cores = iter([0.0, *taken])
    return Timing(lambda: Busy(next(cores)))  # type: ignore[arg-type]


BUSY, QUIET = 1.5, 0.1


@pytest.fixture(autouse=True)
def nothing_is_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(RUN_AGAIN, raising=False)


def spoilt() -> Timing:
    """A busy machine on which a duration was wrong."""
    timing = machine(BUSY)
    timing.restart()
    with timing.compared():
        raise AssertionError("too long")
    return timing


def ended(timing: Timing) -> None:
    """The end of a test that has passed but for what was excused."""
    item: Any = SimpleNamespace(funcargs={"timing": timing})
    steps = pytest_runtest_call(item)
    next(steps)
    with pytest.raises(StopIteration):
        steps.send(None)


def test_on_a_quiet_machine_a_wrong_duration_fails() -> None:
    timing = machine(QUIET)
    timing.restart()
    with pytest.raises(AssertionError, match="too long"), timing.compared():
        raise AssertionError("too long")
    ended(timing)


def test_on_a_busy_machine_a_wrong_duration_skips_the_test_at_its_end() -> None:
    timing = spoilt()
    with pytest.raises(pytest.skip.Exception, match=r"1.5 cores busy: too long"):
        ended(timing)


def test_a_test_that_is_run_again_alone_fails_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUN_AGAIN, "1")
    timing = spoilt()
    with pytest.raises(pytest.fail.Exception, match=r"1.5 cores busy: too long"):
        ended(timing)


def test_on_a_busy_machine_a_wrong_word_fails_all_the_same() -> None:
    timing = spoilt()
    with pytest.raises(AssertionError, match="decode"):
        assert "storage" == "decode"  # noqa: PLR0133
    with timing.compared(), pytest.raises(KeyError):
        raise KeyError("no such owner")


def test_a_verdict_that_names_the_busy_machine_is_no_wrong_word() -> None:
    timing = machine(BUSY)
    timing.restart()
    wrong = ("inconclusive", None), ("inconclusive", "page-cache"), ("inconclusive", "storage-not-observed")
    others = ("decode", None), ("cpu-contention", "quota"), ("storage-latency", "neighbour")
    for cause, detail in (*wrong, *others):
        assert not timing.explains(cause, detail)
    assert timing.explains("cpu-contention", "neighbour")
    with pytest.raises(pytest.skip.Exception, match=r"1.5 cores busy, and the verdict is cpu-contention"):
        ended(timing)
    assert timing.explains("inconclusive", "wide-interval")
    timing = machine(QUIET)
    timing.restart()
    assert not timing.explains("cpu-contention", "neighbour"), "there are no such programs"
    assert not timing.explains("inconclusive", None)
    ended(timing)


def test_what_was_measured_before_the_test_counts_by_its_own_cores() -> None:
    timing = machine(BUSY)
    timing.restart()
    with pytest.raises(AssertionError), timing.compared(taken_cores=QUIET):
        raise AssertionError


def test_a_pace_that_asks_for_most_of_the_cores_is_an_excuse_on_a_quiet_machine_too() -> None:
    timing = machine(QUIET)
    timing.restart()
    with pytest.raises(AssertionError), timing.compared(needed_share=0.5):
        raise AssertionError
    with timing.compared(needed_share=0.9):
        raise AssertionError("too long")
    with pytest.raises(pytest.skip.Exception, match=r"this pace asks for 90% of the cores: too long"):
        ended(timing)


class Case:
    """A case that comes to `outcomes`, one after the other."""

    def __init__(self, *outcomes: str) -> None:
        self.outcomes, self.attempts = outcomes, 0

    def on(self, timing: Timing) -> None:
        timing.attempts(lambda number: self._attempt(number, timing))

    def _attempt(self, number: int, timing: Timing) -> None:
        self.attempts += 1
        assert self.outcomes[number] != "wrong word"
        with timing.compared():
            assert self.outcomes[number] != "wrong duration"


def test_a_wrong_word_is_tried_again_on_a_busy_machine_only() -> None:
    case = Case("wrong word", "right")
    case.on(machine(BUSY, QUIET))
    assert case.attempts == 2
    case = Case("wrong word", "right")
    with pytest.raises(AssertionError):
        case.on(machine(QUIET))
    assert case.attempts == 1


def test_a_wrong_duration_is_tried_again_on_a_quiet_machine_too() -> None:
    case = Case("wrong duration", "right")
    case.on(machine(QUIET, QUIET))
    assert case.attempts == 2
    with pytest.raises(AssertionError):
        Case("wrong duration", "wrong duration").on(machine(QUIET, QUIET))
    case = Case("wrong duration", "wrong word", "right")
    with pytest.raises(AssertionError):
        case.on(machine(QUIET, QUIET))
    assert case.attempts == 2


def test_a_wrong_word_on_a_busy_machine_fails_in_the_end() -> None:
    case = Case("wrong word", "wrong word")
    with pytest.raises(AssertionError):
        case.on(machine(BUSY, BUSY))
    assert case.attempts == 2


def test_durations_that_were_never_measured_in_quiet_skip_the_test() -> None:
    timing = machine(BUSY, BUSY)
    Case("wrong duration", "wrong duration").on(timing)
    with pytest.raises(pytest.skip.Exception):
        ended(timing)
    with pytest.raises(AssertionError):
        Case("wrong duration", "wrong duration").on(machine(BUSY, QUIET))
    timing = machine(BUSY, BUSY)
    Case("wrong duration", "right").on(timing)
    ended(timing)
