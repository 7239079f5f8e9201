"""Times that a device tells of its steps, and the unmasked wait between two CUDA events."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import loader_cases as cases
import pytest

from pipeprof.measure.accelerator import StepTimes
from pipeprof.measure.loop import DeviceWait
from pipeprof.measure.session import Session
from pipeprof.trace import load


def test_a_step_waits_for_its_device_times(tmp_path: Path) -> None:
    with Session(tmp_path / "run", "bench", warmup_steps=1, device=True) as session:
        for _ in session.loader(cases.Squares(8), batch_size=2):
            step = session.steps_taken - 1
            session.step_launched(step, 1000 + step)
            if step >= 1:
                session.device_times([StepTimes(step - 1, 1, 2, 3, 4, 5)])
            assert session.summary()["samples"] == 2 * step
    steps = load(tmp_path / "run").table("steps").to_pylist()
    assert [row["launch_ns"] for row in steps] == [1000, 1001, 1002, 1003]
    assert [row["compute_end_ns"] for row in steps] == [4, 4, 4, None]
    assert [row["warmup"] for row in steps] == [True, False, False, False]


class FakeCuda:
    """Devices whose streams have one clock, moved by the test; an event has passed when it is as late."""

    def __init__(self, held: list[int] | None = None) -> None:
        self.held = [1] if held is None else held
        self.now_ms = 0.0
        self.reached_ms = 0.0
        self.events = 0
        self.opened: set[int] = set()
        self.broken: Exception | None = None

    def Event(self, enable_timing: bool) -> Any:  # noqa: N802 - torch's name
        assert enable_timing
        self.events += 1
        return FakeEvent(self)

    def is_initialized(self) -> bool:
        return True

    def device_count(self) -> int:
        return len(self.held)

    def memory_allocated(self, device: int) -> int:
        return self.held[device]

    def current_stream(self, device: int) -> int:
        return device

    def get_device_properties(self, device: int) -> Any:
        return SimpleNamespace(name=f"made {device}", uuid=f"uuid-{device}")


class FakeEvent:
    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda = cuda
        self.late_ms = 0.0

    def record(self, stream: int) -> None:
        if self.cuda.broken is not None:
            raise self.cuda.broken
        self.cuda.opened.add(stream)
        self.at_ms = self.cuda.now_ms

    def query(self) -> bool:
        return self.at_ms + self.late_ms <= self.cuda.reached_ms

    def elapsed_time(self, other: FakeEvent) -> float:
        assert self.query() and other.query(), "CUDA raises for an event that has not passed"
        return other.at_ms + other.late_ms - self.at_ms - self.late_ms


def rows(count: int) -> list[Any]:
    return [SimpleNamespace(step=step, device=None, complete=False) for step in range(count)]


def told(found: list[Any]) -> list[int | None]:
    assert all(row.complete for row in found)
    return [row.device and row.device.device_wait_ns for row in found]


def test_the_wait_between_two_events() -> None:
    cuda = FakeCuda()
    wait = DeviceWait(cuda)
    taken = rows(2)
    wait.requested()
    cuda.now_ms = 2.5
    wait.took(taken[0])
    wait.requested()
    cuda.now_ms = 4.0
    wait.requested()  # the epoch had ended: the wait goes on
    cuda.now_ms = 5.0
    wait.took(taken[1])
    assert not taken[0].complete
    cuda.reached_ms = 3.0
    wait.tell()
    assert told(taken[:1]) == [2_500_000]
    assert not taken[1].complete
    cuda.reached_ms = 9.0
    wait.tell()
    assert told(taken) == [2_500_000, 2_500_000]
    assert cuda.events == 4
    wait.requested()
    assert cuda.events == 4, "events are used again"


def test_a_wait_inside_a_wait_ends_it() -> None:
    cuda = FakeCuda()
    wait = DeviceWait(cuda)
    inner, outer = rows(2)
    wait.requested()
    wait.requested()
    cuda.now_ms = 2.0
    wait.took(inner)
    wait.took(outer)
    cuda.reached_ms = 9.0
    wait.tell()
    assert told([inner, outer]) == [2_000_000, None]
    assert wait._why_not is None


@pytest.mark.parametrize(("late_ms", "expected"), [(4.0, None), (1.0, 1_000_000)])
def test_a_loop_that_changed_its_stream_meanwhile(late_ms: float, expected: int | None) -> None:
    """The first event lies on a stream with work queued, the second on one without."""
    cuda = FakeCuda()
    wait = DeviceWait(cuda)
    (row,) = rows(1)
    wait.requested()
    wait._asked.late_ms = late_ms
    cuda.now_ms = 2.0
    wait.took(row)
    cuda.reached_ms = 2.0
    wait.tell()
    assert row.complete == (late_ms < 2), "the device has to pass both"
    cuda.reached_ms = 9.0
    wait.tell()
    assert told([row]) == [expected], "what ends before it begins is no wait"


def test_an_error_of_the_driver_turns_it_to_not_observed_once() -> None:
    cuda = FakeCuda()
    cuda.reached_ms = -1.0
    wait = DeviceWait(cuda)
    taken = rows(4)
    wait.requested()
    wait.took(taken[0])
    wait.requested()
    cuda.broken = RuntimeError("CUDA error: device lost\nCompile with TORCH_USE_CUDA_DSA")
    wait.took(taken[1])
    for row in taken[2:]:
        wait.requested()
        wait.took(row)
    wait.tell()
    assert told(taken) == [None] * 4
    meta: dict[str, Any] = {"accelerator": {"kind": "none"}, "not_observed": []}
    wait.enter(meta)
    assert meta["not_observed"] == ["waits on the device's own clock: RuntimeError: CUDA error: device lost"]
    assert meta["accelerator"]["kind"] == "cuda"


def test_only_the_device_that_the_program_uses_is_observed() -> None:
    cuda = FakeCuda(held=[0, 0, 0])
    wait = DeviceWait(cuda)
    taken = rows(9)
    for step, row in enumerate(taken):
        if step == 2:
            cuda.held = [0, 10, 4]
        wait.requested()
        wait.took(row)
    assert cuda.opened == {1}, "an event opens a context where there is none"
    cuda.reached_ms = 1.0
    wait.tell()
    assert told(taken)[-1] is not None
    meta: dict[str, Any] = {"accelerator": {"kind": "none"}, "not_observed": []}
    wait.enter(meta)
    assert (meta["accelerator"]["device"], meta["accelerator"]["uuid"]) == (1, "uuid-1")


def test_a_program_that_uses_no_device_is_told_of_none() -> None:
    cuda = FakeCuda(held=[0])
    wait = DeviceWait(cuda)
    for row in rows(20):
        wait.requested()
        wait.took(row)
        assert row.complete
    assert cuda.events == 0
    meta: dict[str, Any] = {"accelerator": {"kind": "none"}, "not_observed": []}
    wait.enter(meta)
    assert meta == {"accelerator": {"kind": "none"}, "not_observed": []}


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    """A made-up device on which everything has passed at once, under a session's eyes."""
    made = FakeCuda()
    made.reached_ms = 1e9
    monkeypatch.setattr("pipeprof.measure.session.torch", SimpleNamespace(cuda=made))
    return made


