"""NVIDIA GPUs through NVML, as a sensor."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any, Final

PCIE_EVERY_S: Final = 1.0
"""NVML measures PCIe traffic over 20 ms and blocks for them, once a direction and GPU."""


class NoGpuError(Exception):
    """There is no NVIDIA driver here, or it shows no GPU."""


class Gpus:
    """Utilisation, memory, power, clock and PCIe traffic of each GPU; see `sensors.SENSORS`.

    Raises `NoGpuError` where there is no driver, and `pynvml.NVMLError` where it fails. A quantity that this
    kind of GPU does not tell is left out and named in `describe`. `nvml` and `clock` are handed in by tests.
    """

    def __init__(self, nvml: Any = None, clock: Callable[[], float] = time.monotonic) -> None:
        if nvml is None:
            import pynvml

            nvml = pynvml
        self._nvml, self._clock = nvml, clock
        self._pcie_due_s = 0.0
        self._untold: set[str] = set()
        try:
            nvml.nvmlInit()
        except nvml.NVMLError_LibraryNotFound as error:
            raise NoGpuError("no NVIDIA driver on this machine") from error
        self._open = True
        try:
            count = nvml.nvmlDeviceGetCount()
            self._handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
            if not self._handles:
                raise NoGpuError("the NVIDIA driver shows no GPU")
            self._period_s = self._sample_period_s()
        except BaseException:
            self.close()
            raise

    def read(self) -> dict[str, float]:
        """Values by name. PCIe traffic is among them once a second."""
        quantities = dict(_QUANTITIES)
        if self._clock() >= self._pcie_due_s:
            self._pcie_due_s = self._clock() + PCIE_EVERY_S
            quantities.update(_PCIE)
        found = {}
        for name, quantity in quantities.items():
            if name in self._untold:
                continue
            try:
                for index, handle in enumerate(self._handles):
                    found[f"gpu{index}.{name}"] = quantity(self._nvml, handle)
            except self._nvml.NVMLError_NotSupported:
                self._untold.add(name)
        return found

    def describe(self) -> dict[str, Any]:
        """The period over which the driver really averages its utilisation, and what it does not tell."""
        return {"nvml_sample_period_s": self._period_s, "nvml_not_supported": sorted(self._untold)}

    def close(self) -> None:
        """End the session with the driver. Safe to call twice."""
        if self._open:
            self._open = False
            self._nvml.nvmlShutdown()

    def _sample_period_s(self) -> float | None:
        """Median distance of the samples that the driver keeps; None where it keeps none."""
        nvml = self._nvml
        try:
            _, samples = nvml.nvmlDeviceGetSamples(self._handles[0], nvml.NVML_GPU_UTILIZATION_SAMPLES, 0)
        except nvml.NVMLError:
            return None
        times = sorted(sample.timeStamp for sample in samples if sample.timeStamp)
        gaps = [later - earlier for earlier, later in itertools.pairwise(times) if later > earlier]
        return statistics.median(gaps) / 1e6 if gaps else None


Quantity = Callable[[Any, Any], float]
_QUANTITIES: Final[dict[str, Quantity]] = {
    "utilization": lambda nvml, gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100,
    "memory_bytes": lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).used,
    "power_watts": lambda nvml, gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1e3,
    "sm_clock_hz": lambda nvml, gpu: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM) * 1e6,
}
_PCIE: Final[dict[str, Quantity]] = {
    "pcie_rx_bytes_per_s": lambda nvml, gpu: (
        nvml.nvmlDeviceGetPcieThroughput(gpu, nvml.NVML_PCIE_UTIL_RX_BYTES) * 1e3
    ),
    "pcie_tx_bytes_per_s": lambda nvml, gpu: (
        nvml.nvmlDeviceGetPcieThroughput(gpu, nvml.NVML_PCIE_UTIL_TX_BYTES) * 1e3
    ),
}
"""KB a second in NVML's manual: thousands of bytes."""
