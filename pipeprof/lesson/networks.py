"""Forward and backward time of the lecture's networks, on CPU and device, with cuDNN on and off (claim 7)."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Final

import torch
import torchvision
from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet

from pipeprof.measure.device.contract import Device

BATCH: Final = 16
"""The lecture's batch, after Johnson's cnn-benchmarks."""
SIDE: Final = 224


def _resnet200() -> nn.Module:
    # torchvision stops at 152; He et al. 2016 (identity mappings) have 3, 24, 36, 3 bottlenecks for 200.
    network: nn.Module = ResNet(Bottleneck, [3, 24, 36, 3])
    return network


LECTURE_NETWORKS: Final[dict[str, Callable[[], nn.Module]]] = {
    "vgg16": torchvision.models.vgg16,
    "vgg19": torchvision.models.vgg19,
    "resnet18": torchvision.models.resnet18,
    "resnet50": torchvision.models.resnet50,
    "resnet200": _resnet200,
}


@dataclass(frozen=True)
class MeasuredNetwork:
    """Median time of forward and backward on one batch, in ns."""

    network: str
    device: str
    cudnn: bool | None
    """None on a device that has no such library, as the CPU."""
    batch: int
    step_ns: float
    repeats: int


def time_network(
    network: str,
    device: Device | None = None,
    *,
    cudnn: bool | None = None,
    batch: int = BATCH,
    side: int = SIDE,
    repeats: int = 3,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> MeasuredNetwork:
    """Time `repeats` forward and backward passes of random images after one that warms up.

    The device, the CPU by default, is synchronised around each pass: launch and computation are both inside.
    """
    place = torch.device("cpu" if device is None else device.torch_name)
    model = LECTURE_NETWORKS[network]().to(place)
    images = torch.rand(batch, 3, side, side, device=place)
    labels = torch.randint(1000, (batch,), device=place)
    criterion = nn.CrossEntropyLoss()

    def one_pass() -> int:
        _wait(device)
        began = clock()
        model.zero_grad(set_to_none=True)
        criterion(model(images), labels).backward()
        _wait(device)
        return clock() - began

    with nullcontext() if device is None else device.libraries(cudnn is not False):
        one_pass()
        times = [one_pass() for _ in range(repeats)]
    kind = "cpu" if device is None else device.kind
    return MeasuredNetwork(network, kind, cudnn, batch, statistics.median(times), repeats)


def _wait(device: Device | None) -> None:
    if device is not None:
        device.synchronize()
