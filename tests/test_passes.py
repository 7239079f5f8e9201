"""Where the loop's passes over its loaders begin and end, in every way of iterating; times in ms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from pipeprof.passes import NOT_OBSERVED, Ints, Spans, read_marks
from pipeprof.record.events import RunEvent
from pipeprof.timeline import Timeline, measured_window
from tests.factory import MS

HOW = {"exhausted": "exhausted", "dropped": "dropped", "old": None}


@dataclass
class Loop:
    """A program that iterates over loaders, told as it goes; `at` is its clock."""

    workers: int = 2
    at: int = 1_000
    steps: list[tuple[int, int, int, int]] = field(default_factory=list)
    """(loader, epoch, request, take)"""
    events: list[RunEvent] = field(default_factory=list)

    def event(self, kind: str, loader: int, epoch: int, detail: str | None = None) -> None:
        self.events.append(RunEvent(self.at * MS, kind, loader, epoch, detail))

    def iter(self, loader: int = 0, epoch: int = 0, start_up: int = 0, ready: bool = True) -> None:
        self.event("epoch_start", loader, epoch)
        self.at += start_up
        if ready:
            self.event("workers_ready", loader, epoch)

    def step(self, loader: int = 0, epoch: int = 0, wait: int = 2, body: int = 10) -> None:
        self.steps.append((loader, epoch, self.at, self.at + wait))
        self.at += wait + body

    def exhaust(self, loader: int = 0, epoch: int = 0, shutdown: int = 0) -> None:
        self.event("last_request", loader, epoch)
        self.at += shutdown
        self.event("epoch_end", loader, epoch, "exhausted")

    def drop(self, loader: int = 0, epoch: int = 0) -> None:
        self.event("epoch_end", loader, epoch, "dropped")

    def epoch(
        self, steps: int = 5, loader: int = 0, epoch: int = 0, start_up: int = 0, shutdown: int = 0
    ) -> None:
        self.iter(loader, epoch, start_up)
        for _ in range(steps):
            self.step(loader, epoch)
        self.exhaust(loader, epoch, shutdown)

    def timeline(self, warmup: int = 0, events: Sequence[RunEvent] | None = None) -> Timeline:
        loader, epoch, request, take = (
            np.array(column, np.int64) for column in zip(*self.steps, strict=True)
        )
        count = len(loader)
        unseen = np.full(count, NOT_OBSERVED, np.int64)
        number = np.arange(count)
        return Timeline(
            step=number,
            loader=loader,
            epoch=epoch,
            seq=number,
            warmup=number < warmup,
            samples=np.ones(count, np.int64),
            worker=np.full(count, 0 if self.workers else -1),
            dispatch_ns=unseen,
            start_ns=request * MS,
            finish_ns=take * MS,
            pickled_ns=unseen,
            sent_ns=unseen,
            sent_bytes=unseen,
            state_bytes=unseen,
            received_ns=unseen,
            arrival_ns=unseen,
            request_ns=request * MS,
            take_ns=take * MS,
            launch_ns=unseen,
            copy_start_ns=unseen,
            copy_end_ns=unseen,
            compute_start_ns=unseen,
            compute_end_ns=unseen,
            device_wait_ns=unseen,
            batch_row=unseen,
            previous=unseen,
            marks=read_marks(self.events if events is None else events),
        )


def lengths(spans: Spans) -> list[int]:
    """The lengths of spans that last, in ms."""
    return [int(ns // MS) for ns in spans[1] - spans[0] if ns]


def in_ms(times: Ints) -> list[int]:
    return [int(ns // MS) for ns in times]


def walls(timeline: Timeline) -> tuple[int, int]:
    """The wall of the measured window, and what is left out of it, in ms."""
    window = measured_window(timeline)
    assert window is not None
    outside = sum(lengths(window.outside))
    assert window.wall_ns == window.end_ns - window.start_ns - outside * MS
    bounds = np.array([window.start_ns, window.end_ns])
    assert np.diff(window.loop_time(bounds)) == [window.wall_ns]
    return window.wall_ns // MS, outside


@pytest.mark.parametrize("workers", [0, 2])
def test_a_pause_between_two_epochs_is_not_the_loops_time(workers: int) -> None:
    loop = Loop(workers)
    loop.epoch(epoch=0)
    loop.at += 6_000
    loop.epoch(epoch=1)
    timeline = loop.timeline()
    assert lengths(timeline.pauses) == [6_000]
    assert walls(timeline) == (2 * 5 * 12, 6_000)
    assert in_ms(timeline.step_end_ns)[4] == 1_000 + 60, "the last step of the first epoch has its own body"


def test_start_up_counts_where_it_recurs_and_not_the_first_time() -> None:
    loop = Loop()
    for epoch in range(3):
        loop.epoch(epoch=epoch, start_up=400, shutdown=30)
    timeline = loop.timeline()
    assert lengths(timeline.first_startups) == [400]
    assert lengths(timeline.startups) == [400, 430, 430, 30], "shutting down and starting again is one"
    assert lengths(timeline.pauses) == []
    assert walls(timeline)[0] == 3 * 60 + 2 * 430


def test_a_loader_that_is_made_anew_starts_again() -> None:
    """`for _ in range(3): for batch in DataLoader(...)` has a new loader in each epoch."""
    loop = Loop()
    for number in range(3):
        loop.epoch(loader=number, start_up=400)
    timeline = loop.timeline()
    assert lengths(timeline.first_startups) == [400, 400, 400], "for all that is known they differ"
    alike = replace(timeline, alike={0: 0, 1: 0, 2: 0})
    assert lengths(alike.first_startups) == [400]
    assert alike.kinds.tolist() == [0] * 15


def test_until_the_first_batch_is_begun_workers_start() -> None:
    loop = Loop()
    loop.iter(start_up=100)
    loop.step(wait=500)
    for _ in range(4):
        loop.step()
    timeline = loop.timeline()
    timeline.start_ns[0] += 300 * MS
    assert lengths(timeline.first_startups) == [400]
    assert walls(timeline)[0] == 200 + 10 + 4 * 12 - 10, "the last step ends when it was taken"


@pytest.mark.parametrize("workers", [0, 2])
def test_old_runs_give_every_iterator_the_epoch_0(workers: int) -> None:
    loop = Loop(workers)
    for epoch in range(4):
        loop.epoch(epoch=epoch, start_up=3 if workers else 0)
        loop.at += 1_000
    kept = [event for event in loop.events if event.kind != "last_request"]
    old = [event._replace(epoch=0) if event.kind == "workers_ready" else event for event in kept]
    assert read_marks(old) == read_marks(kept)
    timeline = loop.timeline(events=old)
    assert lengths(timeline.pauses) == [1_000] * 3
    assert max(lengths(timeline.startups), default=0) <= 3


def test_workers_that_persist_are_given_their_epoch() -> None:
    """No iterator is made after the first: what lies between `iter` and the first request is the loop's."""
    loop = Loop()
    for epoch in range(3):
        loop.iter(epoch=epoch, start_up=50 if epoch == 0 else 20, ready=epoch == 0)
        for _ in range(5):
            loop.step(epoch=epoch)
        loop.exhaust(epoch=epoch)
        loop.at += 700
    timeline = loop.timeline()
    assert lengths(timeline.pauses) == [700, 700]
    assert walls(timeline) == (3 * 60 + 2 * 20, 2 * 700)


