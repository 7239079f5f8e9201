"""A stand-in for NVML's library, which fails where it is told to."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any


class StubError(Exception):
    pass


class NotSupportedError(StubError):
    pass


class LibraryNotFoundError(StubError):
    pass


def stub_nvml(**broken: Exception) -> Any:
    """NVML with one GPU; each name in `broken` raises instead."""

    def telling(name: str, value: Any) -> Any:
        def tell(*arguments: Any) -> Any:
            if name in broken:
                raise broken[name]
            return value(*arguments) if callable(value) else value

        return tell

    calls: dict[str, Any] = {
        "nvmlInit": None,
        "nvmlShutdown": None,
        "nvmlDeviceGetCount": 1,
        "nvmlDeviceGetHandleByIndex": int,
        "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=40),
        "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=2**30),
        "nvmlDeviceGetPowerUsage": 250_000,
        "nvmlDeviceGetClockInfo": 1_500,
        "nvmlDeviceGetPcieThroughput": 3_000,
        "nvmlDeviceGetSamples": (0, [SimpleNamespace(timeStamp=t) for t in (200_000, 0, 400_000, 600_000)]),
        "nvmlDeviceGetName": b"Stub GPU",
        "nvmlDeviceGetUUID": b"GPU-0-0",
    }
    constants = {
        "NVML_GPU_UTILIZATION_SAMPLES": 1,
        "NVML_CLOCK_SM": 1,
        "NVML_PCIE_UTIL_TX_BYTES": 0,
        "NVML_PCIE_UTIL_RX_BYTES": 1,
        "NVMLError": StubError,
        "NVMLError_NotSupported": NotSupportedError,
        "NVMLError_LibraryNotFound": LibraryNotFoundError,
    }
    return SimpleNamespace(**constants, **{name: telling(name, value) for name, value in calls.items()})
