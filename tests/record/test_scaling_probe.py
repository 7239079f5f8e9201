"""The probe of scaling, as it is kept, read, and asked between its points."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeprof.record.added.scaling_probe import (
    SCALING_JSON,
    ScalingPoint,
    ScalingProbe,
    read_scaling,
    write_scaling,
)

PROBE = ScalingProbe(
    "train", (ScalingPoint(1, 9, 1e6, 900.0), ScalingPoint(2, 9, 1.2e6, 1500.0), ScalingPoint(4, 9, 2e6))
)


def test_it_comes_back_as_it_was_kept(tmp_path: Path) -> None:
    assert read_scaling(tmp_path) is None
    write_scaling(tmp_path, PROBE)
    assert read_scaling(tmp_path) == PROBE


@pytest.mark.parametrize(
    ("processes", "growth"), [(0, 1.0), (1, 1.0), (2, 1.2), (3, 1.668), (4, 2.0), (64, 2.0)]
)
def test_growth_goes_along_the_logarithm_of_processes(processes: int, growth: float) -> None:
    assert PROBE.growth_at(processes) == pytest.approx(growth, abs=1e-3)


@pytest.mark.parametrize(
    "kept",
    ["", "[]", '{"schema": 1, "points": []}', '{"schema": 2}', '{"schema": 1, "points": [{"processes": 0}]}'],
)
def test_a_damaged_one_counts_as_none(kept: str, tmp_path: Path) -> None:
    (tmp_path / SCALING_JSON).write_text(kept)
    assert read_scaling(tmp_path) is None


def test_absurd_figures_are_not_believed(tmp_path: Path) -> None:
    points = [{"processes": 1, "cpu_ns_per_sample": 1e-300}, {"processes": 2, "cpu_ns_per_sample": 1e300}]
    (tmp_path / SCALING_JSON).write_text(json.dumps({"schema": 1, "points": points}))
    probe = read_scaling(tmp_path)
    assert probe is not None
    assert probe.growth_at(2) <= 16.0
