"""What the tests train under transformers, with random weights: nothing is downloaded. A module of its own,
because importing transformers takes seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from torch.utils.data import Dataset


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
