"""The sensor of this machine's devices: NVML's, amdsmi's, or else the memory that torch says it holds."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from pipeprof.measure.host.sensors.amd import AmdGpus
from pipeprof.measure.host.sensors.contract import Plain, Sensor
from pipeprof.measure.host.sensors.nvml import Gpus, NoGpuError
from pipeprof.record.names.sensors import SensorName, of_gpu

if TYPE_CHECKING:
    from pipeprof.measure.device.contract import Device


def device_sensor(nvidia: Callable[[], Sensor] = Gpus, amd: Callable[[], Sensor] = AmdGpus) -> Sensor:
    """Return the first of them that works. Raises what NVML's has raised if none does."""
    try:
        return nvidia()
    except NoGpuError as error:
        for make in (amd, torch_memory):
            try:
                return make()
            except NoGpuError:
                continue
        raise error from None


def torch_memory() -> Sensor:
    """Return a sensor of the memory that torch holds, for devices that no other one reads.

    Raises `NoGpuError` if torch was built for none, or for NVIDIA's, which NVML knows all about, or if the
    program has not imported torch.
    """
    if "torch" not in sys.modules:
        raise NoGpuError("torch is not in use")
    from pipeprof.measure.device.here import built_for

    device = built_for()
    if device is None or device.kind == "cuda":
        raise NoGpuError("torch was built for no device but NVIDIA's")
    return Plain(lambda: _held(device))


def _held(device: Device) -> dict[SensorName, float]:
    if not device.in_use():
        return {}
    held = ((index, device.held_bytes(index)) for index in range(device.count()))
    return {of_gpu(f"gpu{index}", "torch_bytes"): float(size) for index, size in held if size is not None}