def test_what_the_device_passes_after_the_last_batch_is_told_at_the_end(
    cuda: FakeCuda, tmp_path: Path
) -> None:
    cuda.reached_ms = 1.0
    with Session(tmp_path / "run") as session:
        for _ in session.loader(cases.Squares(8), batch_size=2):
            cuda.now_ms += 1
        cuda.reached_ms = cuda.now_ms
    run = load(tmp_path / "run")
    assert run.table("steps")["device_wait_ns"].to_pylist() == [0, 0, 0, 0]
    assert run.meta["accelerator"]["name"] == "made 0"


class OverAnother(cases.Squares):
    """Takes its samples from another watched loader."""

    def __init__(self, inner: Any) -> None:
        super().__init__(4)
        self.inner = iter(inner)

    def __getitem__(self, index: int) -> Any:
        return next(self.inner)


def test_a_loader_inside_another_ends_nobodys_loop(cuda: FakeCuda, tmp_path: Path) -> None:
    with Session(tmp_path / "run") as session:
        inner = session.loader(cases.Squares(8), batch_size=1)
        assert len(list(session.loader(OverAnother(inner), batch_size=1))) == 4
    waits = load(tmp_path / "run").table("steps")["device_wait_ns"].to_pylist()
    assert waits == [0, None] * 4
