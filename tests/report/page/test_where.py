"""When it happened: NVML's figure is that of the GPU which trained."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipeprof.record.reader import load
from pipeprof.report.page import where
from tests.factory import begin

UUIDS = {"gpu0": "GPU-aa", "gpu1": "GPU-bb"}


def shown(directory: Path, gpus: int, accelerator: Any, telemetry: Any) -> Any:
    """The chart of a run in which GPU number i was used for (i + 1) * 10%."""
    writer = begin(directory, {"kind": "wrapper", "accelerator": accelerator, "telemetry": telemetry})
    names = [f"gpu{index}.utilization" for index in range(gpus)]
    values = [(index + 1) / 10 for index in range(gpus)]
    writer.append("telemetry", {"time_ns": [5] * gpus, "sensor": names, "value": values})
    writer.close("complete")
    edges = np.array([0, 10], np.int64)
    return where._nvml(SimpleNamespace(run=load(directory)), edges, edges / 1e9)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("gpus", "uuid", "uuids", "expected"),
    [
        (2, "bb", UUIDS, "gpu1"),
        (2, "aa", UUIDS, "gpu0"),
        (2, "cc", UUIDS, None),
        (2, None, UUIDS, None),
        (2, "bb", None, None),
        (1, "cc", UUIDS, "gpu0"),
        (1, None, None, "gpu0"),
    ],
)
def test_the_chart_is_of_the_gpu_that_trained_or_there_is_none(
    tmp_path: Path, gpus: int, uuid: str | None, uuids: dict[str, str] | None, expected: str | None
) -> None:
    chart = shown(tmp_path / "run", gpus, {"kind": "cuda", "uuid": uuid}, {"gpu_uuids": uuids})
    if expected is None:
        assert chart is None
        return
    assert chart.title == f"NVML utilisation of {expected}"
    assert chart.table.rows[0].cells[1] == ("20%" if expected == "gpu1" else "10%")


def test_it_says_how_long_nvml_samples(tmp_path: Path) -> None:
    chart = shown(tmp_path / "run", 1, None, {"nvml_sample_period_s": 0.167})
    assert "ran in the sample period of 167 ms." in chart.how
    assert "ran in the sample period." in shown(tmp_path / "old", 1, None, None).how
