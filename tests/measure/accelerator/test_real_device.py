"""Events, and the options of the bench, on a real device: `pytest -m gpu` where there is one."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeprof.measure.accelerator.device import DeviceAccelerator
from pipeprof.measure.accelerator.make import make_accelerator
from pipeprof.measure.accelerator.workload import Workload
from pipeprof.measure.bench.run import run
from pipeprof.measure.device.here import available_device
from pipeprof.record.reader import load
from pipeprof.record.step_times import StepTimes
from pipeprof.scenario import AcceleratorPart, ModelPart, Scenario

DEVICE: Any = available_device()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(DEVICE is None, reason="torch sees no device here")]


@pytest.mark.parametrize("prefetch", [False, True])
def test_real_events_lie_in_the_order_of_a_stream(prefetch: bool) -> None:
    times = RealDevice(prefetch_to_device=prefetch).train(20)
    assert [t.step for t in times] == list(range(20))
    for before, now in pairwise(times):
        assert now.copy_start_ns <= now.copy_end_ns <= now.compute_end_ns  # type: ignore[operator]
        assert now.compute_start_ns >= before.compute_end_ns  # type: ignore[operator]


def test_real_stall_is_the_loaders_delay_less_what_the_step_covers() -> None:
    times = RealDevice().train(20, load_share=1.5)
    cycle = times[-1].compute_end_ns - times[5].compute_end_ns  # type: ignore[operator]
    waited = sum(t.device_wait_ns for t in times[6:])  # type: ignore[misc]
    busy = sum(t.compute_end_ns - t.copy_start_ns for t in times[6:])  # type: ignore[operator]
    assert waited > 0.2 * cycle
    assert waited + busy == pytest.approx(cycle, rel=0.02)


@pytest.mark.parametrize("load_share", [0.5, 1.5])
def test_stall_by_events_agrees_with_torchs_profiler_within_two_points(load_share: float) -> None:
    from torch.profiler import ProfilerActivity, profile

    real = RealDevice()
    with profile(activities=[getattr(ProfilerActivity, DEVICE.torch_name.upper())]) as trace:
        times = real.train(30, load_share)
    work = sorted(
        (event.time_range.start, event.time_range.end)
        for event in trace.events()
        if event.device_type != torch.autograd.DeviceType.CPU and not event.is_user_annotation
    )
    busy_us, free_from = 0.0, work[0][0]
    for start, end in work:
        busy_us += max(0.0, end - max(start, free_from))
        free_from = max(free_from, end)
    idle = 1 - busy_us / (free_from - work[0][0])
    span = times[-1].compute_end_ns - times[0].copy_start_ns  # type: ignore[operator]
    stall = sum(t.device_wait_ns for t in times[1:]) / span  # type: ignore[misc]
    assert stall == pytest.approx(idle, abs=0.02)
    assert (idle > 0.2) == (load_share > 1), "or there is nothing to agree on"


class Multiplications:
    """A step of few kernels, each of which takes long: between them the device is never idle."""

    SIDE, COUNT = 4096, 20

    def __init__(self) -> None:
        self.weight = torch.eye(self.SIDE, device=DEVICE.torch_name)

    def prepare(self, batch: torch.Tensor) -> tuple[torch.Tensor, None]:
        return batch, None

    def mark(self, part: str) -> None: ...

    def step(self, inputs: torch.Tensor, targets: None) -> None:
        for _ in range(self.COUNT):
            inputs = inputs @ self.weight


class RealDevice:
    """The real device. What happens once, such as loading kernels, has happened when it is made."""

    WARM_UP = 5

    def __init__(self, **options: Any) -> None:
        self.accelerator = DeviceAccelerator(Multiplications(), DEVICE, **options)  # type: ignore[arg-type]
        self.batch = torch.zeros(Multiplications.SIDE, Multiplications.SIDE).pin_memory()
        self.step_s = 0.0
        warm = self.train(self.WARM_UP)[-1]
        self.step_s = (warm.compute_end_ns - warm.copy_start_ns) / 1e9  # type: ignore[operator]

    def train(self, steps: int, load_share: float = 0.0) -> list[StepTimes]:
        """Steps whose batches take `load_share` of a step's time to come."""
        told = []
        for step in range(steps):
            self.accelerator.request(step)
            time.sleep(load_share * self.step_s)
            self.accelerator.submit(step, self.batch)
            told += self.accelerator.finished()
        self.accelerator.synchronize()
        return told + self.accelerator.finished()


@pytest.mark.parametrize("option", ["compile", "amp", "channels_last", "without cudnn"])
def test_options_reach_a_real_device(option: str) -> None:
    options = {"cudnn": False} if option == "without cudnn" else {option: True}
    part = AcceleratorPart(kind="device", **options)  # type: ignore[arg-type]
    model = ModelPart(name="resnet18", classes=10)
    accelerator = make_accelerator(Scenario(name="test", model=model, accelerator=part))
    work: Workload = accelerator.workload  # type: ignore[attr-defined]
    outputs: list[torch.dtype] = []
    cudnn: list[bool] = []
    network, loss = work.network, work._loss
    network.conv1.register_forward_hook(lambda *_: cudnn.append(torch.backends.cudnn.enabled))  # type: ignore[union-attr]
    work._loss = lambda output, targets: (outputs.append(output.dtype), loss(output, targets))[1]  # type: ignore[func-returns-value,method-assign]
    for step in range(3):
        accelerator.submit(step, (torch.zeros(8, 3, 64, 64), torch.zeros(8, dtype=torch.long)))
    accelerator.synchronize()
    assert [told.step for told in accelerator.finished()] == [0, 1, 2]
    weights = network.conv1.weight  # type: ignore[union-attr]
    assert (work._forward is not network) == (option == "compile")
    assert set(outputs) == {torch.bfloat16 if option == "amp" else torch.float32}
    assert weights.is_contiguous(memory_format=torch.channels_last) == (option == "channels_last")  # type: ignore[union-attr,operator]
    assert option == "compile" or set(cudnn) == {option != "without cudnn"}


def test_a_whole_run_trains_on_the_device_without_cudnn_and_pins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPEPROF_CACHE", str(tmp_path / "cache"))
    scenario = Scenario.model_validate(
        {
            "name": "real",
            "data": {"format": "tensor_files", "samples": 64, "sample_bytes": 4000},
            "storage": {"tier": "pinned"},
            "loader": {"batch_size": 4, "workers": 2},
            "accelerator": {"kind": "device", "cudnn": False},
            "run": {"steps": 40, "warmup_steps": 5},
        }
    )
    found = load(run(scenario, tmp_path / "run"))
    steps = found.table("steps").to_pylist()
    assert all(row["compute_end_ns"] > row["compute_start_ns"] for row in steps)
    assert found.meta.loaders[0].pin_memory is True
    assert found.meta.accelerator.uuid
    assert found.meta.model.cudnn is False
