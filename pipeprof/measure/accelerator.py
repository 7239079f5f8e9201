"""The Accelerator contract: something that takes a batch and computes on it. CPU, CUDA, emulated.

The kinds are siblings behind one contract (`emulated_accelerator`, `cpu`, `cuda`); `make_accelerator` picks
one. All of them tell their times on `CLOCK_MONOTONIC`, whatever clock they keep themselves.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from pipeprof.errors import MeasureError
from pipeprof.measure.ranks import here
from pipeprof.scenario import AcceleratorPart, Scenario, accelerator_model


class StepTimes(NamedTuple):
    """When the device copied and computed one step: `CLOCK_MONOTONIC` ns; None is not observed."""

    step: int
    copy_start_ns: int | None = None
    copy_end_ns: int | None = None
    compute_start_ns: int | None = None
    compute_end_ns: int | None = None
    device_wait_ns: int | None = None


class Accelerator(Protocol):
    """A device with a queue. `submit` returns when the host may go on, which may be before the step ends."""

    kind: str
    emulated: bool

    def request(self, step: int) -> None:
        """The loop is about to ask for the batch of `step` (CUDA marks the stream here)."""
        ...

    def submit(self, step: int, batch: Any) -> None:
        """Copy `batch` to the device and launch its step."""
        ...

    def finished(self) -> list[StepTimes]:
        """The steps whose times have become known since the last call, in order. Never waits."""
        ...

    def synchronize(self) -> None:
        """Wait until every submitted step has ended; `finished` then tells all the rest."""
        ...

    def describe(self) -> dict[str, Any]:
        """Facts for `run.json`: kind, name, emulated, figures, source, queue_depth, synchronises."""
        ...


def make_accelerator(scenario: Scenario) -> Accelerator:
    """The accelerator that the scenario names; `auto` is CUDA where there is one, else emulated.

    Raises `MeasureError` for CUDA where there is none, and for a model that cannot be built.
    """
    kind = resolved_kind(scenario.accelerator)
    if kind == "emulated":
        from pipeprof.measure.emulated_accelerator import EmulatedAccelerator

        return EmulatedAccelerator(
            accelerator_model(scenario.accelerator),
            pinned=scenario.loader.pin_memory or scenario.storage.tier == "pinned",
            sync=scenario.accelerator.sync,
            prefetch_to_device=scenario.accelerator.prefetch_to_device,
            seed=scenario.run.seed,
        )
    from pipeprof.measure.workload import Workload

    if kind == "cpu":
        from pipeprof.measure.cpu import CpuAccelerator

        return CpuAccelerator(Workload(scenario, "cpu"))
    import torch

    from pipeprof.measure.cuda import CudaAccelerator

    take_own_device(torch.cuda)
    part = scenario.accelerator
    return CudaAccelerator(
        Workload(scenario, "cuda"),
        sync=part.sync,
        prefetch_to_device=part.prefetch_to_device,
        cudnn=part.cudnn,
    )


def take_own_device(cuda: Any) -> None:
    """Make this rank's device the current one: each rank of a node has its own, in turn where there are few.

    Outside a job the current device stays what it is.
    """
    rank = here()
    if rank is not None:
        local = rank.rank if rank.local_rank is None else rank.local_rank
        cuda.set_device(local % cuda.device_count())


def cuda_facts(cuda: Any, device: int) -> dict[str, Any]:
    """What `run.json` says of CUDA device number `device`. `uuid` tells which of NVML's GPUs it is."""
    properties = cuda.get_device_properties(device)
    return {
        "kind": "cuda",
        "name": properties.name,
        "emulated": False,
        "device": device,
        "uuid": str(properties.uuid),
    }


def resolved_kind(part: AcceleratorPart) -> str:
    """`cuda`, `cpu` or `emulated`; `MeasureError` where the scenario asks for a CUDA that is not here."""
    if part.kind in ("cpu", "emulated"):
        return part.kind
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if part.kind == "cuda":
        raise MeasureError(
            "the scenario asks for CUDA and torch sees no CUDA device",
            "set accelerator.kind=emulated or cpu, or install a torch built for this machine's GPU",
        )
    return "emulated"
