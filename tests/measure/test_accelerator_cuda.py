"""CUDA's events: on a made-up CUDA anywhere, and on a real one where it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipeprof.measure.accelerator import StepTimes
from pipeprof.measure.cuda import ANCHOR_AGE_NS, CudaAccelerator

MS = 1_000_000
COPY_NS, STEP_NS = 2 * MS, 10 * MS
SKEW_NS = 777 * MS
"""The device's clock is not the host's."""


class World:
    """A host and a device with streams, in virtual time."""

    def __init__(self) -> None:
        self.host_ns = 1_000 * MS
        self.active = self.default = Stream(self)

    def clock(self) -> int:
        return self.host_ns


class Stream:
    def __init__(self, world: World) -> None:
        self.world, self.free_ns = world, 0

    def take(self, duration_ns: int) -> int:
        """Queue work; returns when it ends."""
        self.free_ns = max(self.free_ns, self.world.host_ns) + duration_ns
        return self.free_ns

    def wait_event(self, event: Event) -> None:
        self.free_ns = max(self.free_ns, event.at_ns)

    def synchronize(self) -> None:
        self.world.host_ns = max(self.world.host_ns, self.free_ns)


class Event:
    def __init__(self, world: World) -> None:
        self.world = world

    def record(self, stream: Stream) -> None:
        self.at_ns = stream.take(0)

    def query(self) -> bool:
        return self.at_ns <= self.world.host_ns

    def synchronize(self) -> None:
        self.world.host_ns = max(self.world.host_ns, self.at_ns)

    def elapsed_time(self, later: Event) -> float:
        assert later.query(), "CUDA raises for an event that has not passed"
        return (later.at_ns - self.at_ns) / MS


class Workload:
    """Copies and steps that take their time on the world's streams."""

    def __init__(self, world: World, pinned: bool) -> None:
        self.world, self.pinned = world, pinned
        self.blocking: list[bool] = []

    def prepare(self, batch: Any) -> Any:
        return batch, None

    def to_device(self, batch: Any, non_blocking: bool) -> Any:
        self.blocking.append(not non_blocking)
        end = self.world.active.take(COPY_NS)
        if not non_blocking:
            self.world.host_ns = end
        return batch

    def step(self, inputs: Any, targets: Any) -> None:
        self.world.default.take(STEP_NS)


class PinnedTensor(torch.Tensor):
    """A tensor that says it is pinned, and whose memory need not outlive a stream."""

    def is_pinned(self) -> bool:  # type: ignore[override]
        return True

    def record_stream(self, stream: Any) -> None:
        self.kept_for = stream


def made_up_cuda(pinned: bool = True, **options: Any) -> tuple[World, CudaAccelerator]:
    world = World()

    @contextmanager
    def stream(chosen: Stream) -> Iterator[None]:
        before, world.active = world.active, chosen
        yield
        world.active = before

    cuda = SimpleNamespace(
        Event=lambda enable_timing: Event(world),
        Stream=lambda: Stream(world),
        stream=stream,
        current_stream=lambda: world.default,
    )
    workload = Workload(world, pinned)
    return world, CudaAccelerator(workload, cuda=cuda, clock=world.clock, **options)  # type: ignore[arg-type]


def batch(pinned: bool) -> torch.Tensor:
    return torch.zeros(2, 2).as_subclass(PinnedTensor) if pinned else torch.zeros(2, 2)


def train(
    world: World, accelerator: CudaAccelerator, steps: int, loading_ns: int, pinned: bool = True
) -> list[StepTimes]:
    told = []
    for step in range(steps):
        accelerator.request(step)
        world.host_ns += loading_ns
        accelerator.submit(step, batch(pinned))
        told += accelerator.finished()
    accelerator.synchronize()
    return told + accelerator.finished()


def test_the_loop_is_never_held_up() -> None:
    world, accelerator = made_up_cuda()
    before = world.host_ns
    for step in range(5):
        accelerator.request(step)
        accelerator.submit(step, batch(True))
    assert world.host_ns == before
    assert accelerator.finished() == []


def test_device_stall_is_what_the_stream_was_dry_for() -> None:
    world, accelerator = made_up_cuda()
    times = train(world, accelerator, 10, loading_ns=20 * MS)
    assert [t.device_wait_ns for t in times] == [20 * MS] + [20 * MS - COPY_NS - STEP_NS] * 9


def test_a_wait_behind_queued_work_is_no_stall() -> None:
    world, accelerator = made_up_cuda()
    times = train(world, accelerator, 10, loading_ns=5 * MS)
    assert [t.device_wait_ns for t in times] == [5 * MS] + [0] * 9


