"""NVIDIA GPUs through NVML, as sensors. Raises `pynvml.NVMLError` where there is no driver or it fails."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any, Final

PCIE_EVERY_S: Final = 1.0
"""NVML measures PCIe traffic over 20 ms and blocks for them, once a direction."""


class _Nvml:
    """A session with the driver and the handles of its GPUs."""

    def __init__(self, nvml: Any = None) -> None:
        if nvml is None:
            import pynvml

            nvml = pynvml
        nvml.nvmlInit()
        self._open, self._nvml = True, nvml
        try:
            self._handles = [
                nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())
            ]
        except BaseException:
            self.close()
            raise

    def describe(self) -> dict[str, Any]:
        """Nothing to add."""
        return {}

    def close(self) -> None:
        """End the session. Safe to call twice."""
        if self._open:
            self._open = False
            self._nvml.nvmlShutdown()


class Gpus(_Nvml):
    """Utilisation, memory, power and clock of each GPU."""

    def __init__(self, nvml: Any = None) -> None:
        super().__init__(nvml)
        self._period_s = self._sample_period_s()

    def read(self) -> dict[str, float]:
        """Values by name; see `sensors.SENSORS`."""
        nvml, found = self._nvml, {}
        for index, handle in enumerate(self._handles):
            found[f"gpu{index}.utilization"] = nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
            found[f"gpu{index}.memory_bytes"] = nvml.nvmlDeviceGetMemoryInfo(handle).used
            found[f"gpu{index}.power_watts"] = nvml.nvmlDeviceGetPowerUsage(handle) / 1e3
            clock = nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)
            found[f"gpu{index}.sm_clock_hz"] = clock * 1e6
        return found

    def describe(self) -> dict[str, Any]:
        """The period over which the driver really averages its utilisation: 1/6 to 1 s, as NVIDIA says."""
        return {"nvml_sample_period_s": self._period_s}

    def _sample_period_s(self) -> float | None:
        """Median distance of the samples that the driver keeps; None where it keeps none."""
        nvml = self._nvml
        try:
            _, samples = nvml.nvmlDeviceGetSamples(self._handles[0], nvml.NVML_GPU_UTILIZATION_SAMPLES, 0)
        except (nvml.NVMLError, IndexError):
            return None
        times = sorted(sample.timeStamp for sample in samples if sample.timeStamp)
        gaps = [later - earlier for earlier, later in itertools.pairwise(times) if later > earlier]
        return statistics.median(gaps) / 1e6 if gaps else None


class Pcie(_Nvml):
    """PCIe traffic of each GPU, once a second."""

    def __init__(self, nvml: Any = None, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(nvml)
        self._clock, self._due_s = clock, 0.0

    def read(self) -> dict[str, float]:
        """Bytes a second in both directions, or nothing where it is not yet time."""
        if self._clock() < self._due_s:
            return {}
        self._due_s = self._clock() + PCIE_EVERY_S
        nvml, found = self._nvml, {}
        directions = {"tx": nvml.NVML_PCIE_UTIL_TX_BYTES, "rx": nvml.NVML_PCIE_UTIL_RX_BYTES}
        for index, handle in enumerate(self._handles):
            for name, direction in directions.items():
                kilobytes = nvml.nvmlDeviceGetPcieThroughput(handle, direction)
                found[f"gpu{index}.pcie_{name}_bytes_per_s"] = kilobytes * 1e3
        return found
