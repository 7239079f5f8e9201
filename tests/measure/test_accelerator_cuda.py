"""CUDA's events, on a made-up CUDA. `test_real_device.py` has those of a real one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipeprof.measure.accelerator import StepTimes, take_own_device
from pipeprof.measure.cuda import ANCHOR_AGE_NS, CudaAccelerator
from pipeprof.measure.workload import Workload as Trained
from pipeprof.scenario import ModelPart, Scenario

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
        current_device=lambda: 1,
        get_device_properties=lambda device: SimpleNamespace(name="made", uuid="u1", total_memory=2**30),
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


def test_an_anchor_whose_clock_was_read_late_is_not_the_one() -> None:
    """The host loses its core for 80 ms between an event and its clock, in all tries but one."""
    world, accelerator = made_up_cuda()
    start, steals = world.host_ns, iter([80 * MS, 80 * MS, 0, 80 * MS])
    readings = 0

    def clock() -> int:
        nonlocal readings
        readings += 1
        world.host_ns += next(steals, 0) if readings % 2 == 0 else 0
        return world.host_ns

    accelerator._clock = clock
    anchor = accelerator._new_anchor()
    assert anchor.time_ns == anchor.event.at_ns
    assert world.host_ns == start + 240 * MS


def test_it_tells_which_device_it_is() -> None:
    _, accelerator = made_up_cuda()
    accelerator.workload.describe = lambda: {"name": "made"}  # type: ignore[method-assign]
    facts = accelerator.describe()
    assert (facts["kind"], facts["name"], facts["device"], facts["uuid"]) == ("cuda", "made", 1, "u1")


def test_each_rank_of_a_node_takes_a_device_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    cuda = SimpleNamespace(set_device=chosen.append, device_count=lambda: 2)
    take_own_device(cuda)
    assert chosen == [], "outside a job the current device is the user's choice"
    for rank in range(6):
        for name, value in (("RANK", rank), ("WORLD_SIZE", 6), ("LOCAL_RANK", rank % 3)):
            monkeypatch.setenv(name, str(value))
        take_own_device(cuda)
    assert chosen == [0, 1, 0, 0, 1, 0]
    monkeypatch.delenv("LOCAL_RANK")
    take_own_device(cuda)
    assert chosen[-1] == 1


def test_without_cudnn_the_step_and_only_the_step_goes_without() -> None:
    _, accelerator = made_up_cuda(cudnn=False)
    model = ModelPart(name="two_layer_net")
    accelerator.workload = work = Trained(Scenario(name="test", model=model), "cpu")
    seen: list[bool] = []
    work._network.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.enabled))
    accelerator.submit(0, (torch.zeros(2, 1000), torch.tensor([1, 2])))
    assert set(seen) == {False}
    assert torch.backends.cudnn.enabled
