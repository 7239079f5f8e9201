"""The emulated accelerator on a clock that the test advances."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from pipeprof.devices import AcceleratorModel, LinkModel
from pipeprof.measure.accelerator.emulated import EmulatedAccelerator
from pipeprof.record.step_times import StepTimes

MS = 1_000_000
LINK = LinkModel("test", pageable_bytes_per_s=1e9, pinned_bytes_per_s=2e9, latency_ns=0)
BATCH = torch.zeros(4, 500_000, dtype=torch.uint8)  # 2 MB: 2 ms pageable, 1 ms pinned
COPY, PINNED_COPY = 2 * MS, 1 * MS


class Clock:
    """Time that passes when someone sleeps or works."""

    def __init__(self) -> None:
        self.now = 1_000 * MS
        self.slept = 0

    def __call__(self) -> int:
        return self.now

    def sleep_until(self, deadline: int) -> None:
        assert deadline > self.now
        self.slept += deadline - self.now
        self.now = deadline


def device(clock: Clock, step_ms: float = 10, spread_ms: float = 0, **options: object) -> EmulatedAccelerator:
    depth = options.pop("depth", 2)
    model = AcceleratorModel(
        "test",
        round(step_ms * MS),
        round(spread_ms * MS),
        queue_depth=depth,
        link=LINK,  # type: ignore[arg-type]
    )
    return EmulatedAccelerator(model, clock=clock, sleep=clock.sleep_until, **options)  # type: ignore[arg-type]


def train(accelerator: EmulatedAccelerator, clock: Clock, steps: int, loading_ns: int = 0) -> list[StepTimes]:
    for step in range(steps):
        accelerator.request(step)
        clock.now += loading_ns
        accelerator.submit(step, BATCH)
    accelerator.synchronize()
    return accelerator.finished()


def wall(times: list[StepTimes]) -> int:
    return times[-1].compute_end_ns - times[0].compute_end_ns  # type: ignore[operator]


def test_a_loader_that_keeps_up_is_hidden_by_the_queue() -> None:
    clock = Clock()
    times = train(device(clock, pinned=True, prefetch_to_device=True), clock, 11, loading_ns=8 * MS)
    assert wall(times) == 10 * 10 * MS
    assert sum(t.device_wait_ns or 0 for t in times[1:]) == 0


def test_a_slow_loader_starves_the_device_by_what_the_step_does_not_cover() -> None:
    clock = Clock()
    times = train(device(clock, pinned=True), clock, 11, loading_ns=15 * MS)
    # a cycle is 15 ms of loading, since copy (1) and step (10) run while the next batch is loaded
    assert wall(times) == 10 * 15 * MS
    assert [t.device_wait_ns for t in times[1:]] == [15 * MS - PINNED_COPY - 10 * MS] * 10


def test_launch_returns_before_the_step_ends_until_the_queue_is_full() -> None:
    clock = Clock()
    accelerator = device(clock, pinned=True, prefetch_to_device=True, depth=2)
    launched = []
    for step in range(4):
        accelerator.submit(step, BATCH)
        launched.append(clock.now)
    ends = [launched[0] + PINNED_COPY + (k + 1) * 10 * MS for k in range(4)]
    assert launched == [launched[0], launched[0], ends[0], ends[1]]


def test_a_pageable_copy_waits_for_the_stream_and_holds_the_host() -> None:
    clock = Clock()
    times = train(device(clock), clock, 11)
    assert wall(times) == 10 * (10 * MS + COPY)  # nothing overlaps
    assert all(later.copy_start_ns == t.compute_end_ns for t, later in pairwise(times))


def test_a_pinned_copy_is_faster_and_lets_the_host_go_on() -> None:
    clock = Clock()
    times = train(device(clock, pinned=True), clock, 11, loading_ns=9 * MS)
    assert wall(times) == 10 * (10 * MS + PINNED_COPY)  # loading is hidden, the copy is not


def test_a_side_stream_hides_the_copy() -> None:
    clock = Clock()
    times = train(device(clock, pinned=True, prefetch_to_device=True), clock, 11)
    assert wall(times) == 10 * 10 * MS


def test_a_loop_that_synchronises_waits_for_each_step() -> None:
    clock = Clock()
    times = train(device(clock, pinned=True, sync=True), clock, 11, loading_ns=5 * MS)
    assert wall(times) == 10 * (5 * MS + PINNED_COPY + 10 * MS)
    assert {t.device_wait_ns for t in times} == {5 * MS}


def test_steps_are_told_when_they_have_ended_and_not_before() -> None:
    clock = Clock()
    accelerator = device(clock, pinned=True)
    accelerator.submit(0, BATCH)
    accelerator.submit(1, BATCH)
    assert accelerator.finished() == []
    clock.now += PINNED_COPY + 10 * MS
    assert [t.step for t in accelerator.finished()] == [0]
    accelerator.synchronize()
    assert [t.step for t in accelerator.finished()] == [1]
    assert accelerator.finished() == []


def test_the_start_of_the_next_epoch_counts_as_waiting() -> None:
    clock = Clock()
    accelerator = device(clock, pinned=True)
    accelerator.submit(0, BATCH)
    accelerator.synchronize()
    accelerator.request(1)  # answered by the end of the epoch
    clock.now += 30 * MS  # workers start
    accelerator.request(1)
    clock.now += 5 * MS
    accelerator.submit(1, BATCH)
    accelerator.synchronize()
    assert [t.device_wait_ns for t in accelerator.finished()] == [0, 35 * MS]


def test_step_time_scales_with_the_batch_where_the_preset_says_for_how_many() -> None:
    clock = Clock()
    model = AcceleratorModel("test", 100 * MS, batch_size=400, link=LINK)
    accelerator = EmulatedAccelerator(model, clock=clock, sleep=clock.sleep_until)
    accelerator.submit(0, BATCH)
    accelerator.synchronize()
    (told,) = accelerator.finished()
    assert told.compute_end_ns - told.compute_start_ns == MS  # type: ignore[operator]


def durations(seed: int) -> list[int]:
    clock = Clock()
    times = train(device(clock, step_ms=10, spread_ms=2, seed=seed), clock, 400)
    return [t.compute_end_ns - t.compute_start_ns for t in times]  # type: ignore[operator]


def test_the_spread_of_step_times_is_drawn_from_the_seed() -> None:
    drawn = durations(1)
    assert drawn == durations(1) != durations(2)
    mean = sum(drawn) / len(drawn)
    deviation = (sum((d - mean) ** 2 for d in drawn) / len(drawn)) ** 0.5
    assert mean == pytest.approx(10 * MS, rel=0.03)
    assert deviation == pytest.approx(2 * MS, rel=0.15)


def test_utilisation_is_that_of_the_rows_to_the_nanosecond() -> None:
    clock = Clock()
    times = train(device(clock, pinned=True), clock, 50, loading_ns=13 * MS)
    busy = sum(t.compute_end_ns - t.compute_start_ns for t in times[1:])  # type: ignore[operator]
    idle = sum(t.device_wait_ns for t in times[1:]) + 49 * PINNED_COPY  # type: ignore[misc]
    assert busy + idle == wall(times)


def test_it_says_what_it_is() -> None:
    facts = device(Clock(), pinned=True).describe()
    assert facts.emulated is True
    assert facts.queue_depth == 2
    assert facts.link.pinned_bytes_per_s == 2e9
