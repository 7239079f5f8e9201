"""A callback for the Trainer of Hugging Face transformers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeprof.integrations.observed import ObservedTraining, missing

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise missing("transformers", "transformers") from error


class PipeprofCallback(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Observes the training loader of `trainer`: `trainer.add_callback(PipeprofCallback(trainer))`.

    The scalars of `loader.summary()` go through `trainer.log`, behind `pipeprof/`, after each epoch and,
    where it is given, every `every_n_steps` steps. At the end the verdict's sentence is printed and `verdict`
    is the dictionary of `pipeprof report --json`. The run is written to `out`; without it, it is gone then.
    Each rank records its own part. The Trainer tells its callbacks of no error: a training that fails leaves
    a run that is recorded up to there; `close` ends it at once.
    """

    def __init__(self, trainer: Any, out: Path | str | None = None, every_n_steps: int | None = None) -> None:
        self.trainer, self.out, self.every_n_steps = trainer, out, every_n_steps
        self.verdict: Mapping[str, Any] | None = None
        self._run: ObservedTraining | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Begin, before the first iterator is made."""
        self.close()
        self._run = ObservedTraining(self.out, "transformers")
        self._run.observe(parts["train_dataloader"])

    def on_step_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Log, every `every_n_steps` steps."""
        if self.every_n_steps and state.global_step % self.every_n_steps == 0:
            self._tell()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Log."""
        self._tell()

    def _tell(self) -> None:
        if self._run is not None:
            self.trainer.log(self._run.scalars())

    def on_train_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """End the run, and say what it says."""
        self.close()
        if self.verdict is not None and state.is_world_process_zero:
            print(f"pipeprof: {self.verdict['verdict']['sentence']}")

    def close(self, error: BaseException | None = None) -> None:
        """End the run where it has not ended, for `error` if there was one."""
        run, self._run = self._run, None
        if run is not None:
            self.verdict = run.end(error)
