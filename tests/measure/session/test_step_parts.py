"""The parts of a step in somebody's own loop: hooks on model, gradients, optimisers and collectives."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from time import monotonic_ns
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import pipeprof
from pipeprof.analyse.resources.makeup import read_makeup
from pipeprof.errors import MeasureError
from pipeprof.measure.device.here import installed
from pipeprof.measure.session.steps.parts import StepParts
from pipeprof.record.reader import load
from pipeprof.record.step_times import PartTimes
from tests.fake_device import MS, FakeDevice, FakeGraph, VirtualClock
from tests.forked import Program
from tests.measure.session import loader_cases as cases


class Net(nn.Module):
    """Two outputs, of which a loss may use one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = self.first(x).relu()
        return {"out": self.second(hidden), "hidden": hidden}


class Loop:
    """A model and its optimiser; the parts that were told."""

    def __init__(self, model: nn.Module | None = None, clock: Callable[[], int] = monotonic_ns) -> None:
        self.model = Net() if model is None else model
        self.optimizer = torch.optim.AdamW(self.model.parameters())
        self.told: list[PartTimes] = []
        self.parts = StepParts(self.model, self.told.extend, clock)

    def step(self, number: int, accumulate: int = 1) -> None:
        self.parts.took(number)
        for _ in range(accumulate):
            self.model(torch.ones(3, 4))["out"].square().mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def end(self) -> list[str]:
        self.parts.remove()
        self.parts.complete()
        assert all(part.end_ns >= part.start_ns for part in self.told)
        for before, after in pairwise(self.told):
            assert after.start_ns >= before.end_ns
        return [part.part for part in self.told]


@pytest.fixture
def device() -> Iterator[FakeDevice]:
    there = FakeDevice()
    with installed(there):
        yield there


def test_a_step_is_forward_backward_and_optimiser() -> None:
    loop = Loop()
    for number in range(3):
        loop.step(number)
    assert loop.end() == ["forward", "backward", "optimizer"] * 3
    assert [part.step for part in loop.told] == [0] * 3 + [1] * 3 + [2] * 3
    loop.step(3)
    assert len(loop.told) == 9, "nothing is marked any more"


def test_on_a_device_the_parts_are_of_its_own_clock() -> None:
    clock = VirtualClock()
    device = FakeDevice(clock)
    with installed(device):
        loop = Loop(clock=clock)
        busy_until = device.launch(20 * MS)  # what was there before delays them all
        loop.step(0)
        loop.parts.took(1)
        assert loop.told == [], "the device has not come to it"
        device.synchronize()
        assert loop.end() == ["forward", "backward", "optimizer"]
    assert abs(loop.told[0].start_ns - busy_until) < 1_000


def test_accumulated_gradients_are_forwards_and_backwards_before_one_update() -> None:
    loop = Loop()
    loop.step(0, accumulate=3)
    assert loop.end() == ["forward", "backward"] * 3 + ["optimizer"]


def test_mixed_precision_with_a_scaler_is_seen_as_it_is() -> None:
    loop = Loop()
    scaler = torch.amp.GradScaler("cpu")
    loop.parts.took(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = loop.model(torch.ones(3, 4))["out"].float().square().mean()
    scaler.scale(loss).backward()
    scaler.step(loop.optimizer)
    scaler.update()
    assert loop.end() == ["forward", "backward", "optimizer"]


def test_a_pass_without_gradients_is_a_forward_alone() -> None:
    loop = Loop()
    loop.parts.took(0)
    with torch.no_grad():
        loop.model(torch.ones(3, 4))
    assert loop.end() == ["forward"]


def test_collectives_that_the_loop_calls_lie_between(monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.distributed.is_available():
        pytest.skip("this torch has no torch.distributed")
    called: list[Any] = []
    monkeypatch.setattr(
        torch.distributed, "all_reduce", lambda tensor, async_op=False: called.append(async_op)
    )
    plain = torch.distributed.all_reduce
    loop = Loop()
    loop.parts.took(0)
    loop.model(torch.ones(3, 4))["out"].sum().backward()
    torch.distributed.all_reduce(torch.zeros(1))
    torch.distributed.all_reduce(torch.zeros(1), async_op=True)
    loop.optimizer.step()
    assert loop.end() == ["forward", "backward", "collectives", "optimizer"]
    assert called == [False, True]
    assert torch.distributed.all_reduce is plain


def test_in_a_graph_that_is_captured_nothing_is_marked(device: FakeDevice) -> None:
    loop = Loop()
    with FakeGraph(device).capture():
        loop.step(0)
    loop.step(1)
    device.synchronize()
    assert loop.end() == ["forward", "backward", "optimizer"]
    assert {part.step for part in loop.told} == {1}
    assert loop.parts.why_not is None


def test_a_device_that_is_lost_ends_the_marks_and_not_the_loop(device: FakeDevice) -> None:
    loop = Loop()
    loop.step(0)
    device.lose()
    loop.step(1)
    assert loop.end() == []
    assert loop.parts.why_not == "RuntimeError: device lost"


def test_without_timed_events_it_says_so(device: FakeDevice) -> None:
    device.timed = False
    loop = Loop()
    loop.step(0)
    assert loop.end() == []
    assert loop.parts.why_not == "RuntimeError: fake has no timed events: this backend's events take no time"


def test_gradients_are_the_same_with_marks_and_without() -> None:
    torch.manual_seed(0)
    marked, plain = Net(), Net()
    plain.load_state_dict(marked.state_dict())
    parts = StepParts(marked, lambda told: None)
    for model in (marked, plain):
        model(torch.ones(3, 4))["out"].square().mean().backward()
    parts.remove()
    for one, two in zip(marked.parameters(), plain.parameters(), strict=True):
        assert one.grad is not None
        assert torch.equal(one.grad, two.grad)
    assert not marked._forward_hooks
    assert not marked._forward_pre_hooks


@pytest.mark.heavy
def test_a_compiled_model_is_marked_and_its_graph_is_whole(tmp_path: Path) -> None:
    def main() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compiled = torch.compile(Net(), backend="aot_eager", fullgraph=True)
            loop = Loop(compiled)
            for number in range(3):
                loop.step(number)
        assert loop.end() == ["forward", "backward", "optimizer"] * 3

    done = Program(main, tmp_path).finished()
    assert done.returncode == 0, done.stderr


def test_the_wrapper_marks_parts_on_request(tmp_path: Path) -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader: DataLoader[Any] = DataLoader(cases.Squares(12), batch_size=2)
    with pipeprof.profile(loader, out=tmp_path / "run", parts_of=model) as batches:
        for _ in batches:
            model(torch.ones(3, 4))["out"].sum().backward()
            optimizer.step()
    makeup = read_makeup(load(tmp_path / "run"))
    assert [part.name for part in makeup.parts] == ["forward", "backward", "optimizer"]
    assert makeup.steps == 6
    assert sum(part.share for part in makeup.parts) == pytest.approx(1)
    with pipeprof.profile(loader, out=tmp_path / "plain") as batches:
        for _ in batches:
            model(torch.ones(3, 4))
    assert read_makeup(load(tmp_path / "plain")).parts == ()


def test_what_is_no_model_is_one_error_and_leaves_nothing(tmp_path: Path) -> None:
    loader: DataLoader[Any] = DataLoader(cases.Squares(4), batch_size=2)
    with (
        pytest.raises(MeasureError, match=r"parts_of is a function, and no torch\.nn\.Module"),
        pipeprof.profile(loader, out=tmp_path / "run", parts_of=lambda x: x),  # type: ignore[arg-type]
    ):
        pass
    assert not (tmp_path / "run").exists()
