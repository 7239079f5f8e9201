"""A callback for Lightning: observes the training loaders of a fit, and tells the trainer's loggers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from pipeprof.integrations.observed import ObservedTraining, missing
from pipeprof.measure import hook

try:
    from lightning.pytorch import Callback
    from lightning.pytorch.utilities.combined_loader import CombinedLoader
except ImportError as error:
    raise missing("Lightning", "lightning") from error


class PipeprofCallback(Callback):  # type: ignore[misc, unused-ignore]
    """Observes the trainer's training DataLoaders, as they are, for as long as a fit lasts.

    The scalars of `loader.summary()` go to the trainer's loggers, behind `pipeprof/`, after each epoch and,
    where it is given, every `every_n_steps` steps. At the end the verdict's sentence is printed and `verdict`
    is the dictionary of `pipeprof report --json`. The run is written to `out`; without it, it is gone then.
    Each rank records its own part.
    """

    def __init__(self, out: Path | str | None = None, every_n_steps: int | None = None) -> None:
        super().__init__()
        self.out, self.every_n_steps = out, every_n_steps
        self.verdict: Mapping[str, Any] | None = None
        self._run: ObservedTraining | None = None
        self._trainer: Any = None

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin: Lightning makes the first iterator before any hook has seen the loaders."""
        self._run, self._trainer = ObservedTraining(self.out, "lightning"), trainer
        hook.observe_all(self._choose)

    def _choose(self, loader: DataLoader[Any]) -> hook.Observer | None:
        loaders = self._trainer.train_dataloader
        if self._run is None or loaders is None:
            return None
        trained = any(loader is each for each in CombinedLoader(loaders).flattened)
        return self._run.watch_of(loader) if trained else None

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        """Tell the loggers, every `every_n_steps` steps."""
        if self.every_n_steps and trainer.global_step % self.every_n_steps == 0:
            self._tell(trainer)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Tell the loggers."""
        self._tell(trainer)

    def _tell(self, trainer: Any) -> None:
        if self._run is not None and trainer.loggers:
            scalars = self._run.scalars()
            for logger in trainer.loggers:
                logger.log_metrics(scalars, step=trainer.global_step)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """The fit has failed: the run keeps what is known, and says of what it died."""
        self._end(exception)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """The fit is over; or a validation or a test is, which this callback does not observe."""
        if stage != "fit":
            return
        self._end(None)
        if self.verdict is not None and trainer.is_global_zero:
            print(f"pipeprof: {self.verdict['verdict']['sentence']}")

    def _end(self, error: BaseException | None) -> None:
        hook.observe_no_more(self._choose)
        run, self._run = self._run, None
        if run is not None:
            self.verdict = run.end(error)
