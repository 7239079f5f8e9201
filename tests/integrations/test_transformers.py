"""The callback in a real Trainer, with a model of random weights: nothing is downloaded."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from pipeprof.measure.session import Session
from pipeprof.trace import load

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

STEPS = 6


class Tokens(Dataset[Any]):
    def __init__(self, broken: int = -1) -> None:
        self.broken = broken

    def __len__(self) -> int:
        return 48

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index == self.broken:
            raise ValueError("sample 13 is broken")
        words = torch.arange(index, index + 8) % 32
        return {"input_ids": words, "labels": words}


class Reporter(transformers.TrainerCallback):
    """Stands before ours in the list, as TensorBoard's and the other reporters do."""

    def __init__(self) -> None:
        self.told: list[dict[str, float]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **parts: Any) -> None:
        if any(name.startswith("pipeprof/") for name in logs):
            self.told.append(dict(logs))


def a_trainer(tmp_path: Path, dataset: Dataset[Any], reporter: Any = None, workers: int = 0) -> Any:
    config = transformers.GPT2Config(vocab_size=32, n_positions=8, n_embd=8, n_layer=1, n_head=1)
    model: nn.Module = transformers.GPT2LMHeadModel(config)
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "trainer"),
        num_train_epochs=2,
        per_device_train_batch_size=8,
        dataloader_num_workers=workers,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )
    return transformers.Trainer(model, arguments, train_dataset=dataset, callbacks=[reporter or Reporter()])


def test_a_training_is_observed_and_its_reporters_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipeprof.integrations.transformers import PipeprofCallback

    reporter = Reporter()
    trainer = a_trainer(tmp_path, Tokens(), reporter, workers=1)
    callback = PipeprofCallback(trainer, tmp_path / "run", every_n_steps=4)
    trainer.add_callback(callback)
    trainer.train()
    run = load(tmp_path / "run")
    assert run.status == "complete"
    assert run.table("steps")["epoch"].to_pylist() == [0] * STEPS + [1] * STEPS
    assert set(run.table("batches")["worker"].to_pylist()) == {0}, "the inside of the worker is seen"
    assert [told["epoch"] for told in reporter.told] == [4 / 6, 1.0, 8 / 6, 2.0, 2.0]
    assert reporter.told[-1]["pipeprof/steps"] == 2 * STEPS
    assert callback.verdict is not None
    assert callback.verdict["verdict"]["sentence"] in capsys.readouterr().out


def test_a_training_that_fails_leaves_a_run_up_to_there(tmp_path: Path) -> None:
    from pipeprof.integrations.transformers import PipeprofCallback

    trainer = a_trainer(tmp_path, Tokens(broken=13))
    callback = PipeprofCallback(trainer, tmp_path / "run")
    trainer.add_callback(callback)
    with pytest.raises(ValueError, match="sample 13") as raised:
        trainer.train()
    callback.close(raised.value)
    assert load(tmp_path / "run").status == "failed"
    assert callback.verdict is not None
    assert callback.verdict["verdict"]["cause"] == "inconclusive", "it has too few steps"


def test_it_costs_no_more_than_the_wrapper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch has one request and one take, as with the wrapper; the summary is asked for to be told."""
    from pipeprof.integrations.transformers import PipeprofCallback

    calls = Counter[str]()

    def counted(name: str) -> Any:
        original = getattr(Session, name)

        def count(self: Any, *arguments: Any) -> Any:
            calls[name] += 1
            return original(self, *arguments)

        return count

    for name in ("requested", "took", "summary"):
        monkeypatch.setattr(Session, name, counted(name))
    trainer = a_trainer(tmp_path, Tokens())
    trainer.add_callback(PipeprofCallback(trainer))
    trainer.train()
    assert calls["took"] == 2 * STEPS
    assert calls["requested"] <= 2 * STEPS + 2, "and one at the end of each epoch"
    assert calls["summary"] == 2, "one an epoch"