def test_an_iterator_that_is_made_long_before_the_loop_is_no_step() -> None:
    loop = Loop()
    loop.iter(start_up=30)
    loop.at += 9_000
    for _ in range(5):
        loop.step()
    timeline = loop.timeline()
    assert lengths(timeline.pauses) == [9_000]
    assert walls(timeline)[0] == 5 * 12 - 10


@pytest.mark.parametrize("order", ["in turn", "zip"])
def test_two_loaders_side_by_side_have_no_pause(order: str) -> None:
    loop = Loop()
    for number in (0, 1):
        loop.iter(loader=number)
    for _ in range(6):
        loop.step(0, body=0 if order == "zip" else 10)
        loop.step(1, body=40)
    loop.exhaust(0)
    timeline = loop.timeline()
    assert lengths(timeline.pauses) == []
    assert walls(timeline) == (6 * (2 + 2 + 40 + (0 if order == "zip" else 10)), 0)


def test_an_evaluation_within_a_step_has_no_pause() -> None:
    loop = Loop()
    loop.iter(0)
    for number in range(4):
        loop.step(0)
        loop.iter(1, number, start_up=7)
        for _ in range(3):
            loop.step(1, number)
        loop.exhaust(1, number)
        loop.at += 5
    loop.exhaust(0)
    timeline = loop.timeline()
    assert lengths(timeline.pauses) == []
    assert lengths(timeline.first_startups) == [7], "the first evaluation's workers"
    assert in_ms(timeline.step_end_ns)[0] == 1_000 + 12, "until the evaluation's iterator is made"
    assert walls(timeline) == (4 * (12 + 7 + 3 * 12 + 5) - 7, 7)


