"""`pipeprof.profile` around what Accelerate's `prepare` gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import pipeprof
from pipeprof.record.reader import load
from tests.integrations import needs


@pytest.mark.slow
@needs("accelerate")
def test_a_prepared_loader(tmp_path: Path) -> None:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    data = TensorDataset(torch.randn(48, 4), torch.arange(48))
    model = nn.Linear(4, 2)
    model, optimizer, prepared = accelerator.prepare(
        model, torch.optim.SGD(model.parameters(), lr=0.1), DataLoader(data, batch_size=8, num_workers=1)
    )
    seen = []
    with pipeprof.profile(prepared, out=tmp_path / "run") as loader:
        for inputs, targets in loader:
            optimizer.zero_grad()
            accelerator.backward(nn.functional.cross_entropy(model(inputs), targets % 2))
            optimizer.step()
            seen.append(targets)
        assert loader.summary()["samples"] == 48
    assert torch.equal(torch.cat(seen), torch.arange(48))
    run = load(tmp_path / "run")
    assert len(run.table("steps")) == 6
    assert set(run.table("batches")["worker"].to_pylist()) == {0}, "the inside of the worker is seen"
