"""What tuning turns, what it tried and what it came to; as text and for JSON."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import log2
from pathlib import Path
from typing import Any, NamedTuple

from pipeprof.simulate.demands import Demands
from pipeprof.simulate.knobs import Knobs
from pipeprof.simulate.predict import Estimate


class Setting(NamedTuple):
    """What tuning turns: arguments of a DataLoader that change no batch."""

    workers: int
    prefetch: int = 2
    pin_memory: bool = False
    persistent_workers: bool = False

    def arguments(self) -> dict[str, Any]:
        """As keyword arguments of torch's DataLoader."""
        return {
            "num_workers": self.workers,
            "prefetch_factor": self.prefetch if self.workers else None,
            "pin_memory": self.pin_memory,
            "persistent_workers": self.persistent_workers and self.workers > 0,
        }

    def scenario_values(self) -> dict[str, Any]:
        """As keys of a scenario."""
        return {
            "loader.workers": self.workers,
            "loader.prefetch": self.prefetch if self.workers else None,
            "loader.pin_memory": self.pin_memory,
            "loader.persistent_workers": self.persistent_workers and self.workers > 0,
        }

    def applied(self, knobs: Knobs) -> Knobs:
        """The knobs with this setting."""
        return replace(
            knobs,
            workers=self.workers,
            prefetch=self.prefetch,
            pin_memory=self.pin_memory,
            persistent_workers=self.persistent_workers,
        )

    def cost(self) -> tuple[int, int, bool, bool]:
        """Order of what it takes: workers before memory before changes of the program."""
        return self.workers, self.workers * self.prefetch, self.pin_memory, self.persistent_workers

    def distance(self, other: Setting) -> float:
        """How much more or less of the machine the other one uses, in doublings."""
        between = abs(log2((self.workers + 1) / (other.workers + 1)))
        return (
            between + 0.25 * abs(log2(self.prefetch / other.prefetch)) + (self.pin_memory != other.pin_memory)
        )


@dataclass(frozen=True, slots=True)
class Trial:
    """One setting, measured."""

    setting: Setting
    predicted: Estimate | None
    """Before it was measured; None of the first."""
    measured: float
    """Samples a second."""
    demands: Demands
    bias: float
    """Measured over replayed: what the engine does not know of this run."""
    seconds: float
    """What the trial took of the budget."""
    beside: float = 0.0
    """Seconds of that which it took beside those that it was given: starting and ending a run."""


@dataclass(frozen=True, slots=True)
class Failed:
    """One setting that could not be measured; the search goes on without it."""

    setting: Setting
    why: str
    seconds: float
    beside: float = 0.0
    """As of a `Trial`."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """What tuning came to."""

    best: Setting
    throughput: float
    """Samples a second of the best setting in a long run: predicted from its own trial, then corrected."""
    trials: tuple[Trial, ...]
    agreed: bool
    """Predicted and measured agree, and no other setting that can be measured promises more; else the budget
    ended the search."""
    seconds: float
    """What the search took; making a scenario's data set comes before it."""
    start: Setting = field(default=Setting(0))
    failed: tuple[Failed, ...] = ()


def told(setting: Setting) -> str:
    """A setting as text: `4 workers, prefetch 2, pinned`."""
    extras = ", pinned" * setting.pin_memory + ", persistent" * setting.persistent_workers
    return f"{setting.workers} workers, prefetch {setting.prefetch}{extras}"


def line(trial: Trial | Failed) -> str:
    """One trial as text: predicted beside measured."""
    if isinstance(trial, Failed):
        return f"{told(trial.setting)}: not measured: {trial.why}"
    if trial.predicted is None:
        return f"{told(trial.setting)}: measured {trial.measured:.4g} samples/s"
    low, high = trial.predicted.low, trial.predicted.high
    return (
        f"{told(trial.setting)}: predicted {trial.predicted.value:.4g} ({low:.4g}–{high:.4g}), "
        f"measured {trial.measured:.4g} samples/s"
    )


def conclusion(tuned: Tuned) -> str:
    """What it came to, as text."""
    why = "nothing else promises more" if tuned.agreed else "the budget is spent"
    if tuned.failed:
        why += f"; could not be measured: {'; '.join(told(one.setting) for one in tuned.failed)}"
    return (
        f"Best: {told(tuned.best)}: "
        f"{tuned.throughput:.4g} samples/s, after {len(tuned.trials)} runs in {tuned.seconds:.0f} s ({why})."
    )


def as_dict(tuned: Tuned, written: Path) -> dict[str, Any]:
    """For JSON."""
    return {
        "schema": 1,
        "best": tuned.best.arguments(),
        "throughput_samples_per_s": tuned.throughput,
        "agreed": tuned.agreed,
        "seconds": tuned.seconds,
        "written": str(written),
        "trials": [
            {
                **trial.setting.arguments(),
                "predicted": trial.predicted.as_dict() if trial.predicted else None,
                "measured": trial.measured,
                "seconds": trial.seconds,
            }
            for trial in tuned.trials
        ],
        "failed": [
            {**one.setting.arguments(), "why": one.why, "seconds": one.seconds} for one in tuned.failed
        ],
    }
