"""What the items run on a device: a step of few long kernels, runs of the bench, and other processes."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeprof.analyse.analysis import Analysis, analyse
from pipeprof.measure.accelerator.device import DeviceAccelerator
from pipeprof.measure.bench.run import run
from pipeprof.measure.device.contract import Device
from pipeprof.record.reader import load
from pipeprof.record.step_times import StepTimes
from pipeprof.scenario import Scenario
from tests.fake_device import FakeDevice, RealClock, VirtualClock
from tests.gpu.day import Place

FAKE_STEP_NS = 4_000_000


class Multiplications:
    """A step of few kernels, each of which takes long: between them the device is never idle."""

    SIDE, COUNT = 4096, 20

    def __init__(self, device: Device) -> None:
        self.device = device
        self.side = 8 if isinstance(device, FakeDevice) else self.SIDE
        self.weight = torch.eye(self.side, device=device.torch_name)

    def mark(self, part: str) -> None: ...

    def prepare(self, batch: torch.Tensor) -> tuple[torch.Tensor, None]:
        return batch, None

    def step(self, inputs: torch.Tensor, targets: None) -> None:
        if isinstance(self.device, FakeDevice):
            self.device.launch(FAKE_STEP_NS)
            return
        for _ in range(self.COUNT):
            inputs = inputs @ self.weight


class Training:
    """A loop on the device. What happens once, such as loading kernels, has happened when it is made."""

    WARM_UP = 5

    def __init__(self, device: Device, **options: Any) -> None:
        work: Any = Multiplications(device)
        self.clock = device.clock if isinstance(device, FakeDevice) else RealClock()
        self.accelerator = DeviceAccelerator(work, device, clock=self.clock, **options)
        made = torch.zeros(work.side, work.side)
        self.batch = device.pin(made) if device.pins else made
        self.step_s = 0.0
        warm = self.train(self.WARM_UP)[-1]
        self.step_s = (warm.compute_end_ns - warm.copy_start_ns) / 1e9  # type: ignore[operator]

    def train(self, steps: int, load_share: float = 0.0) -> list[StepTimes]:
        """Train steps whose batches take `load_share` of a step's time to come."""
        told = []
        for step in range(steps):
            self.accelerator.request(step)
            self.clock.wait_until(self.clock() + round(load_share * self.step_s * 1e9))
            self.accelerator.submit(step, self.batch)
            told += self.accelerator.finished()
        self.accelerator.synchronize()
        return told + self.accelerator.finished()


def timed(place: Place) -> Device:
    """Return the device; for the one that is not there, one in virtual time, where bounds are exact."""
    return FakeDevice(VirtualClock(), pinned=True, drift=20e-6) if place.small else place.device


@dataclass
class Busy:
    """Union of the intervals in which the device worked, from its first work to its last."""

    share: float = 0.0
    pieces: int = 0


@contextmanager
def traced(device: Device) -> Iterator[Busy]:
    """Trace what the device does while the block lasts: by torch.profiler, or from the fake's own account."""
    busy = Busy()
    if isinstance(device, FakeDevice):
        before = len(device.work)
        yield busy
        work = [(piece.start_ns, piece.end_ns) for piece in device.work[before:]]
    else:
        from torch.profiler import ProfilerActivity, profile

        activity = getattr(ProfilerActivity, device.torch_name.upper())
        with profile(activities=[activity]) as trace:
            yield busy
        work = [
            (event.time_range.start, event.time_range.end)
            for event in trace.events()
            if event.device_type != torch.autograd.DeviceType.CPU and not event.is_user_annotation
        ]
    work.sort()
    total, free_from = 0.0, work[0][0]
    for start, end in work:
        total += max(0.0, end - max(start, free_from))
        free_from = max(free_from, end)
    busy.share, busy.pieces = total / (free_from - work[0][0]), len(work)


def bench(place: Place, name: str, **parts: dict[str, Any]) -> Analysis:
    """Run a scenario on the device, and return what it came to."""
    whole: dict[str, Any] = {
        "data": {"format": "tensor_files", "samples": 64, "sample_bytes": 12288},
        "storage": {"tier": "ram", "keep": "decoded"},
        "loader": {"batch_size": 8, "workers": 0},
        "accelerator": {"kind": "device"},
        "model": {"name": "two_layer_net"},
        "run": {"steps": 30 if place.small else 120, "warmup_steps": 5, "telemetry_hz": 0},
    }
    for key, part in parts.items():
        whole[key] = {**whole.get(key, {}), **part}
    scenario = Scenario.model_validate({"name": name, **whole})
    return analyse(load(run(scenario, place.directory / name)))


def cycle_ms(found: Analysis) -> float:
    """Return the milliseconds of a measured step, from one's end to the next."""
    said = found.verdict.as_dict()
    return float(said["wall_ns"]) / 1e6 / (found.timeline.measured.sum())


def forked(main: Callable[[], Any], output: Path, limit_s: float) -> str:
    """Run `main` in a copy of this process, and return its output. Raises where it fails or takes too long.

    The copy may open the device: whoever calls must not have done so.
    """
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            out = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 1)
            sys.stdout = open(1, "w", closefd=False, buffering=1)  # noqa: SIM115
            main()
            code = 0
        except SystemExit as left:
            code = int(left.code or 0) if isinstance(left.code, int | None) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
            os._exit(code)
    deadline = time.monotonic() + limit_s
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        if time.monotonic() > deadline:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            raise RuntimeError(f"{output.name} took more than {limit_s:.0f} s")
        time.sleep(0.01)
    text = output.read_text()
    if status:
        raise RuntimeError(f"{output.name} ended with {os.waitstatus_to_exitcode(status)}")
    return text
