"""Callback for Lightning: it observes the loaders of a trainer, and logs to the trainer's loggers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from pipeprof.analyse.verdict import Verdict
from pipeprof.integrations.observed import ObservedTraining, missing, numbered
from pipeprof.measure.probe import torch_hook as hook

try:
    from lightning.pytorch import Callback
    from lightning.pytorch.utilities.combined_loader import CombinedLoader
except ImportError as error:
    raise missing("Lightning", "lightning") from error


class PipeprofCallback(Callback):  # type: ignore[misc, unused-ignore]
    """Callback that observes the trainer's DataLoaders, as they are: those of training and of validation for
    as long as a fit lasts, and those of a validation, a test or a prediction of its own.

    The scalars of `loader.summary()` go to the trainer's loggers, behind `pipeprof/`, after each epoch and,
    if it is given, every `every_n_steps` steps. At the end the verdict's sentence is printed and `verdict` is
    what `pipeprof.load(RUN).verdict` gives. The run is written to `out`, and those that follow it to `out-2`,
    `out-3`, …; without it, each is gone then. Each rank records its own part.
    """

    def __init__(self, out: Path | str | None = None, every_n_steps: int | None = None) -> None:
        super().__init__()
        self.out, self.every_n_steps = out, every_n_steps
        self.verdict: Verdict | None = None
        self._run: ObservedTraining | None = None
        self._trainer: Any = None
        self._stage, self._runs = "", 0

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Begin: Lightning makes the first iterators before any later hook."""
        if self._run is not None:  # of what failed
            self._end(None)
        self._runs += 1
        self._run = ObservedTraining(numbered(self.out, self._runs), "lightning")
        self._trainer, self._stage = trainer, stage
        hook.observe_all(self._choose)

    def _choose(self, loader: DataLoader[Any]) -> hook.Observer | None:
        name = self._name_of(loader)
        return None if self._run is None or name is None else self._run.watch_of(loader, name)

    def _name_of(self, loader: DataLoader[Any]) -> str | None:
        """Return what the trainer uses a loader for; None if the loader is not the trainer's."""
        trainer = self._trainer
        kinds = {
            "train": trainer.train_dataloader,
            "val": trainer.val_dataloaders,
            "test": trainer.test_dataloaders,
            "predict": trainer.predict_dataloaders,
        }
        for name, loaders in kinds.items():
            if loaders is not None and any(loader is each for each in CombinedLoader(loaders).flattened):
                return name
        return None if self._stage == "fit" else self._stage

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        """Log the summary every `every_n_steps` steps."""
        if self.every_n_steps and trainer.global_step % self.every_n_steps == 0:
            self._log(trainer)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Log the summary."""
        self._log(trainer)

    def _log(self, trainer: Any) -> None:
        if self._run is not None and trainer.loggers:
            scalars = self._run.scalars()
            for logger in trainer.loggers:
                logger.log_metrics(scalars, step=trainer.global_step)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """End the run with the error of a failed fit."""
        self._end(exception)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """End the run and print its verdict."""
        ended = self._run is not None
        self._end(None)
        if ended and self.verdict is not None and trainer.is_global_zero:
            print(f"pipeprof: {self.verdict}")

    def _end(self, error: BaseException | None) -> None:
        hook.observe_no_more(self._choose)
        run, self._run = self._run, None
        if run is not None:
            self.verdict = run.end(error)
