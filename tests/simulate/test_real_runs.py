"""Replays of runs that were really measured: real workers, real tensors, an emulated disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeprof.measure.bench.run import run
from pipeprof.record.reader import load
from pipeprof.scenario import Scenario
from pipeprof.simulate.demands.other_programs import open_run
from pipeprof.simulate.predict import predict, replay
from tests.simulate.common import throughput


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_replay_of_a_measured_run_comes_near_it(
    tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPEPROF_CACHE", str(tmp_path / "cache"))
    scenario = Scenario.model_validate(
        {
            "name": "short",
            "data": {"format": "tensor_files", "samples": 256, "sample_bytes": 60_000},
            "storage": {"tier": "hdd"},
            "loader": {"batch_size": 4, "workers": workers},
            "accelerator": {"kind": "emulated", "step_ms": 20},
            "run": {"steps": 45},
        }
    )
    recorded = load(run(scenario, tmp_path / "run"))
    demands = open_run(recorded)
    ratio = replay(demands).throughput.value / throughput(recorded)
    assert 0.8 < ratio < 1.25, "the benchmark holds it to 1 % on a quiet machine"
    asked = predict(demands, replace(demands.measured, accelerator_speed=4.0))
    assert asked.limit == "storage"
