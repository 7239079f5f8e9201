"""Times that a device tells of its steps, and the unmasked wait between two events."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeprof.measure.device.here import installed
from pipeprof.measure.session.session import Session
from pipeprof.measure.session.steps import steps
from pipeprof.measure.session.steps.device_wait import DeviceWait
from pipeprof.record.meta import AcceleratorMeta, RunMeta
from pipeprof.record.reader import load
from pipeprof.record.step_times import StepTimes
from tests.fake_device import MS, FakeDevice, FakeGraph, VirtualClock
from tests.measure.session import loader_cases as cases


def test_a_step_waits_for_its_device_times(tmp_path: Path) -> None:
    with Session(tmp_path / "run", "bench", warmup_steps=1, device=True) as session:
        for _ in session.loader(cases.Squares(8), batch_size=2):
            step = session.steps.taken - 1
            session.steps.launched(step, 1000 + step)
            if step >= 1:
                session.steps.add_device_times([StepTimes(step - 1, 1, 2, 3, 4, 5)])
            assert session.summary()["samples"] == 2 * step
    steps = load(tmp_path / "run").table("steps").to_pylist()
    assert [row["launch_ns"] for row in steps] == [1000, 1001, 1002, 1003]
    assert [row["compute_end_ns"] for row in steps] == [4, 4, 4, None]
    assert [row["warmup"] for row in steps] == [True, False, False, False]


def made(held: list[int] | None = None, reached_ms: float = 0.0) -> tuple[FakeDevice, VirtualClock]:
    """A device that has come to `reached_ms`, whatever the host's clock says."""
    clock = VirtualClock(0)
    device = FakeDevice(clock, held=held)
    device.reached_ns = round(reached_ms * MS)
    return device, clock


def rows(count: int) -> list[Any]:
    return [SimpleNamespace(step=step, device_wait_ns=None, complete=False) for step in range(count)]


def told(found: list[Any]) -> list[int | None]:
    assert all(row.complete for row in found)
    return [row.device_wait_ns for row in found]


def test_the_wait_between_two_events() -> None:
    device, clock = made()
    wait = DeviceWait(device)
    taken = rows(2)
    wait.requested()
    clock.now_ns = 2_500_000
    wait.took(taken[0])
    wait.requested()
    clock.now_ns = 4_000_000
    wait.requested()  # the epoch had ended: the wait goes on
    clock.now_ns = 5_000_000
    wait.took(taken[1])
    assert not taken[0].complete
    device.reached_ns = 3_000_000
    wait.complete()
    assert told(taken[:1]) == [2_500_000]
    assert not taken[1].complete
    device.reached_ns = 9_000_000
    wait.complete()
    assert told(taken) == [2_500_000, 2_500_000]
    assert len(device.made) == 4
    wait.requested()
    assert len(device.made) == 4, "events are used again"


def test_a_wait_inside_a_wait_ends_it() -> None:
    device, clock = made()
    wait = DeviceWait(device)
    inner, outer = rows(2)
    wait.requested()
    wait.requested()
    clock.now_ns = 2_000_000
    wait.took(inner)
    wait.took(outer)
    device.reached_ns = 9_000_000
    wait.complete()
    assert told([inner, outer]) == [2_000_000, None]
    assert wait.entered(RunMeta()).not_observed == (), "nothing went wrong"


@pytest.mark.parametrize(("late_ms", "expected"), [(4.0, None), (1.0, 1_000_000)])
def test_a_loop_that_changed_its_stream_meanwhile(late_ms: float, expected: int | None) -> None:
    """The first event lies on a stream with work queued, the second on one without."""
    device, clock = made()
    wait = DeviceWait(device)
    (row,) = rows(1)
    wait.requested()
    device.made[-1].late_ns = round(late_ms * MS)
    clock.now_ns = 2_000_000
    wait.took(row)
    device.reached_ns = 2_000_000
    wait.complete()
    assert row.complete == (late_ms < 2), "the device has to pass both"
    device.reached_ns = 9_000_000
    wait.complete()
    assert told([row]) == [expected], "what ends before it begins is no wait"


def test_an_error_of_the_driver_turns_it_to_not_observed_once() -> None:
    device, _ = made()
    device.reached_ns = -1_000_000
    wait = DeviceWait(device)
    taken = rows(4)
    wait.requested()
    wait.took(taken[0])
    wait.requested()
    device.lose("CUDA error: device lost\nCompile with TORCH_USE_CUDA_DSA")
    wait.took(taken[1])
    for row in taken[2:]:
        wait.requested()
        wait.took(row)
    wait.complete()
    assert told(taken) == [None] * 4
    meta = wait.entered(RunMeta(accelerator=AcceleratorMeta(kind="none")))
    assert meta.not_observed == ("waits on the device's own clock: RuntimeError: CUDA error: device lost",)
    assert meta.accelerator.kind == "fake"