def test_event_times_are_on_the_hosts_clock() -> None:
    world, accelerator = made_up_cuda()
    start = world.host_ns
    (told,) = train(world, accelerator, 1, loading_ns=3 * MS)
    assert told == StepTimes(
        0,
        start + 3 * MS,
        start + 3 * MS + COPY_NS,
        start + 3 * MS + COPY_NS,
        start + 3 * MS + COPY_NS + STEP_NS,
        3 * MS,
    )


def test_a_side_stream_copies_beside_the_step_before_and_computes_after_the_copy() -> None:
    world, accelerator = made_up_cuda(prefetch_to_device=True)
    times = train(world, accelerator, 10, loading_ns=STEP_NS // 2)
    for before, now in pairwise(times):
        assert now.copy_start_ns < before.compute_end_ns  # type: ignore[operator]
        assert now.compute_start_ns == max(now.copy_end_ns, before.compute_end_ns)  # type: ignore[type-var]


def test_what_a_side_stream_copied_is_kept_until_the_step_has_read_it() -> None:
    world, accelerator = made_up_cuda(prefetch_to_device=True)
    accelerator.request(0)
    pinned = batch(True)
    accelerator.submit(0, pinned)
    assert pinned.kept_for is world.default  # type: ignore[attr-defined]


def test_pageable_batches_block_and_pinned_do_not() -> None:
    world, accelerator = made_up_cuda()
    train(world, accelerator, 1, 0, pinned=False)
    train(world, accelerator, 1, 0, pinned=True)
    assert accelerator.workload.blocking == [True, False]  # type: ignore[attr-defined]


def test_sync_waits_for_each_step() -> None:
    _, accelerator = made_up_cuda(sync=True)
    accelerator.submit(0, batch(True))
    assert [t.step for t in accelerator.finished()] == [0]


def test_the_anchor_is_renewed_without_waiting_for_the_stream() -> None:
    world, accelerator = made_up_cuda()
    accelerator.submit(0, batch(True))
    world.default.take(60_000 * MS)  # the device is busy for a minute
    world.host_ns += ANCHOR_AGE_NS + 1
    before = world.host_ns
    accelerator.submit(1, batch(True))
    assert world.host_ns == before


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("prefetch", [False, True])
def test_real_events_lie_in_the_order_of_a_stream(prefetch: bool) -> None:
    times = _real(steps=20, prefetch_to_device=prefetch)
    assert [t.step for t in times] == list(range(20))
    for before, now in pairwise(times):
        assert now.copy_start_ns <= now.copy_end_ns <= now.compute_end_ns  # type: ignore[operator]
        assert now.compute_start_ns >= before.compute_end_ns  # type: ignore[operator]


@pytest.mark.gpu
@needs_cuda
def test_real_stall_is_the_loaders_delay_less_what_the_step_covers() -> None:
    times = _real(steps=20, delay_s=0.05)
    cycle = times[-1].compute_end_ns - times[5].compute_end_ns  # type: ignore[operator]
    waited = sum(t.device_wait_ns for t in times[6:])  # type: ignore[misc]
    busy = sum(t.compute_end_ns - t.copy_start_ns for t in times[6:])  # type: ignore[operator]
    assert waited + busy == pytest.approx(cycle, rel=0.02)


@pytest.mark.gpu
@needs_cuda
def test_stall_by_events_agrees_with_torchs_profiler_within_two_points() -> None:
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as trace:
        times = _real(steps=30, delay_s=0.03)
    kernels = sorted(
        (event.time_range.start, event.time_range.end)
        for event in trace.events()
        if event.device_type == torch.autograd.DeviceType.CUDA
    )
    busy_us, free_from = 0.0, kernels[0][0]
    for start, end in kernels:
        busy_us += max(0.0, end - max(start, free_from))
        free_from = max(free_from, end)
    idle = 1 - busy_us / (kernels[-1][1] - kernels[0][0])
    span = times[-1].compute_end_ns - times[0].copy_start_ns  # type: ignore[operator]
    stall = sum(t.device_wait_ns for t in times[1:]) / span  # type: ignore[misc]
    assert stall == pytest.approx(idle, abs=0.02)


def _real(steps: int, delay_s: float = 0.0, **options: Any) -> list[StepTimes]:
    """Steps of one large matrix multiplication each, on the real device, with a loader of `delay_s`."""
    import time

    from pipeprof.measure.workload import Workload
    from pipeprof.scenario import ModelPart, Scenario

    scenario = Scenario(name="test", model=ModelPart(name="resnet18", classes=10))
    accelerator = CudaAccelerator(Workload(scenario, "cuda"), **options)
    images, labels = torch.zeros(64, 3, 224, 224).pin_memory(), torch.zeros(64, dtype=torch.long).pin_memory()
    told = []
    for step in range(-3, steps):
        accelerator.request(step)
        time.sleep(delay_s)
        accelerator.submit(step, (images, labels))
        told += accelerator.finished()
    accelerator.synchronize()
    return [t for t in told + accelerator.finished() if t.step >= 0]
