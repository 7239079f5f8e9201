"""Loaders of libraries that make torch's iterators themselves, where the libraries are installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeprof.record.reader import Run, load
from tests.forked import Program, verb
from tests.integrations import needs

pytestmark = pytest.mark.heavy
TIMM = """
import torch
from timm.data.loader import MultiEpochsDataLoader
from torch.utils.data import TensorDataset
loader = MultiEpochsDataLoader(TensorDataset(torch.zeros(160, 8)), batch_size=4, num_workers=2)
assert sum(1 for _ in range(2) for _ in loader) == 80
"""
MONAI = """
import torch
from monai.data import CacheDataset, DataLoader
samples = [{"x": index} for index in range(160)]
data = CacheDataset(samples, transform=lambda item: torch.zeros(8), progress=False)
assert sum(1 for _ in range(2) for _ in DataLoader(data, batch_size=4, num_workers=2)) == 80
"""
LITDATA = """
import litdata, torch
def sample(index): return {"x": torch.zeros(8)}
if __name__ == "__main__":
    litdata.optimize(fn=sample, inputs=list(range(160)), output_dir="data", num_workers=1, chunk_bytes="1MB")
    loader = litdata.StreamingDataLoader(litdata.StreamingDataset("data"), batch_size=4, num_workers=2)
    assert sum(1 for _ in range(2) for _ in loader) == 80
"""
ULTRALYTICS = """
import torch
from torch.utils.data import TensorDataset
from ultralytics.data.build import InfiniteDataLoader
loader = InfiniteDataLoader(TensorDataset(torch.zeros(160, 8)), batch_size=4, num_workers=2)
assert sum(1 for _ in range(2) for _ in loader) == 80
"""
FASTAI = """
import torch
from fastai.data.all import DataLoader
loader = DataLoader([torch.zeros(8) for _ in range(160)], bs=4, num_workers=2)
assert sum(1 for _ in range(2) for _ in loader) == 80
"""


def traced(script: str, tmp_path: Path) -> Run:
    (tmp_path / "train.py").write_text(script)
    done = Program(verb("trace", "--no-report", "-q", "--out", "out", "train.py"), tmp_path).finished()
    assert done.returncode == 0, done.stderr
    return load(tmp_path / "out")


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(TIMM, id="timm", marks=needs("timm")),
        pytest.param(MONAI, id="monai", marks=needs("monai")),
        pytest.param(LITDATA, id="litdata", marks=needs("litdata")),
        pytest.param(ULTRALYTICS, id="ultralytics", marks=needs("ultralytics")),
    ],
)
def test_a_librarys_loader_is_observed_with_its_workers(script: str, tmp_path: Path) -> None:
    run = traced(script, tmp_path)
    assert run.table("steps").num_rows == 80
    assert set(run.table("batches")["worker"].to_pylist()) == {0, 1}


@needs("fastai")
def test_of_a_loader_that_is_not_torchs_the_waits_are_observed(tmp_path: Path) -> None:
    run = traced(FASTAI, tmp_path)
    assert run.table("steps").num_rows == 80
    assert "the inside of a loader of fastai" in " ".join(run.meta.not_observed)
