"""Times that a device tells of its steps, and the unmasked wait between two CUDA events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import loader_cases as cases

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
            session.flush()
            assert session.live().samples == 2 * step
    steps = load(tmp_path / "run").table("steps").to_pylist()
    assert [row["launch_ns"] for row in steps] == [1000, 1001, 1002, 1003]
    assert [row["compute_end_ns"] for row in steps] == [4, 4, 4, None]
    assert [row["warmup"] for row in steps] == [True, False, False, False]


class FakeCuda:
    """A stream whose clock the test moves; an event is reached when the stream has come to it."""

    def __init__(self) -> None:
        self.now_ms = 0.0
        self.reached_ms = 0.0
        self.events = 0

    def Event(self, enable_timing: bool) -> Any:  # noqa: N802 - torch's name
        assert enable_timing
        self.events += 1
        return FakeEvent(self)


class FakeEvent:
    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda = cuda

    def record(self) -> None:
        self.at_ms = self.cuda.now_ms

    def query(self) -> bool:
        return self.at_ms <= self.cuda.reached_ms

    def elapsed_time(self, other: FakeEvent) -> float:
        return other.at_ms - self.at_ms


def test_the_wait_between_two_events() -> None:
    cuda = FakeCuda()
    wait = DeviceWait(cuda)
    rows: list[Any] = [object(), object()]
    wait.requested()
    cuda.now_ms = 2.5
    wait.took(rows[0])
    wait.requested()
    cuda.now_ms = 4.0
    wait.requested()  # the epoch had ended: the wait goes on
    cuda.now_ms = 5.0
    wait.took(rows[1])
    assert wait.told() == []
    cuda.reached_ms = 3.0
    assert wait.told() == [(rows[0], 2_500_000)]
    cuda.reached_ms = 9.0
    assert wait.told() == [(rows[1], 2_500_000)]
    assert cuda.events == 4
    wait.requested()
    assert cuda.events == 4, "events are used again"
