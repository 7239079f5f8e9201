"""Kernels of a few steps, by torch.profiler: here those are the operators of a CPU."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.autograd import DeviceType
from torch.utils.data import DataLoader

import pipeprof
from pipeprof.analyse.resources.makeup import read_makeup
from pipeprof.errors import MeasureError
from pipeprof.measure.bench.run import run
from pipeprof.measure.session.steps.kernels import LEAD, Kernel, KernelTrace, _kernels
from pipeprof.record.reader import load
from pipeprof.scenario import Scenario
from tests.measure.session import loader_cases as cases


def train(out: Path, steps: int, kernels: int) -> Any:
    loader: DataLoader[Any] = DataLoader(cases.Squares(steps), batch_size=1)
    weight = torch.ones(64, 64)
    with pipeprof.profile(loader, out=out, kernels=kernels) as batches:
        for _ in batches:
            torch.mm(weight, weight)
    return load(out)


def test_the_steps_that_were_asked_for_are_traced_and_not_measured(tmp_path: Path) -> None:
    found = train(tmp_path / "run", 14, kernels=5)
    makeup = read_makeup(found)
    products = next(each for each in makeup.kernels if each.name == "aten::mm")
    assert (makeup.traced_steps, products.times, makeup.on_device) == (5, 5, False)
    assert makeup.collective_share is None
    assert sum(each.share for each in makeup.kernels) == pytest.approx(1)
    steps = found.table("steps").to_pylist()
    assert [row["warmup"] for row in steps] == [True] * (LEAD + 5) + [False] * 6
    assert found.meta.warmup_steps == LEAD + 5
    taken = [row["take_ns"] for row in steps]
    for row in found.table("kernels").to_pylist():
        if row["kernel"] == "aten::mm":
            assert taken[LEAD] <= row["start_ns"] <= taken[LEAD + 5], "on the clock of the tables"


def test_a_run_that_ends_meanwhile_keeps_what_was_traced(tmp_path: Path) -> None:
    makeup = read_makeup(train(tmp_path / "run", LEAD + 2, kernels=50))
    assert makeup.traced_steps == 2
    assert next(each.times for each in makeup.kernels if each.name == "aten::mm") == 2


def test_beside_a_profiler_of_the_scripts_own_it_gives_way(tmp_path: Path) -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as theirs:
        found = train(tmp_path / "run", 10, kernels=2)
    assert any(what.startswith("kernels: ") for what in found.meta.not_observed)
    assert any(event.name == "aten::mm" for event in theirs.events())


def test_ended_in_another_thread_it_is_given_up() -> None:
    unseen: list[str] = []
    trace = KernelTrace(0, 5, lambda steps, kernels: pytest.fail("nothing to report"), unseen.append)
    trace.took(0)
    kept = trace._trace
    thread = threading.Thread(target=trace.end)
    thread.start()
    thread.join()
    kept.stop()
    assert unseen == ["the run ended in another thread before they had been traced"]


def event(name: str, start: float, end: float, kind: Any = DeviceType.CPU, **more: Any) -> Any:
    return SimpleNamespace(
        name=name, time_range=SimpleNamespace(start=start, end=end), device_type=kind, device_index=1,
        cpu_parent=None, is_async=False, is_user_annotation=False, **more,
    )  # fmt: skip


def test_on_a_device_its_kernels_are_taken_and_put_on_the_hosts_clock() -> None:
    traced = [
        event("pipeprof.mark", 10, 12),
        event("pipeprof.mark", 20, 21),
        event("aten::mm", 30, 40),
        event("gemm", 50.5, 60, DeviceType.CUDA, device_resource_id=7),
        event("ncclDevKernel_AllReduce", 60, 70, DeviceType.CUDA, device_resource_id=9),
    ]
    marks = [(1_000_000, 1_090_000), (1_019_500, 1_021_500)]  # the second was read at once
    offset = 1_000_000
    assert _kernels(traced, marks) == [
        Kernel("gemm", offset + 50_500, 9_500, 1, 7),
        Kernel("ncclDevKernel_AllReduce", offset + 60_000, 10_000, 1, 9),
    ]
    with pytest.raises(ValueError, match="marks"):
        _kernels(traced[1:], marks)


SHORT = {
    "name": "short",
    "data": {"format": "tensor_files", "samples": 64, "sample_bytes": 4000},
    "storage": {"tier": "ram"},
    "loader": {"batch_size": 4, "workers": 0},
    "accelerator": {"kind": "cpu"},
    "model": {"name": "two_layer_net"},
    "run": {"steps": 16, "warmup_steps": 5, "telemetry_hz": 0},
}


def test_the_bench_traces_kernels_and_knows_the_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPEPROF_CACHE", str(tmp_path / "cache"))
    found = load(run(Scenario.model_validate(SHORT), tmp_path / "run", kernels=4))
    makeup = read_makeup(found)
    assert makeup.traced_steps == 4
    assert {part.name for part in makeup.parts} == {"forward", "backward", "optimizer"}
    assert makeup.steps == 16 - 5 - 4


def test_more_kernels_than_steps_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(MeasureError, match=r"--kernels 11 traces the steps until the 16th"):
        run(Scenario.model_validate(SHORT), tmp_path / "run", kernels=11)
    assert not (tmp_path / "run").exists()
