"""Whole runs of the bench on a device, which is not there: real loaders, streams, events, and its options."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeprof.analyse.analysis import analyse
from pipeprof.errors import PipeprofError
from pipeprof.measure.accelerator.workload import Workload
from pipeprof.measure.bench.run import run
from pipeprof.measure.device.here import installed
from pipeprof.record import reader
from pipeprof.scenario import Scenario
from tests.fake_device import MS, FakeDevice, FakeGraph
from tests.forked import Program


@pytest.fixture(autouse=True)
def one_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPEPROF_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def device() -> Iterator[FakeDevice]:
    """Three times as slow as the host that launches: the queue grows, and copies run beside it."""
    there = FakeDevice(slowness=3.0, pinned=True, drift=50e-6)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads that wait for each other cost more than these small products
    with installed(there):
        yield there
    torch.set_num_threads(threads)


def scenario(**parts: dict[str, Any]) -> Scenario:
    """Small arrays in memory, and the lecture's two-layer net."""
    whole: dict[str, Any] = {
        "data": {"format": "tensor_files", "samples": 64, "sample_bytes": 12288},
        "storage": {"tier": "ram", "keep": "decoded"},
        "loader": {"batch_size": 8, "workers": 0},
        "accelerator": {"kind": "device"},
        "model": {"name": "two_layer_net"},
        "run": {"steps": 40, "warmup_steps": 5, "telemetry_hz": 0},
    }
    for name, part in parts.items():
        whole[name] = {**whole.get(name, {}), **part}
    return Scenario.model_validate({"name": "short", **whole})


def column(found: reader.Run, table: str, name: str) -> Any:
    return np.array(found.table(table)[name].to_pylist())


