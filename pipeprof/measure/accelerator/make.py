"""Makes the accelerator that a scenario names."""

from __future__ import annotations

from pipeprof.errors import MeasureError
from pipeprof.measure.accelerator.contract import Accelerator
from pipeprof.measure.device.contract import Device
from pipeprof.scenario import AcceleratorPart, Scenario, accelerator_model


def make_accelerator(scenario: Scenario, local_rank: int | None = None) -> Accelerator:
    """Make the accelerator that the scenario names; `auto` is torch's if there is one, else emulated.

    `local_rank` is this process's number among the job's ranks on this machine; None outside a job.
    Raises `MeasureError` for a device that is not there, and for a model that cannot be built.
    """
    kind = scenario.accelerator.kind
    if kind == "emulated":
        return _emulated(scenario)
    if kind == "cpu":
        from pipeprof.measure.accelerator.cpu import CpuAccelerator
        from pipeprof.measure.accelerator.workload import Workload

        return CpuAccelerator(Workload(scenario, "cpu"))
    device = find_device(scenario.accelerator)
    return _emulated(scenario) if device is None else _on_device(scenario, device, local_rank)


def _on_device(scenario: Scenario, device: Device, local_rank: int | None) -> Accelerator:
    from pipeprof.measure.accelerator.device import DeviceAccelerator
    from pipeprof.measure.accelerator.workload import Workload

    choose_device(device, local_rank)
    part = scenario.accelerator
    return DeviceAccelerator(
        Workload(scenario, device.torch_name),
        device,
        sync=part.sync,
        prefetch_to_device=part.prefetch_to_device,
        cudnn=part.cudnn,
        parts=True,
    )


def _emulated(scenario: Scenario) -> Accelerator:
    from pipeprof.measure.accelerator.emulated import EmulatedAccelerator

    return EmulatedAccelerator(
        accelerator_model(scenario.accelerator),
        pinned=scenario.loader.pin_memory or scenario.storage.tier == "pinned",
        sync=scenario.accelerator.sync,
        prefetch_to_device=scenario.accelerator.prefetch_to_device,
        seed=scenario.run.seed,
    )


def choose_device(device: Device, local_rank: int | None) -> None:
    """Make device number `local_rank` the current one, in turn if there are fewer devices than ranks.

    Outside a job (None) the current device stays what it is.
    """
    if local_rank is not None:
        device.select(local_rank % device.count())


def find_device(part: AcceleratorPart) -> Device | None:
    """Return the device to train on; None if the accelerator is to be emulated.

    Raises `MeasureError` if the scenario names a device that torch does not see. `device` is any; torch calls
    ROCm's by CUDA's name, and so may the scenario.
    """
    from pipeprof.measure.device.here import available_device

    device = available_device()
    wanted = part.kind
    if device is not None and wanted in ("auto", "device", device.kind, device.torch_name):
        return device
    if wanted == "auto":
        return None
    sees = f"sees {device.kind}" if device is not None else "sees no device"
    raise MeasureError(
        f"the scenario asks for the accelerator {wanted}, and torch {sees} here",
        "set accelerator.kind=emulated or cpu, or install a torch built for this machine's accelerator",
    )
