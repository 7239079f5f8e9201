"""Finds the device of this machine and program."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch

from pipeprof.measure.device.any_device import TorchDevice
from pipeprof.measure.device.contract import Device

ASKS_DRIVER: Final = (
    "check_available" not in inspect.signature(torch.accelerator.current_accelerator).parameters
)
"""True for torch 2.6, which asks the driver where later ones know what they were built for: a program that
forks after that cannot use CUDA in the child."""

_installed: Final[list[Device]] = []


@contextmanager
def installed(device: Device) -> Iterator[None]:
    """Take `device` for the machine's own while the block lasts, as tests do with one that they made."""
    _installed.append(device)
    try:
        yield
    finally:
        _installed.remove(device)


def built_for() -> Device | None:
    """Return the device that this torch can compute on, there or not. Asks no driver and opens nothing."""
    if _installed:
        return _installed[-1]
    name = torch.accelerator.current_accelerator()
    return None if name is None else _made(name.type)


@functools.cache
def _made(name: str) -> Device:
    if name == "cuda":
        from pipeprof.measure.device.cuda import CudaDevice

        return CudaDevice()
    if name == "mps":
        from pipeprof.measure.device.mps import MpsDevice

        return MpsDevice()
    return TorchDevice(name)


def available_device() -> Device | None:
    """Return the device that this machine has; None if torch sees none. Asks the driver."""
    device = built_for()
    if device is None or _installed:
        return device
    return device if torch.accelerator.is_available() else None


def device_in_use() -> Device | None:
    """Return the device that the program computes on by now; None if it has touched none."""
    if ASKS_DRIVER and not _installed and not any(map(_is_initialised, ("cuda", "xpu"))):
        return None
    device = built_for()
    return device if device is not None and device.in_use() else None


def _is_initialised(name: str) -> bool:
    return bool(torch.get_device_module(name).is_initialized())


def device_name(index: int | None = None) -> str | None:
    """Return the name of a device, by default of the current one; None if there is none."""
    device = available_device()
    return None if device is None else device.facts(device.index() if index is None else index).name