def test_a_break_ends_the_pass_with_its_step() -> None:
    loop = Loop()
    for epoch in range(2):
        loop.iter(epoch=epoch)
        for _ in range(5):
            loop.step(epoch=epoch)
        loop.drop(epoch=epoch)
        loop.at += 3_000
    timeline = loop.timeline()
    assert lengths(timeline.pauses) == [3_000]
    assert walls(timeline) == (2 * 60, 3_000)


@pytest.mark.parametrize("dropped", [True, False])
def test_where_nobody_saw_the_step_end_it_lasts_as_long_as_the_others(dropped: bool) -> None:
    """An iterator in a variable is let go at any time, and one that its loader keeps is never."""
    loop = Loop()
    for epoch in range(3):
        loop.iter(epoch=epoch)
        for _ in range(5):
            loop.step(epoch=epoch)
        loop.at += 3_000
        if dropped:
            loop.drop(epoch=epoch)
    timeline = loop.timeline()
    assert lengths(timeline.pauses) == [3_000, 3_000]


def test_the_end_of_a_step_that_is_no_longer_than_others_is_no_pause() -> None:
    loop = Loop()
    for epoch in range(2):
        loop.iter(epoch=epoch)
        for body in (10, 30, 10, 25):
            loop.step(epoch=epoch, body=body)
    assert lengths(loop.timeline().pauses) == []


def test_one_batch_an_iterator_is_no_pause_after_each() -> None:
    """`next(iter(loader))` in each step: the iterator is gone before the step has begun."""
    loop = Loop()
    for epoch in range(20):
        loop.iter(epoch=epoch, start_up=4)
        loop.step(epoch=epoch, body=0)
        loop.drop(epoch=epoch)
        loop.at += 40
    timeline = loop.timeline()
    assert lengths(timeline.pauses) == []
    assert walls(timeline)[0] == 20 * 46 - 4 - 40


def test_a_look_at_one_batch_before_the_training_is_followed_by_a_pause() -> None:
    loop = Loop()
    loop.iter(1)
    loop.step(1, body=0)
    loop.drop(1)
    loop.at += 10_000
    loop.epoch(20)
    assert lengths(loop.timeline().pauses) == [10_000 - 10]


def test_a_step_ends_on_the_device() -> None:
    loop = Loop()
    loop.epoch(epoch=0)
    loop.at += 500
    loop.epoch(epoch=1)
    timeline = loop.timeline()
    computed = timeline.take_ns + 40 * MS
    timeline = replace(timeline, compute_start_ns=timeline.take_ns, compute_end_ns=computed)
    assert (timeline.step_end_ns == computed).all()
    assert lengths(timeline.pauses) == [500 - 30], "the device works on after the loop has left"


