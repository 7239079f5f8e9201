"""NVML: what it tells, and that nothing ends where it fails. It fails in many ways."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeprof.analyse.analysis import analyse
from pipeprof.cli.measure.devices import command
from pipeprof.measure.bench.run import run
from pipeprof.measure.host import machine
from pipeprof.measure.host.sensors.contract import Plain
from pipeprof.measure.host.sensors.nvml import Gpus, NoGpuError
from pipeprof.measure.host.telemetry import Telemetry
from pipeprof.record.meta import MachineMeta, RunMeta, TelemetryMeta
from pipeprof.record.reader import load
from pipeprof.report.page import about
from pipeprof.scenario import Scenario
from tests.measure.host.sensors.nvml_stub import LibraryNotFoundError, NotSupportedError, StubError, stub_nvml

LOST = StubError("GPU is lost")
READS = (
    "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceGetMemoryInfo",
    "nvmlDeviceGetPowerUsage",
    "nvmlDeviceGetClockInfo",
    "nvmlDeviceGetPcieThroughput",
)
EVERY_READ = dict.fromkeys(READS, LOST)


def nothing(time_ns: int, values: Mapping[str, float]) -> None:
    """A sink."""


def test_a_gpu_tells_its_figures_and_the_period_that_nvml_really_used() -> None:
    gpus = Gpus(stub_nvml(), clock=iter([1.0, 1.0, 1.5, 2.5, 2.5]).__next__)
    read = gpus.read()
    assert read["gpu0.utilization"] == 0.4
    assert read["gpu0.power_watts"] == 250
    assert read["gpu0.sm_clock_hz"] == 1.5e9
    assert read["gpu0.pcie_rx_bytes_per_s"] == 3e6
    assert gpus.described(TelemetryMeta()).nvml_sample_period_s == 0.2
    assert "gpu0.pcie_rx_bytes_per_s" not in gpus.read(), "it blocks for 40 ms: once a second is enough"
    assert "gpu0.pcie_rx_bytes_per_s" in gpus.read()


@pytest.mark.parametrize("error", [NotSupportedError("no"), StubError("no permission")])
def test_what_a_gpu_cannot_tell_is_left_out_and_named(error: StubError) -> None:
    gpus = Gpus(stub_nvml(nvmlDeviceGetPowerUsage=error))
    assert "gpu0.power_watts" not in gpus.read()
    assert "gpu0.utilization" in gpus.read()
    telemetry = Telemetry(nothing, {"gpu": gpus})
    telemetry.open()
    meta = telemetry.entered(RunMeta())
    assert meta.not_observed == (f"gpu0.power_watts: {type(error).__name__}: {error}",)
    assert meta.telemetry.gpu_uuids == {"gpu0": "GPU-0-0"}
    assert meta.telemetry.nvml_sample_period_s == 0.2


def test_one_gpu_that_does_not_tell_leaves_the_others_figures() -> None:
    nvml = stub_nvml()
    power = nvml.nvmlDeviceGetPowerUsage

    def power_of(handle: int) -> int:
        if handle == 1:
            raise NotSupportedError("a partition of a GPU")
        return int(power(handle))

    nvml.nvmlDeviceGetCount, nvml.nvmlDeviceGetPowerUsage = (lambda: 2), power_of
    gpus = Gpus(nvml)
    for _ in range(2):
        read = gpus.read()
        assert "gpu0.power_watts" in read and "gpu1.power_watts" not in read
        assert {"gpu0.utilization", "gpu1.utilization"} <= set(read)
    assert list(gpus.unavailable()) == ["gpu1.power_watts"]


def test_a_gpu_that_may_not_be_opened_leaves_the_others() -> None:
    nvml = stub_nvml()

    def handle(index: int) -> int:
        if index == 0:
            raise StubError("no permission")
        return index

    nvml.nvmlDeviceGetCount, nvml.nvmlDeviceGetHandleByIndex = (lambda: 2), handle
    gpus = Gpus(nvml)
    assert {name.partition(".")[0] for name in gpus.read()} == {"gpu1"}
    assert gpus.unavailable() == {"gpu0": "StubError: no permission"}


def test_nvml_that_is_not_there_or_fails_turns_to_not_observed() -> None:
    with pytest.raises(NoGpuError, match="no NVIDIA driver"):
        Gpus(stub_nvml(nvmlInit=LibraryNotFoundError()))
    with pytest.raises(StubError):
        Gpus(stub_nvml(nvmlInit=StubError("driver mismatch")))
    with pytest.raises(StubError, match="no permission"):
        Gpus(stub_nvml(nvmlDeviceGetHandleByIndex=StubError("no permission"), nvmlShutdown=LOST))
    telemetry = Telemetry(nothing, {"gpu": Gpus(stub_nvml(**EVERY_READ))})
    telemetry.open()
    telemetry.sample()
    assert telemetry.not_observed == {"gpu": "StubError: GPU is lost"}


def test_a_gpu_that_is_lost_and_cannot_even_be_left_leaves_the_other_sensors() -> None:
    seen: list[str] = []
    gpus = Gpus(stub_nvml(**EVERY_READ, nvmlShutdown=LOST))
    telemetry = Telemetry(
        lambda _, values: seen.extend(values), {"gpu": gpus, "steady": Plain(lambda: {"steady": 1.0})}
    )
    telemetry.open()
    for _ in range(2):
        telemetry.sample()
    telemetry.__exit__()
    assert seen == ["steady", "steady"]


def test_a_driver_that_fails_leaves_the_machines_gpus_not_observed(monkeypatch: pytest.MonkeyPatch) -> None:
    def names(**broken: Exception) -> list[str] | None:
        monkeypatch.setitem(sys.modules, "pynvml", stub_nvml(**broken))
        return machine.gpu_names()

    assert names() == names(nvmlShutdown=LOST) == ["Stub GPU"]
    assert names(nvmlInit=LibraryNotFoundError()) == []
    assert names(nvmlInit=LOST) is names(nvmlDeviceGetName=LOST) is None
    assert about.machine(MachineMeta(usable_cores=2)) == "2 usable CPU cores, GPUs not observed"
    assert about.machine(MachineMeta(usable_cores=2, gpu_names=())) == "2 usable CPU cores, no GPU"


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param({"nvmlInit": LOST}, id="at once", marks=pytest.mark.slow),
        pytest.param({**EVERY_READ, "nvmlShutdown": LOST}, id="when read"),
    ],
)
def test_a_whole_run_beside_a_failing_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: dict[str, Exception]
) -> None:
    monkeypatch.setenv("PIPEPROF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "pynvml", stub_nvml(**broken))
    scenario = Scenario.model_validate(
        {
            "name": "short",
            "data": {"format": "tensor_files", "samples": 32, "sample_bytes": 4000},
            "storage": {"tier": "nvme"},
            "loader": {"batch_size": 4, "workers": 1},
            "accelerator": {"kind": "emulated", "step_ms": 5.0},
            "run": {"steps": 20, "warmup_steps": 2},
        }
    )
    found = load(run(scenario, tmp_path / "run"))
    assert found.status == "complete"
    assert "gpu: StubError: GPU is lost" in found.meta.not_observed
    assert "memory.used_bytes" in found.table("telemetry")["sensor"].to_pylist()
    assert analyse(found).verdict.as_dict()["not_observed"].count("gpu: StubError: GPU is lost") == 1


@pytest.mark.parametrize("broken", [{"nvmlInit": LOST}, {"nvmlDeviceGetName": LOST}], ids=str)
def test_devices_beside_a_failing_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: dict[str, Exception]
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", stub_nvml(**broken))
    shown = CliRunner().invoke(command, [str(tmp_path)])
    assert shown.exit_code == 0, shown.output
    assert re.search(r"accelerator: +not observed", shown.output)
    found = json.loads(CliRunner().invoke(command, ["--json", str(tmp_path)]).stdout)
    assert found["machine"]["gpu_names"] is None
