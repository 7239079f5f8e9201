"""Loops as people write them, on a device that is not there: what the wrapper makes of their waits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

import pipeprof
from pipeprof.analyse.analysis import load
from pipeprof.measure.device.here import installed
from tests.fake_device import MS, FakeDevice, FakeGraph

STEP_NS, LOAD_S = 4 * MS, 0.004


class Slow(torch.utils.data.Dataset[torch.Tensor]):
    """Each sample takes its time to come."""

    def __init__(self, count: int, load_s: float = LOAD_S) -> None:
        self.count, self.load_s = count, load_s

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> torch.Tensor:
        import time

        time.sleep(self.load_s)
        return torch.zeros(8)


@pytest.fixture
def device() -> Iterator[FakeDevice]:
    there = FakeDevice(drift=-30e-6)
    with installed(there):
        yield there


def observed(device: FakeDevice, out: Path, step: Callable[[int, Any], None], load_s: float = LOAD_S) -> Any:
    loader: DataLoader[Any] = DataLoader(Slow(40, load_s), batch_size=1)
    with pipeprof.profile(loader, out=out) as batches:
        for number, batch in enumerate(batches):
            step(number, batch)
        device.synchronize()
    return load(out)


def told(found: Any) -> tuple[float, str]:
    said = found.verdict.as_dict()
    waits = found.run.table("steps")["device_wait_ns"].to_pylist()
    assert None not in waits[1:]
    return sum(waits[1:]), said["utilization_kind"]


def idle_ns(device: FakeDevice, since: int) -> int:
    """How long the device stood idle between its first piece of work and its last, from piece `since` on."""
    work = sorted(device.work, key=lambda piece: piece.start_ns)[since:]
    start, end = work[0].start_ns, max(piece.end_ns for piece in work)
    return end - start - device.busy_ns(start, end)


def test_a_wait_that_the_device_covers_is_none(device: FakeDevice, tmp_path: Path) -> None:
    found = observed(device, tmp_path / "run", lambda number, batch: device.launch(STEP_NS) and None, 0.001)
    waited, kind = told(found)
    assert kind == "device-events"
    assert waited == pytest.approx(idle_ns(device, 0), abs=2 * MS)


def test_accumulated_gradients_are_steps_of_the_loop_with_and_without_an_update(
    device: FakeDevice, tmp_path: Path
) -> None:
    def step(number: int, batch: Any) -> None:
        device.launch(STEP_NS // 8)
        if number % 4 == 3:
            device.launch(STEP_NS, name="update")

    waited, _ = told(observed(device, tmp_path / "run", step))
    assert waited == pytest.approx(idle_ns(device, 0), rel=0.15)
    assert waited > 10 * MS


def test_work_on_other_streams_is_waited_for_through_the_current_one(
    device: FakeDevice, tmp_path: Path
) -> None:
    side = device.new_stream()

    def step(number: int, batch: Any) -> None:
        with device.on(side):
            device.launch(STEP_NS, side)
            done = device.event()
            done.record(side)
        device.current_stream().wait_event(done)
        device.launch(MS // 10)

    waited, _ = told(observed(device, tmp_path / "run", step, 0.001))
    assert waited == pytest.approx(idle_ns(device, 0), abs=4 * MS)


def test_a_replayed_graph_is_work_like_any(device: FakeDevice, tmp_path: Path) -> None:
    graph = FakeGraph(device)
    with graph.capture():
        device.launch(STEP_NS // 8)
        device.launch(STEP_NS // 8)
    waited, kind = told(observed(device, tmp_path / "run", lambda number, batch: graph.replay()))
    assert kind == "device-events"
    assert waited == pytest.approx(idle_ns(device, 0), rel=0.15)


def test_a_device_that_is_lost_ends_the_observation_and_not_the_loop(
    device: FakeDevice, tmp_path: Path
) -> None:
    seen = 0

    def step(number: int, batch: Any) -> None:
        nonlocal seen
        seen += 1
        if number == 20:
            device.lose("device lost")
            device.synchronize = lambda: None  # type: ignore[method-assign]

    found = observed(device, tmp_path / "run", step, load_s=0.0005)
    assert seen == 40
    waits = found.run.table("steps")["device_wait_ns"].to_pylist()
    assert waits[-1] is None
    assert "waits on the device's own clock: RuntimeError: device lost" in found.run.meta.not_observed
