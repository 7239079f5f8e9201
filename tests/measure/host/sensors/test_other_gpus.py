"""Devices that are not NVIDIA's: amdsmi on a stand-in, and torch's own figures where nothing else is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pipeprof.measure.device import here
from pipeprof.measure.device.here import installed
from pipeprof.measure.host.sensors import gpus
from pipeprof.measure.host.sensors.amd import AmdGpus
from pipeprof.measure.host.sensors.contract import Plain, Sensor
from pipeprof.measure.host.sensors.nvml import NoGpuError
from pipeprof.record.meta import TelemetryMeta
from tests.fake_device import FakeDevice, VirtualClock


class Smi:
    """amdsmi with two GPUs; what is in `broken` raises."""

    AmdSmiClkType = SimpleNamespace(GFX="gfx")

    def __init__(self, count: int = 2, **broken: Exception) -> None:
        self.count, self.broken, self.open = count, broken, 0
        self.power = {"average_socket_power": "N/A", "current_socket_power": 250}

    def _told(self, name: str, value: Any) -> Any:
        if name in self.broken:
            raise self.broken[name]
        return value

    def amdsmi_init(self) -> None:
        self.open += 1

    def amdsmi_shut_down(self) -> None:
        self.open -= 1

    def amdsmi_get_processor_handles(self) -> list[int]:
        return self._told("handles", list(range(self.count)))  # type: ignore[no-any-return]

    def amdsmi_get_gpu_activity(self, gpu: int) -> Any:
        return self._told("activity", {"gfx_activity": 40 + gpu})

    def amdsmi_get_gpu_vram_usage(self, gpu: int) -> Any:
        return self._told("vram", {"vram_used": 1024})

    def amdsmi_get_power_info(self, gpu: int) -> Any:
        return self.power

    def amdsmi_get_clock_info(self, gpu: int, kind: str) -> Any:
        return {"clk": 2100} if gpu else {"cur_clk": 1700}

    def amdsmi_get_gpu_device_uuid(self, gpu: int) -> str:
        return f"uuid-{gpu}"


def test_what_amdsmi_tells_is_in_our_units() -> None:
    smi = Smi()
    sensor = AmdGpus(smi)
    same = {"memory_bytes": 2**30, "power_watts": 250}
    first = {**same, "utilization": 0.4, "sm_clock_hz": 1.7e9}
    second = {**same, "utilization": 0.41, "sm_clock_hz": 2.1e9}
    by_gpu = {f"gpu0.{name}": value for name, value in first.items()}
    by_gpu |= {f"gpu1.{name}": value for name, value in second.items()}
    assert sensor.read() == by_gpu
    assert sensor.described(TelemetryMeta()).gpu_uuids == {"gpu0": "uuid-0", "gpu1": "uuid-1"}
    sensor.close()
    sensor.close()
    assert smi.open == 0


def test_what_amdsmi_refuses_is_left_out_and_told() -> None:
    smi = Smi(1, activity=RuntimeError("not supported"))
    smi.power = {"average_socket_power": "N/A", "current_socket_power": "N/A"}
    sensor = AmdGpus(smi)
    assert set(sensor.read()) == {"gpu0.memory_bytes", "gpu0.sm_clock_hz"}
    assert set(sensor.unavailable()) == {"gpu0.utilization", "gpu0.power_watts"}


@pytest.mark.parametrize("smi", [Smi(0), Smi(handles=RuntimeError("no driver"))])
def test_an_amdsmi_that_shows_nothing_is_let_go(smi: Smi) -> None:
    with pytest.raises((NoGpuError, RuntimeError)):
        AmdGpus(smi)
    assert smi.open == 0


def no_nvidia() -> Sensor:
    raise NoGpuError("no NVIDIA driver on this machine")


def no_amd() -> Sensor:
    raise NoGpuError("amdsmi is not installed")


def test_the_first_that_works_is_taken() -> None:
    nvidia, amd = Plain(dict), Plain(dict)
    assert gpus.device_sensor(lambda: nvidia, lambda: amd) is nvidia
    assert gpus.device_sensor(no_nvidia, lambda: amd) is amd


def test_without_either_torch_tells_what_it_holds() -> None:
    device = FakeDevice(VirtualClock(), held=[5, 7])
    with installed(device):
        sensor = gpus.device_sensor(no_nvidia, no_amd)
        assert sensor.read() == {"gpu0.torch_bytes": 5.0, "gpu1.torch_bytes": 7.0}
        device.held = [0, 0]
        assert sensor.read() == {}, "a device that the program does not use is left alone"


def test_without_any_device_the_reason_is_nvmls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(here, "built_for", lambda: None)
    with pytest.raises(NoGpuError, match="no NVIDIA driver"):
        gpus.device_sensor(no_nvidia, no_amd)
