"""When the record is flushed; the time is handed in."""

from __future__ import annotations

from pipeprof.measure.session.flush import ENOUGH_LOOKS, FLUSH_EVERY_S, LOOK_EVERY_S, REST_S, Rhythm


def flushes(looks_s: list[float]) -> list[float]:
    rhythm, times = Rhythm(0.0), []
    for now_s in looks_s:
        if rhythm.is_due(now_s):
            rhythm.flush(now_s)
            times.append(now_s)
    return times


def test_a_thread_in_time_flushes_in_its_period() -> None:
    looks = [LOOK_EVERY_S * n for n in range(1, 100)]
    times = flushes(looks)
    gaps = [after - before for before, after in zip([0.0, *times], times, strict=False)]
    assert all(FLUSH_EVERY_S - 1e-9 <= gap < FLUSH_EVERY_S + 2 * LOOK_EVERY_S for gap in gaps)


def test_a_thread_that_comes_late_flushes_at_each_look() -> None:
    """It gets a core every 0.4 s: waiting for its period would leave 1.2 s between two flushes."""
    looks = [0.4 * n for n in range(1, 10)]
    assert flushes(looks) == looks


def test_lateness_is_forgotten() -> None:
    looks = [0.4 + LOOK_EVERY_S * n for n in range(100)]
    times = flushes(looks)
    assert times[0] == 0.4 and times[-1] - times[-2] > FLUSH_EVERY_S - LOOK_EVERY_S


def test_looks_are_rarer_while_there_is_nothing_to_look_at_and_flushes_are_not() -> None:
    rhythm, now_s, looks, gaps, flushed_s = Rhythm(0.0), 0.0, 0, [], 0.0
    while now_s < 60.0:
        now_s += rhythm.pause_s
        looks += 1
        if rhythm.is_due(now_s):
            rhythm.flush(now_s)
            gaps.append(now_s - flushed_s)
            flushed_s = now_s
        rhythm.rest(is_filling=False, is_waiting=False)
    assert looks < 60.0 / LOOK_EVERY_S / 2
    assert all(FLUSH_EVERY_S - 1e-9 <= gap < FLUSH_EVERY_S + LOOK_EVERY_S for gap in gaps)
    rhythm.rest(is_filling=True, is_waiting=False)
    assert rhythm.pause_s == LOOK_EVERY_S


def test_a_pause_is_no_lateness() -> None:
    rhythm = Rhythm(0.0)
    assert not rhythm.is_due(LOOK_EVERY_S)
    rhythm.rest(is_filling=False, is_waiting=False)
    assert rhythm.pause_s == REST_S
    assert not rhythm.is_due(LOOK_EVERY_S + REST_S)
    rhythm.rest(is_filling=False, is_waiting=False)
    assert not rhythm.is_due(LOOK_EVERY_S + 2 * REST_S)


def test_looks_are_rarer_once_many_have_found_the_loop_waiting() -> None:
    rhythm = Rhythm(0.0)
    for n in range(ENOUGH_LOOKS):
        rhythm.rest(is_filling=False, is_waiting=True)
        assert rhythm.pause_s == LOOK_EVERY_S, n
    rhythm.rest(is_filling=False, is_waiting=True)
    assert rhythm.pause_s == REST_S
    rhythm.rest(is_filling=True, is_waiting=True)
    assert rhythm.pause_s == LOOK_EVERY_S