def test_a_start_up_that_overlaps_steps_is_a_defect() -> None:
    loop = Loop()
    loop.iter(start_up=5)
    for _ in range(5):
        loop.step()
    at = [replace_ready(event, 30) for event in loop.events]
    timeline = loop.timeline(events=at)
    assert [one.fits for one in timeline.passes] == [False]
    assert lengths(timeline.startups) == []
    assert [one.fits for one in loop.timeline().passes] == [True]


def replace_ready(event: RunEvent, later: int) -> RunEvent:
    late = event.kind == "workers_ready"
    return event._replace(time_ns=event.time_ns + later * MS) if late else event


def test_two_live_iterators_of_one_loader_fit() -> None:
    loop = Loop()
    loop.iter(epoch=0, start_up=3)
    loop.iter(epoch=1, start_up=3)
    for _ in range(3):
        loop.step(epoch=0)
        loop.step(epoch=1)
    timeline = loop.timeline()
    assert all(one.fits for one in timeline.passes)
    assert lengths(timeline.pauses) == []


def test_warm_up_and_other_loaders_are_left_out() -> None:
    loop = Loop()
    loop.iter(0)
    loop.iter(1)
    for _ in range(5):
        loop.step(0)
        loop.step(1, body=30)
    timeline = loop.timeline(warmup=2)
    assert walls(timeline)[0] == 4 * (12 + 32) - 30
    only = timeline.only(0)
    assert only.measured.sum() == 4
    assert walls(only)[0] == 4 * 12


def test_the_loops_time_leaves_pauses_out() -> None:
    loop = Loop()
    loop.epoch(epoch=0)
    loop.at += 6_000
    loop.epoch(epoch=1)
    window = measured_window(loop.timeline())
    assert window is not None
    times = np.array([900, 1_000, 1_060, 3_000, 7_060, 7_070, 9_000]) * MS
    assert in_ms(window.loop_time(times)) == [0, 0, 60, 60, 60, 70, 120]
    assert window.holds(times).tolist() == [False, True, False, False, True, True, False]
    half = window.part(3_000 * MS, 7_100 * MS)
    assert (half.wall_ns // MS, lengths(half.outside)) == (40, [4_060])


def test_a_batch_is_ready_when_nothing_is_left_but_to_take_it() -> None:
    loop = Loop()
    for _ in range(5):
        loop.step(wait=2)
    timeline = loop.timeline()
    asked = timeline.request_ns
    sent = asked + np.array([-1, 1, 0, NOT_OBSERVED, NOT_OBSERVED]) * MS
    sent[3:] = NOT_OBSERVED
    finish = asked + np.array([-9, -9, -9, -1, 1]) * MS
    seen = replace(timeline, sent_ns=sent, finish_ns=finish, received_ns=asked + MS)
    assert seen.ready.tolist() == [1, 0, 1, 1, 0]
    inline = replace(seen, worker=np.full(5, -1))
    assert inline.ready.tolist() == [0] * 5
    unseen = replace(seen, sent_ns=np.full(5, NOT_OBSERVED), finish_ns=np.full(5, NOT_OBSERVED))
    assert unseen.ready.tolist() == [NOT_OBSERVED] * 5
    pinned = replace(seen, pin_threads=frozenset({0}))
    assert pinned.ready.tolist() == [0] * 5, "the pin thread had them later than the loop asked"


def test_a_wait_is_masked_as_far_as_the_device_worked() -> None:
    loop = Loop()
    for _ in range(4):
        loop.step(wait=20)
    timeline = loop.timeline()
    assert timeline.masked_wait_ns.tolist() == [0] * 4
    measured = replace(timeline, device_wait_ns=np.array([20, 5, 0, 30]) * MS)
    assert in_ms(measured.masked_wait_ns) == [0, 15, 20, 0]
    began = timeline.take_ns
    seen = replace(timeline, compute_start_ns=began, compute_end_ns=began + 15 * MS)
    assert in_ms(seen.masked_wait_ns) == [0, 5, 5, 5]
