"""A device's events, on one that is not there. `test_real_device.py` has those of a real one."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch

from pipeprof.errors import MeasureError
from pipeprof.measure.accelerator.device import DeviceAccelerator
from pipeprof.measure.accelerator.make import choose_device, find_device, make_accelerator
from pipeprof.measure.accelerator.workload import Workload as Trained
from pipeprof.measure.bench.bench import own_device_number
from pipeprof.measure.device.clock import ANCHOR_AGE_NS, DeviceClock, clock_of
from pipeprof.measure.device.here import installed
from pipeprof.measure.session.job import here
from pipeprof.record.step_times import PartTimes, StepTimes
from pipeprof.scenario import AcceleratorPart, ModelPart, Scenario
from tests.fake_device import MS, FakeDevice, FakeGraph, VirtualClock

COPY_NS, STEP_NS = 2 * MS, 10 * MS


class Launches:
    """A workload whose steps take their time on the device and none on the host."""

    def __init__(self, device: FakeDevice) -> None:
        self.device = device
        self.mark: Callable[[str], None] = lambda part: None

    def prepare(self, batch: Any) -> Any:
        return batch, None

    def step(self, inputs: Any, targets: Any) -> None:
        for part, share in (("forward", 0.3), ("backward", 0.6), ("optimizer", 0.1)):
            self.mark(part)
            self.device.launch(round(STEP_NS * share))

    def describe(self) -> dict[str, str]:
        return {"name": "made"}


def made(pinned: bool = True, **options: Any) -> tuple[VirtualClock, FakeDevice, DeviceAccelerator]:
    clock = VirtualClock()
    given = {key: options.pop(key) for key in ("drift", "timed", "side_streams") if key in options}
    device = FakeDevice(clock, pinned=pinned, copy_ns=lambda size, pinned: COPY_NS, held=[1, 1], **given)
    device.select(1)
    return clock, device, DeviceAccelerator(Launches(device), device, clock=clock, **options)  # type: ignore[arg-type]


BATCH = torch.zeros(2, 2)


def train(
    clock: VirtualClock, accelerator: DeviceAccelerator, steps: int, loading_ns: int
) -> list[StepTimes]:
    told = []
    for step in range(steps):
        accelerator.request(step)
        clock.now_ns += loading_ns
        accelerator.submit(step, BATCH)
        told += accelerator.finished()
    accelerator.synchronize()
    return told + accelerator.finished()


def test_the_loop_is_never_held_up() -> None:
    clock, _, accelerator = made()
    before = clock()
    for step in range(5):
        accelerator.request(step)
        accelerator.submit(step, BATCH)
    assert clock() == before
    assert accelerator.finished() == []


def test_device_stall_is_what_the_stream_was_dry_for() -> None:
    clock, _, accelerator = made()
    times = train(clock, accelerator, 10, loading_ns=20 * MS)
    assert [t.device_wait_ns for t in times] == [20 * MS] + [20 * MS - COPY_NS - STEP_NS] * 9


def test_a_wait_behind_queued_work_is_no_stall() -> None:
    clock, _, accelerator = made()
    times = train(clock, accelerator, 10, loading_ns=5 * MS)
    assert [t.device_wait_ns for t in times] == [5 * MS] + [0] * 9


def test_event_times_are_on_the_hosts_clock() -> None:
    clock, _, accelerator = made()
    start = clock()
    (told,) = train(clock, accelerator, 1, loading_ns=3 * MS)
    copied = start + 3 * MS + COPY_NS
    assert told == StepTimes(0, start + 3 * MS, copied, copied, copied + STEP_NS, 3 * MS)


def test_a_clock_that_drifts_stays_within_a_millisecond_over_an_hour() -> None:
    """100 ppm, as a bad oscillator has: 360 ms in an hour, were the anchor not renewed."""
    clock, device, accelerator = made(drift=100e-6)
    for step in range(720):
        clock.now_ns += 5_000 * MS
        accelerator.submit(step, BATCH)
        copy = [piece for piece in device.work if piece.name == "copy"][-1]
        accelerator.synchronize()
        (told,) = accelerator.finished()
        assert told.copy_start_ns is not None
        assert abs(told.copy_start_ns - copy.start_ns) < MS
        device.work.clear()


def test_32_bit_milliseconds_resolve_a_microsecond_while_the_anchor_is_young() -> None:
    clock, device, accelerator = made()
    clock.now_ns += ANCHOR_AGE_NS - 20 * MS + 12_345
    (told,) = train(clock, accelerator, 1, 0)
    assert told.copy_start_ns is not None
    assert abs(told.copy_start_ns - device.work[0].start_ns) < 1_000


def test_a_side_stream_copies_beside_the_step_before_and_computes_after_the_copy() -> None:
    clock, _, accelerator = made(prefetch_to_device=True)
    times = train(clock, accelerator, 10, loading_ns=STEP_NS // 2)
    for before, now in pairwise(times):
        assert now.copy_start_ns < before.compute_end_ns  # type: ignore[operator]
        assert now.compute_start_ns == max(now.copy_end_ns, before.compute_end_ns)  # type: ignore[type-var]


def test_what_a_side_stream_copied_is_kept_until_the_step_has_read_it() -> None:
    _, device, accelerator = made(prefetch_to_device=True)
    accelerator.submit(0, BATCH)
    assert device.kept == [(BATCH, device.current_stream())]


@pytest.mark.parametrize("pinned", [True, False])
def test_pageable_batches_block_and_pinned_do_not(pinned: bool) -> None:
    clock, device, accelerator = made(pinned=pinned)
    before = clock()
    accelerator.submit(0, BATCH)
    assert device.blocking == [not pinned]
    assert clock() - before == (0 if pinned else COPY_NS)


def test_sync_waits_for_each_step() -> None:
    _, _, accelerator = made(sync=True)
    accelerator.submit(0, BATCH)
    assert [t.step for t in accelerator.finished()] == [0]


def test_parts_lie_within_their_step_and_fill_it() -> None:
    clock, _, accelerator = made(parts=True)
    (told,) = train(clock, accelerator, 1, 0)
    start, end = told.compute_start_ns, told.compute_end_ns
    assert start is not None
    assert accelerator.parts() == [
        PartTimes(0, "forward", start, start + 3 * MS),
        PartTimes(0, "backward", start + 3 * MS, start + 9 * MS),
        PartTimes(0, "optimizer", start + 9 * MS, end),
    ]
    assert accelerator.parts() == [], "each is told once"


def test_parts_are_not_marked_unless_asked_for() -> None:
    clock, device, accelerator = made()
    train(clock, accelerator, 1, 0)
    assert accelerator.parts() == []
    assert len(device.recorded) == 4 + 2 + 6, "the anchor's, the try of its times, and six of the step"


def test_the_anchor_is_renewed_without_waiting_for_the_stream() -> None:
    clock, device, accelerator = made()
    accelerator.submit(0, BATCH)
    device.launch(60_000 * MS)  # the device is busy for a minute
    clock.now_ns += ANCHOR_AGE_NS + 1
    before = clock()
    accelerator.submit(1, BATCH)
    assert clock() == before


def test_on_a_device_with_one_stream_the_anchor_waits_for_it_to_run_dry() -> None:
    clock, device, accelerator = made(side_streams=False)
    old = accelerator._clock.anchor  # type: ignore[union-attr]
    accelerator.submit(0, BATCH)
    device.launch(60_000 * MS)
    clock.now_ns += ANCHOR_AGE_NS + 1
    before = clock()
    accelerator.submit(1, BATCH)
    assert clock() == before
    accelerator.synchronize()
    assert len(accelerator.finished()) == 2
    accelerator.submit(2, BATCH)
    assert accelerator._clock.anchor is not old  # type: ignore[union-attr]


def test_an_anchor_whose_clock_was_read_late_is_not_the_one() -> None:
    """The host loses its core for 80 ms between an event and its clock, in all tries but one."""
    world = VirtualClock()
    device = FakeDevice(world)
    start, steals = world(), iter([80 * MS, 80 * MS, 0, 80 * MS])
    readings = 0

    def clock() -> int:
        nonlocal readings
        readings += 1
        world.now_ns += next(steals, 0) if readings % 2 == 0 else 0
        return world.now_ns

    anchor = DeviceClock(device, device.new_stream(), clock).anchor
    assert (anchor.time_ns, anchor.error_ns) == (anchor.event.at_ns, 0)
    assert world() == start + 240 * MS


def test_without_timed_events_it_trains_and_says_that_it_saw_no_times() -> None:
    clock, device, accelerator = made(timed=False, parts=True)
    told = train(clock, accelerator, 3, 5 * MS)
    assert told == [StepTimes(0), StepTimes(1), StepTimes(2)]
    assert accelerator.parts() == []
    assert sum(piece.name == "kernel" for piece in device.work) == 9
    assert accelerator.why_untimed == "fake has no timed events: this backend's events take no time"


def test_a_graph_that_is_captured_and_replayed_is_timed_as_a_whole() -> None:
    clock, device, accelerator = made(parts=True)
    graph = FakeGraph(device)
    work = accelerator.workload
    with graph.capture():
        work.step(BATCH, None)  # type: ignore[arg-type]
    assert device.work == [], "what is captured does not run"
    accelerator.workload.step = lambda inputs, targets: graph.replay()  # type: ignore[method-assign]
    times = train(clock, accelerator, 4, 20 * MS)
    assert [t.compute_end_ns - t.compute_start_ns for t in times] == [STEP_NS] * 4  # type: ignore[operator]
    assert accelerator.parts() == [], "its parts are one graph"


def test_a_device_that_is_lost_ends_the_loop_with_its_own_error() -> None:
    _, device, accelerator = made()
    accelerator.submit(0, BATCH)
    device.lose()
    with pytest.raises(RuntimeError, match="device lost"):
        accelerator.submit(1, BATCH)


def test_it_tells_which_device_it_is() -> None:
    _, _, accelerator = made()
    facts = accelerator.describe()
    assert (facts.kind, facts.name, facts.device, facts.uuid) == ("fake", "made 1", 1, "uuid-1")
    assert facts.memory_bytes == 2**30
    assert facts.device_of_torch


def test_each_rank_of_a_node_takes_a_device_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    device = FakeDevice(VirtualClock(), held=[0, 0])
    chosen: list[int] = []
    monkeypatch.setattr(device, "select", chosen.append)
    choose_device(device, own_device_number(here()))
    assert chosen == [], "outside a job the current device is the user's choice"
    for rank in range(6):
        for name, value in (("RANK", rank), ("WORLD_SIZE", 6), ("LOCAL_RANK", rank % 3)):
            monkeypatch.setenv(name, str(value))
        choose_device(device, own_device_number(here()))
    assert chosen == [0, 1, 0, 0, 1, 0]
    monkeypatch.delenv("LOCAL_RANK")
    choose_device(device, own_device_number(here()))
    assert chosen[-1] == 1, "a launcher that tells no local rank"


@pytest.mark.parametrize("kind", ["auto", "device"])
def test_any_device_that_torch_sees_can_train(kind: str) -> None:
    device = FakeDevice(VirtualClock())
    with installed(device):
        assert find_device(AcceleratorPart(kind=kind)) is device  # type: ignore[arg-type]
        part = AcceleratorPart(kind=kind)  # type: ignore[arg-type]
        net = ModelPart(name="two_layer_net")
        made = make_accelerator(Scenario(name="test", accelerator=part, model=net))
    assert (made.kind, made.pins) == ("fake", True)


def test_a_device_of_another_kind_is_refused_by_name() -> None:
    with (
        installed(FakeDevice(VirtualClock())),
        pytest.raises(MeasureError, match="asks for the accelerator xpu"),
    ):
        find_device(AcceleratorPart(kind="xpu"))


def test_without_cudnn_the_step_and_only_the_step_goes_without() -> None:
    _, _, accelerator = made(cudnn=False)
    model = ModelPart(name="two_layer_net")
    accelerator.workload = work = Trained(Scenario(name="test", model=model), "cpu")
    seen: list[bool] = []
    work.network.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.enabled))
    accelerator.submit(0, (torch.zeros(2, 1000), torch.tensor([1, 2])))
    assert set(seen) == {False}
    assert torch.backends.cudnn.enabled


def test_a_clock_is_had_only_where_events_have_times() -> None:
    device = FakeDevice(VirtualClock())
    clock, why = clock_of(device, device.clock)
    assert (clock is not None, why) == (True, None)


def test_a_backend_without_streams_of_its_own_trains_untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a PrivateUse1 backend may be: what it lacks, its guard refuses."""

    def refused() -> None:
        raise RuntimeError("Backend doesn't support create stream\nmore")

    device = FakeDevice(VirtualClock())
    monkeypatch.setattr(device, "new_stream", refused)
    accelerator = DeviceAccelerator(Launches(device), device, clock=device.clock)  # type: ignore[arg-type]
    accelerator.request(0)
    accelerator.submit(0, BATCH)
    assert accelerator.finished() == [StepTimes(0)]
    assert accelerator.why_untimed == "fake has no timed events: Backend doesn't support create stream"
