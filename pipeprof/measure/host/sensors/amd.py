"""AMD's GPUs through amdsmi, if it is installed, as a sensor."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from pipeprof.measure.host.sensors.contract import reason
from pipeprof.measure.host.sensors.nvml import NoGpuError
from pipeprof.record.meta import TelemetryMeta
from pipeprof.record.names.sensors import GpuQuantity, SensorName, of_gpu


class AmdGpus:
    """Utilisation, memory, power and clock of each GPU; see `record.names.sensors`.

    Raises `NoGpuError` if amdsmi is not installed or shows no GPU, and whatever it raises if it fails. What
    single GPUs refuse is left out and listed by `unavailable`. `amdsmi` is handed in by tests.
    """

    def __init__(self, amdsmi: Any = None) -> None:
        self._smi = _installed() if amdsmi is None else amdsmi
        self._unavailable: dict[str, str] = {}
        self._smi.amdsmi_init()
        self._open = True
        try:
            self._handles: list[Any] = list(self._smi.amdsmi_get_processor_handles())
        except BaseException:
            self.close()
            raise
        if not self._handles:
            self.close()
            raise NoGpuError("amdsmi shows no GPU")

    def read(self) -> dict[SensorName, float]:
        """Return values by name."""
        values: dict[SensorName, float] = {}
        last = None
        for index, handle in enumerate(self._handles):
            for quantity, ask in _QUANTITIES.items():
                name = of_gpu(f"gpu{index}", quantity)
                if name in self._unavailable:
                    continue
                try:
                    values[name] = ask(self._smi, handle)
                except Exception as error:  # a refusal, or a value that is "N/A"
                    self._unavailable[name], last = reason(error), error
        if not values and last is not None:
            raise last
        return values

    def described(self, facts: TelemetryMeta) -> TelemetryMeta:
        """Return `facts` with each GPU's UUID."""
        uuids: dict[str, str | None] = {}
        for index, handle in enumerate(self._handles):
            uuids[f"gpu{index}"] = None
            with suppress(Exception):
                uuids[f"gpu{index}"] = str(self._smi.amdsmi_get_gpu_device_uuid(handle))
        return replace(facts, gpu_uuids=uuids)

    def unavailable(self) -> dict[str, str]:
        """Return the quantities that are refused, with the reasons."""
        return dict(self._unavailable)

    def close(self) -> None:
        """End the session with the driver. Safe to call twice."""
        if self._open:
            self._open = False
            self._smi.amdsmi_shut_down()


def _installed() -> Any:
    try:
        import amdsmi
    except (ImportError, OSError) as error:  # installed without its library, it raises the second
        raise NoGpuError("amdsmi is not installed") from error
    return amdsmi


def _power_watts(smi: Any, gpu: Any) -> float:
    info = smi.amdsmi_get_power_info(gpu)
    average = info["average_socket_power"]
    return float(info["current_socket_power"] if average == "N/A" else average)


def _clock_hz(smi: Any, gpu: Any) -> float:
    info = smi.amdsmi_get_clock_info(gpu, smi.AmdSmiClkType.GFX)
    return float(info["cur_clk"] if "cur_clk" in info else info["clk"]) * 1e6  # ROCm 6.2 renamed it


_QUANTITIES: Final[dict[GpuQuantity, Callable[[Any, Any], float]]] = {
    "utilization": lambda smi, gpu: float(smi.amdsmi_get_gpu_activity(gpu)["gfx_activity"]) / 100,
    "memory_bytes": lambda smi, gpu: float(smi.amdsmi_get_gpu_vram_usage(gpu)["vram_used"]) * 2**20,
    "power_watts": _power_watts,
    "sm_clock_hz": _clock_hz,
}
"""As torch asks for them in its own `torch.cuda` on ROCm: percent, MiB, W and MHz."""
