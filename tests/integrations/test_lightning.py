"""The callback in a real Lightning trainer."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pipeprof.measure import hook
from pipeprof.measure.session import Session
from pipeprof.trace import load

lightning = pytest.importorskip("lightning", reason="Lightning is not installed")

STEPS = 6


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

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Kept(lightning.pytorch.loggers.logger.DummyLogger):
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


@pytest.fixture
def callback(tmp_path: Path) -> Any:
    from pipeprof.integrations.lightning import PipeprofCallback

    return PipeprofCallback(tmp_path / "run", every_n_steps=4)


def test_a_fit_is_observed_and_its_loggers_are_told(
    tmp_path: Path, callback: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    logger, train, check = Kept(), loader(workers=1), loader()
    trainer(tmp_path, callback, logger).fit(Model(), train, check)
    run = load(tmp_path / "run")
    assert run.status == "complete"
    assert run.table("steps")["epoch"].to_pylist() == [0] * STEPS + [1] * STEPS, "training alone, and all of it"
    assert set(run.table("batches")["worker"].to_pylist()) == {0}, "the inside of the worker is seen"
    assert [step for step, _ in logger.told] == [4, 6, 8, 12, 12]
    assert logger.told[-1][1]["pipeprof/steps"] == 2 * STEPS
    assert callback.verdict["verdict"]["sentence"] in capsys.readouterr().out
    assert hook.observer_of(train) is None, "the loader is plain again"


def test_the_batches_are_those_of_a_fit_without_it(tmp_path: Path, callback: Any) -> None:
    seen = []
    for one in (callback, lightning.Callback()):
        lightning.seed_everything(3, verbose=False)
        model = Model()
        trainer(tmp_path, one, False).fit(model, loader())
        seen.append(torch.cat(model.seen))
    assert torch.equal(*seen)


def test_a_fit_that_fails_leaves_a_run_that_says_so(tmp_path: Path, callback: Any) -> None:
    with pytest.raises(ValueError, match="step 2"):
        trainer(tmp_path, callback, False).fit(Model(fails_at=2), loader())
    run = load(tmp_path / "run")
    assert run.status == "failed"
    assert "step 2 is broken" in run.meta["error"]


def test_it_costs_no_more_than_the_wrapper(
    tmp_path: Path, callback: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch has one request and one take, as with the wrapper; the summary is asked for to be told."""
    calls = Counter[str]()

    def counted(name: str) -> Any:
        original = getattr(Session, name)

        def count(self: Any, *arguments: Any) -> Any:
            calls[name] += 1
            return original(self, *arguments)

        return count

    for name in ("requested", "took", "summary"):
        monkeypatch.setattr(Session, name, counted(name))
    callback.every_n_steps = None
    trainer(tmp_path, callback, Kept()).fit(Model(), loader())
    assert calls["took"] == 2 * STEPS
    assert calls["requested"] <= 2 * STEPS + 2, "and one at the end of each epoch"
    assert calls["summary"] == 2, "one an epoch"