def test_a_run_on_a_device_is_told_by_its_events(
    device: FakeDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps of one piece each: what lies between the pieces of a step would count as busy."""
    device.slowness = 0
    monkeypatch.setattr(Workload, "step", lambda work, inputs, targets: device.launch(3 * MS))
    found = reader.load(run(scenario(loader={"workers": 1}), tmp_path / "run"))
    assert (found.status, found.meta.accelerator.kind) == ("complete", "fake")
    assert found.meta.emulated == ()
    start, end = (column(found, "steps", f"compute_{edge}_ns") for edge in ("start", "end"))
    assert (end > start).all()
    assert (start[1:] >= end[:-1]).all(), "one stream"
    analysis = analyse(found)
    told = analysis.verdict.as_dict()
    assert told["utilization_kind"] == "device-events"
    assert sum(told["ledger_ns"].values()) == told["wall_ns"]
    window = analysis.attribution.window  # type: ignore[union-attr]
    busy = device.busy_ns(window.start_ns, window.end_ns) / told["wall_ns"]
    copying = told["ledger_ns"].get("h2d", 0) / told["wall_ns"]
    assert told["utilization"] + copying == pytest.approx(busy, abs=0.02)


def test_the_parts_of_a_step_fill_its_computation(device: FakeDevice, tmp_path: Path) -> None:
    found = reader.load(run(scenario(), tmp_path / "run"))
    parts = found.table("parts").to_pylist()
    assert [row["part"] for row in parts] == ["forward", "backward", "optimizer"] * 40
    length = sum(row["end_ns"] - row["start_ns"] for row in parts if row["step"] >= 5)
    start, end = (column(found, "steps", f"compute_{edge}_ns")[5:] for edge in ("start", "end"))
    assert 0.5 * (end - start).sum() < length <= (end - start).sum() + 40_000


@pytest.mark.parametrize(
    "options",
    [
        {"amp": True, "cudnn": False, "sync": True},
        {"prefetch_to_device": True, "channels_last": True},
    ],
    ids=lambda options: next(iter(options)),
)
def test_options_reach_the_device(
    device: FakeDevice, tmp_path: Path, options: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    check_options(device, tmp_path, options, monkeypatch)


@pytest.mark.heavy
def test_a_model_is_compiled_for_the_device(
    device: FakeDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a process of its own: autograd's threads begin where the first backward pass is compiled."""

    def main() -> None:
        from torch._inductor import config

        monkeypatch.setattr(config, "compile_threads", 1)  # else its process pool outlives the test
        check_options(device, tmp_path, {"compile": True}, monkeypatch)

    done = Program(main, tmp_path).finished()
    assert done.returncode == 0, done.stderr


def check_options(
    device: FakeDevice, tmp_path: Path, options: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run with these options of the accelerator, and look for each on the device and in the record."""
    dtypes: set[torch.dtype] = set()
    loss = Workload._loss

    def watched(work: Workload, output: Any, targets: Any) -> torch.Tensor:
        dtypes.add(output.dtype)
        return loss(work, output, targets)

    monkeypatch.setattr(Workload, "_loss", watched)
    found = reader.load(run(scenario(accelerator=options, run={"steps": 12}), tmp_path / "run"))
    assert found.status == "complete"
    assert (column(found, "steps", "compute_end_ns") > column(found, "steps", "compute_start_ns")).all()
    assert (torch.bfloat16 in dtypes) == bool(options.get("amp"))
    assert (False in device.library) == (options.get("cudnn") is False)
    assert found.meta.accelerator.synchronises is bool(options.get("sync"))
    assert found.meta.accelerator.copies_overlap is bool(options.get("prefetch_to_device"))
    copies = {piece.stream for piece in device.work if piece.name == "copy"}
    steps = {piece.stream for piece in device.work if piece.name == "step"}
    assert (copies == steps) == (not options.get("prefetch_to_device"))


def test_the_tier_pinned_pins_for_a_device(device: FakeDevice, tmp_path: Path) -> None:
    found = reader.load(run(scenario(storage={"tier": "pinned"}, run={"steps": 12}), tmp_path / "run"))
    assert found.meta.loaders[0].pin_memory is True
    assert device.blocking
    assert not any(device.blocking)


def test_a_graph_is_captured_once_and_replayed(
    device: FakeDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a script does with its CUDA graph: warm up, capture one step, replay it for the others."""
    step, graph = Workload.step, FakeGraph(device)
    calls = 0

    def replayed(work: Workload, inputs: Any, targets: Any) -> None:
        nonlocal calls
        calls += 1
        if calls <= 3:
            step(work, inputs, targets)
        elif calls == 4:
            device.flush(device.current_stream())
            with graph.capture():
                step(work, inputs, targets)
                device.flush(device.current_stream())
            graph.replay()
        else:
            graph.replay()

    monkeypatch.setattr(Workload, "step", replayed)
    found = reader.load(run(scenario(run={"steps": 20}), tmp_path / "run"))
    length = column(found, "steps", "compute_end_ns") - column(found, "steps", "compute_start_ns")
    whole = sum(duration for _, duration in graph.durations)
    assert whole > 0
    assert (length[4:] >= whole * 0.999).all()
    assert set(column(found, "parts", "step")) == {0, 1, 2}, "a graph's parts are one"


def test_a_device_that_is_lost_leaves_a_run_that_says_so(
    device: FakeDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, calls = Workload.step, 0

    def lost(work: Workload, inputs: Any, targets: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 20:
            device.lose()
        step(work, inputs, targets)

    monkeypatch.setattr(Workload, "step", lost)
    with pytest.raises((PipeprofError, RuntimeError), match="device lost"):
        run(scenario(), tmp_path / "run")
    found = reader.load(tmp_path / "run")
    assert found.status == "failed"
    assert "device lost" in (found.meta.error or "")
    assert found.table("steps").num_rows >= 18


def test_without_timed_events_the_loops_body_is_told_as_such(device: FakeDevice, tmp_path: Path) -> None:
    device.timed = False
    found = reader.load(run(scenario(), tmp_path / "run"))
    assert found.status == "complete"
    assert any("fake has no timed events" in what for what in found.meta.not_observed)
    assert found.table("steps")["compute_end_ns"].null_count == 40
    assert found.table("parts").num_rows == 0
    assert analyse(found).verdict.as_dict()["utilization_kind"] == "loop-body"
