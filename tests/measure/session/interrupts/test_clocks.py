"""Jumps of the clocks are told from the machine's sleep; the readings are handed in."""

from __future__ import annotations

import pytest

from pipeprof.measure.session.interrupts.clocks import ClockJumps, ClockReadings, Clocks, read
from tests.factory import MS, S


def steps(*readings: ClockReadings) -> list[ClockJumps]:
    given = iter(readings)
    clocks = Clocks(lambda: next(given))
    return [clocks.look() for _ in readings[1:]]


def at(monotonic: int, wall: int, boot: int | None, took: int = 0) -> ClockReadings:
    return ClockReadings(monotonic, wall, boot, monotonic + took)


@pytest.mark.parametrize(
    ("later", "expected"),
    [
        (at(50 * MS, 1050 * MS, 50 * MS), ClockJumps()),
        (at(50 * MS, 3601 * S, 50 * MS), ClockJumps(set_ns=3600 * S - 50 * MS)),
        (at(50 * MS, -2 * S, 50 * MS), ClockJumps(set_ns=-3 * S - 50 * MS)),
        (at(50 * MS, 61 * S, 60 * S), ClockJumps(slept_ns=60 * S - 50 * MS)),  # a lid was closed
        (at(50 * MS, 61 * S, None), ClockJumps(set_ns=60 * S - 50 * MS)),  # no clock that runs on in sleep
        (at(50 * MS, 1100 * MS, 50 * MS), ClockJumps()),  # what daemons do
        (at(5 * S, 6 * S, 5 * S), ClockJumps()),  # a standstill of the process
    ],
)
def test_jumps_and_sleep(later: ClockReadings, expected: ClockJumps) -> None:
    assert steps(at(0, S, 0 if later.boot is not None else None), later) == [expected]


def test_readings_that_were_interrupted_do_not_compare() -> None:
    """The thread lost its core between two clocks: the next look compares with the one before."""
    torn = at(S, 4 * S, S, took=2 * S)
    assert steps(at(0, S, 0), torn, at(4 * S, 5 * S, 4 * S)) == [ClockJumps(), ClockJumps()]


def test_the_machines_own_clocks_are_read() -> None:
    now = read()
    assert now.monotonic <= now.monotonic_after and now.wall > 0