def test_only_the_device_that_the_program_uses_is_observed() -> None:
    device, _ = made(held=[0, 0, 0])
    wait = DeviceWait(device)
    taken = rows(9)
    for step, row in enumerate(taken):
        if step == 2:
            device.held = [0, 10, 4]
        wait.requested()
        wait.took(row)
    assert {event.stream.index for event in device.recorded if event.stream} == {1}, "else it opens a context"
    device.reached_ns = 1_000_000
    wait.complete()
    assert told(taken)[-1] is not None
    meta = wait.entered(RunMeta(accelerator=AcceleratorMeta(kind="none")))
    assert (meta.accelerator.device, meta.accelerator.uuid) == (1, "uuid-1")


def test_a_program_that_uses_no_device_is_told_of_none() -> None:
    device, _ = made(held=[0])
    wait = DeviceWait(device)
    for row in rows(20):
        wait.requested()
        wait.took(row)
        assert row.complete
    assert len(device.made) == 0
    meta = RunMeta(accelerator=AcceleratorMeta(kind="none"))
    assert wait.entered(meta) == meta


def test_a_stream_that_is_being_captured_is_left_alone() -> None:
    """An event would become part of the graph, and could not be asked any more."""
    device, _ = made(reached_ms=9.0)
    wait = DeviceWait(device)
    captured, plain = rows(2)
    with FakeGraph(device).capture():
        wait.requested()
        wait.took(captured)
    assert device.recorded == []
    wait.requested()
    wait.took(plain)
    wait.complete()
    assert told([captured, plain]) == [None, 0]
    assert wait.entered(RunMeta()).not_observed == (), "the observation goes on"


def test_a_device_without_timed_events_is_told_as_such() -> None:
    device, _ = made(reached_ms=9.0)
    device.timed = False
    wait = DeviceWait(device)
    taken = rows(2)
    for row in taken:
        wait.requested()
        wait.took(row)
    wait.complete()
    assert told(taken) == [None, None]
    (why,) = wait.entered(RunMeta()).not_observed
    assert why == "waits on the device's own clock: NotImplementedError: this backend's events take no time"


@pytest.fixture
def device() -> Iterator[FakeDevice]:
    """A device under a session's eyes, on which everything has passed at once."""
    there, _ = made(reached_ms=1e9)
    with installed(there):
        yield there


def test_what_the_device_passes_after_the_last_batch_is_told_at_the_end(
    device: FakeDevice, tmp_path: Path
) -> None:
    clock = device.clock
    assert isinstance(clock, VirtualClock)
    device.reached_ns = 1_000_000
    with Session(tmp_path / "run") as session:
        for _ in session.loader(cases.Squares(8), batch_size=2):
            clock.now_ns += MS
        device.reached_ns = clock.now_ns
    run = load(tmp_path / "run")
    assert run.table("steps")["device_wait_ns"].to_pylist() == [0, 0, 0, 0]
    assert run.meta.accelerator.name == "made 0"


class OverAnother(cases.Squares):
    """Takes its samples from another watched loader."""

    def __init__(self, inner: Any) -> None:
        super().__init__(4)
        self.inner = iter(inner)

    def __getitem__(self, index: int) -> Any:
        return next(self.inner)


def test_a_loader_inside_another_ends_nobodys_loop(device: FakeDevice, tmp_path: Path) -> None:
    with Session(tmp_path / "run") as session:
        inner = session.loader(cases.Squares(8), batch_size=1)
        assert len(list(session.loader(OverAnother(inner), batch_size=1))) == 4
    waits = load(tmp_path / "run").table("steps")["device_wait_ns"].to_pylist()
    assert waits == [0, None] * 4


def test_a_device_is_asked_for_at_each_of_the_first_steps_and_later_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []
    of_loop = steps.Steps(lambda *_, **__: None, 0, False, False)
    monkeypatch.setattr(steps, "device_in_use", lambda: asked.append(of_loop.taken))
    for number in range(steps.ASKED_EACH + 3 * steps.ASK_EVERY):
        of_loop.taken = number
        of_loop.requested(number + 1)
    first, later = range(steps.ASKED_EACH + 1), range(2)
    assert asked == [*first, *(steps.ASKED_EACH + (n + 1) * steps.ASK_EVERY for n in later)]
