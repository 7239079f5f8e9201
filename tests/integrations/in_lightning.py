"""What the tests train under Lightning; a module of its own, because importing Lightning takes seconds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.loggers.logger import DummyLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Model(lightning.LightningModule):
    def __init__(self, fails_at: int = -1) -> None:
        super().__init__()
        self.layer, self.fails_at = nn.Linear(4, 2), fails_at
        self.seen: list[torch.Tensor] = []

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        if index == self.fails_at:
            raise ValueError("step 2 is broken")
        self.seen.append(batch[1])
        return nn.functional.cross_entropy(self.layer(batch[0]), batch[1] % 2)

    def validation_step(self, batch: Any, _: int) -> None:
        self.layer(batch[0])

    def test_step(self, batch: Any, _: int) -> None:
        self.layer(batch[0])

    def predict_step(self, batch: Any, _: int) -> Any:
        return self.layer(batch[0])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Kept(DummyLogger):
    """Lightning's own logger that logs nowhere, and keeps what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[int, dict[str, float]]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if any(name.startswith("pipeprof/") for name in metrics):
            self.told.append((step or 0, metrics))


def trainer(tmp_path: Path, callback: Any, logger: Any, **more: Any) -> Any:
    return lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=logger,
        callbacks=[callback],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        **more,
    )


def loader(workers: int = 0) -> Any:
    data = TensorDataset(torch.randn(48, 4), torch.arange(48))
    return DataLoader(data, batch_size=8, shuffle=True, num_workers=workers, persistent_workers=workers > 0)


def fit_as_rank(rank: int, port: int) -> None:
    """One of two ranks, as Lightning's launcher starts them."""
    from pipeprof.integrations.lightning import PipeprofCallback

    place = {"LOCAL_RANK": rank, "NODE_RANK": 0, "WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in place.items()} | {"MASTER_ADDR": "127.0.0.1"}
    here = Path()
    trainer(here, PipeprofCallback(here / "job"), False, devices=2, strategy="ddp").fit(Model(), loader())
