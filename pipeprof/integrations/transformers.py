"""A callback for the Trainer of Hugging Face transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeprof.analyse.verdict import Verdict
from pipeprof.integrations.observed import ObservedTraining, missing, numbered

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise missing("transformers", "transformers") from error


class PipeprofCallback(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Callback that observes the Trainer's loaders: `trainer.add_callback(PipeprofCallback(trainer))`.

    A training is one run, with the evaluations in it; an evaluation or a prediction of its own is another.
    The scalars of `loader.summary()` go through `trainer.log`, behind `pipeprof/`, after each epoch and, if
    it is given, every `every_n_steps` steps. At the end the verdict's sentence is printed and `verdict` is
    what `pipeprof.load(RUN).verdict` gives. The run is written to `out`, and those that follow it to `out-2`,
    `out-3`, …; without it, each is gone then. Each rank records its own part. The Trainer reports no errors
    to its callbacks: a training that fails leaves a run that is recorded up to there; `close` ends it.
    """

    def __init__(self, trainer: Any, out: Path | str | None = None, every_n_steps: int | None = None) -> None:
        self.trainer, self.out, self.every_n_steps = trainer, out, every_n_steps
        self.verdict: Verdict | None = None
        self._run: ObservedTraining | None = None
        self._trains, self._runs = False, 0
        # the callbacks hear of these loaders when they have been iterated
        trainer.get_eval_dataloader = self._observing(trainer.get_eval_dataloader, "evaluation")
        trainer.get_test_dataloader = self._observing(trainer.get_test_dataloader, "test")

    def _observing(self, make: Callable[..., Any], name: str) -> Callable[..., Any]:
        def make_observed(*arguments: Any, **keywords: Any) -> Any:
            loader = make(*arguments, **keywords)
            if self._run is None:
                self._begin()
            assert self._run is not None
            self._run.observe(loader, name)
            return loader

        return make_observed

    def _begin(self) -> None:
        self._runs += 1
        self._run = ObservedTraining(numbered(self.out, self._runs), "transformers")

    def on_train_begin(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Begin, before the first iterator is made."""
        self.close()
        self._begin()
        self._trains = True
        assert self._run is not None
        self._run.observe(parts["train_dataloader"], "train")

    def on_evaluate(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """End the run of an evaluation of its own."""
        self._end_own(state)

    def on_predict(self, args: Any, state: Any, control: Any, metrics: Any, **parts: Any) -> None:
        """End the run of a prediction."""
        self._end_own(state)

    def _end_own(self, state: Any) -> None:
        if not self._trains:
            self._end(state)

    def on_step_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Log, every `every_n_steps` steps."""
        if self.every_n_steps and state.global_step % self.every_n_steps == 0:
            self._log()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Log."""
        self._log()

    def _log(self) -> None:
        if self._run is not None:
            self.trainer.log(self._run.scalars())

    def on_train_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """End the run and print its verdict."""
        self._end(state)

    def _end(self, state: Any) -> None:
        self.close()
        if self.verdict is not None and state.is_world_process_zero:
            print(f"pipeprof: {self.verdict}")

    def close(self, error: BaseException | None = None) -> None:
        """End the run if it has not ended, for `error` if there was one."""
        run, self._run, self._trains = self._run, None, False
        if run is not None:
            self.verdict = run.end(error)
