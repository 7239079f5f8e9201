from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeprof.simulate.clock import VirtualClock


def finish_times(cores: float, jobs: list[tuple[float, float]]) -> list[float]:
    """When each (arrival, CPU time) is done."""
    clock = VirtualClock(cores)
    done = [0.0] * len(jobs)

    def note(job: Any) -> None:
        done[job] = clock.now

    for number, (arrival, _) in enumerate(jobs):
        clock.at(arrival, lambda job: clock.work(jobs[job][1], note, job), number)
    clock.run()
    return done


def test_alone_a_task_takes_its_demand() -> None:
    assert finish_times(2, [(5.0, 10.0)]) == [15.0]


def test_more_tasks_than_cores_share_them_equally() -> None:
    assert finish_times(2, [(0, 10), (0, 10), (0, 10)]) == pytest.approx([15, 15, 15])


def test_a_task_that_ends_leaves_its_core_to_the_others() -> None:
    # both at half speed until the short one is done at 8; the long one has 6 left and the core to itself
    assert finish_times(1, [(0, 4), (0, 10)]) == pytest.approx([8, 14])


def test_a_late_arrival_slows_who_is_there() -> None:
    assert finish_times(1, [(0, 10), (4, 2)]) == pytest.approx([12, 8])


def test_a_quota_below_one_core_slows_one_task() -> None:
    assert finish_times(0.5, [(0, 10)]) == pytest.approx([20])


def test_events_at_one_time_come_in_the_order_they_were_asked_for() -> None:
    clock, seen = VirtualClock(1), []
    for name in "abc":
        clock.at(7.0, seen.append, name)
    clock.run()
    assert seen == ["a", "b", "c"]


def test_an_event_of_the_past_happens_now() -> None:
    clock, seen = VirtualClock(1), []
    clock.at(10.0, lambda _: clock.at(3.0, lambda _: seen.append(clock.now)))
    clock.run()
    assert seen == [10.0]


jobs = st.lists(st.tuples(st.floats(0, 1e9), st.floats(0, 1e9)), min_size=1, max_size=20)


@given(jobs, st.sampled_from([0.5, 1.0, 2.0, 3.5, 64.0]))
def test_cores_do_no_more_and_no_less_than_the_work(
    given_jobs: list[tuple[float, float]], cores: float
) -> None:
    done = finish_times(cores, given_jobs)
    rate = min(1.0, cores)
    for (arrival, demand), end in zip(given_jobs, done, strict=True):
        assert end >= arrival + demand / rate - 1e-3
    work = sum(demand for _, demand in given_jobs)
    last_arrival = max(arrival for arrival, _ in given_jobs)
    longest = max(demand for _, demand in given_jobs)
    assert max(done) <= last_arrival + work / cores + longest / rate + 1e-3
