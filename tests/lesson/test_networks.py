"""The lecture's networks run forward and backward; a device is measured only where there is one."""

from __future__ import annotations

import pytest
import torch

from pipeprof.lesson.networks import LECTURE_NETWORKS, time_network
from pipeprof.measure.device.here import available_device


@pytest.mark.slow
def test_one_network_is_timed_with_the_clock_handed_in() -> None:
    times = iter(range(0, 10**6, 50))
    timed = time_network("resnet18", batch=2, side=32, repeats=2, clock=lambda: next(times))
    assert (timed.step_ns, timed.device, timed.cudnn, timed.repeats) == (50, "cpu", None, 2)


@pytest.mark.slow
def test_resnet200_has_two_hundred_layers() -> None:
    layers = [
        m
        for m in LECTURE_NETWORKS["resnet200"]().modules()
        if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)
    ]
    shortcuts = 4  # one projection a group, not counted as depth
    assert len(layers) - shortcuts == 200


@pytest.mark.gpu
@pytest.mark.skipif(available_device() is None, reason="torch sees no device here")
def test_cudnn_can_be_turned_off() -> None:
    assert time_network("resnet18", available_device(), cudnn=False, batch=2, repeats=1).step_ns > 0
