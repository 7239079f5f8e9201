"""NVIDIA GPUs through NVML, as a sensor."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from pipeprof.measure.host.sensors.contract import reason
from pipeprof.record.meta import TelemetryMeta
from pipeprof.record.names.sensors import GpuQuantity, SensorName, of_gpu

PCIE_EVERY_S: Final = 1.0
"""NVML measures PCIe traffic over 20 ms and blocks for them, once a direction and GPU."""


class NoGpuError(Exception):
    """There is no NVIDIA driver here, or it shows no GPU."""


class Gpus:
    """Utilisation, memory, power, clock and PCIe traffic of each GPU; see `record.names.sensors`.

    Raises `NoGpuError` if there is no driver, and `pynvml.NVMLError` if it fails for every GPU. What single
    GPUs refuse is left out and listed by `unavailable`: in containers, virtual machines and partitions (MIG)
    drivers refuse some quantities and give others. `nvml` and `clock` are handed in by tests.
    """

    def __init__(self, nvml: Any = None, clock: Callable[[], float] = time.monotonic) -> None:
        if nvml is None:
            import pynvml

            nvml = pynvml
        self._nvml, self._clock = nvml, clock
        self._pcie_due_s = 0.0
        self._unavailable: dict[str, str] = {}
        try:
            nvml.nvmlInit()
        except nvml.NVMLError_LibraryNotFound as error:
            raise NoGpuError("no NVIDIA driver on this machine") from error
        self._open = True
        try:
            self._handles = self._find()
            self._period_s = self._sample_period_s()
            self._uuids = {f"gpu{index}": self._uuid(handle) for index, handle in self._handles.items()}
        except BaseException:
            with suppress(Exception):  # the first error is the one to report
                self.close()
            raise

    def _find(self) -> dict[int, Any]:
        """Return the handles of the GPUs that may be opened, by index."""
        count = self._nvml.nvmlDeviceGetCount()
        if count == 0:
            raise NoGpuError("the NVIDIA driver shows no GPU")
        handles, last = {}, None
        for index in range(count):
            try:
                handles[index] = self._nvml.nvmlDeviceGetHandleByIndex(index)
            except self._nvml.NVMLError as error:
                self._unavailable[f"gpu{index}"], last = reason(error), error
        if not handles and last is not None:
            raise last
        return handles

    def _uuid(self, handle: Any) -> str | None:
        try:
            uuid = self._nvml.nvmlDeviceGetUUID(handle)
        except self._nvml.NVMLError:
            return None
        return uuid.decode() if isinstance(uuid, bytes) else str(uuid)

    def read(self) -> dict[SensorName, float]:
        """Return values by name; PCIe traffic is among them once a second."""
        quantities = dict(_QUANTITIES)
        if self._clock() >= self._pcie_due_s:
            self._pcie_due_s = self._clock() + PCIE_EVERY_S
            quantities.update(_PCIE)
        values: dict[SensorName, float] = {}
        last = None
        for index, handle in self._handles.items():
            for quantity, ask in quantities.items():
                name = of_gpu(f"gpu{index}", quantity)
                if name in self._unavailable:
                    continue
                try:
                    values[name] = ask(self._nvml, handle)
                except self._nvml.NVMLError as error:
                    self._unavailable[name], last = reason(error), error
        if not values and last is not None:
            raise last
        return values

    def described(self, facts: TelemetryMeta) -> TelemetryMeta:
        """Return `facts` with the period over which the driver averages utilisation, and each GPU's UUID."""
        return replace(facts, nvml_sample_period_s=self._period_s, gpu_uuids=self._uuids)

    def unavailable(self) -> dict[str, str]:
        """Return the GPUs and quantities that the driver refused, with the reasons."""
        return dict(self._unavailable)

    def close(self) -> None:
        """End the session with the driver. Safe to call twice."""
        if self._open:
            self._open = False
            self._nvml.nvmlShutdown()

    def _sample_period_s(self) -> float | None:
        """Return the median distance of the samples that the driver keeps; None if it keeps none."""
        nvml = self._nvml
        try:
            handle = next(iter(self._handles.values()))
            _, samples = nvml.nvmlDeviceGetSamples(handle, nvml.NVML_GPU_UTILIZATION_SAMPLES, 0)
        except nvml.NVMLError:
            return None
        times = sorted(sample.timeStamp for sample in samples if sample.timeStamp)
        gaps = [later - earlier for earlier, later in itertools.pairwise(times) if later > earlier]
        return statistics.median(gaps) / 1e6 if gaps else None


Quantity = Callable[[Any, Any], float]
_QUANTITIES: Final[dict[GpuQuantity, Quantity]] = {
    "utilization": lambda nvml, gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100,
    "memory_bytes": lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).used,
    "power_watts": lambda nvml, gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1e3,
    "sm_clock_hz": lambda nvml, gpu: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM) * 1e6,
}
_PCIE: Final[dict[GpuQuantity, Quantity]] = {
    "pcie_rx_bytes_per_s": lambda nvml, gpu: (
        nvml.nvmlDeviceGetPcieThroughput(gpu, nvml.NVML_PCIE_UTIL_RX_BYTES) * 1e3
    ),
    "pcie_tx_bytes_per_s": lambda nvml, gpu: (
        nvml.nvmlDeviceGetPcieThroughput(gpu, nvml.NVML_PCIE_UTIL_TX_BYTES) * 1e3
    ),
}
"""KB a second in NVML's manual: thousands of bytes."""
