"""Settings, trials and result of tuning, as text and for JSON."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import log2
from pathlib import Path
from typing import Any, NamedTuple

from pipeprof import units
from pipeprof.simulate.demands.loader import Demands
from pipeprof.simulate.knobs import Knobs
from pipeprof.simulate.predict import Estimate


class Setting(NamedTuple):
    """Setting that tuning turns: arguments of a DataLoader that change no batch."""

    workers: int
    prefetch: int = 2
    pin_memory: bool = False
    persistent_workers: bool = False
    in_order: bool = True

    def arguments(self) -> dict[str, Any]:
        """Return it as keyword arguments of torch's DataLoader."""
        return {
            "num_workers": self.workers,
            "prefetch_factor": self.prefetch if self.workers else None,
            "pin_memory": self.pin_memory,
            "persistent_workers": self.persistent_workers and self.workers > 0,
            **({} if self.in_order else {"in_order": False}),
        }

    def scenario_values(self) -> dict[str, Any]:
        """Return it as keys of a scenario."""
        return {
            "loader.workers": self.workers,
            "loader.prefetch": self.prefetch if self.workers else None,
            "loader.pin_memory": self.pin_memory,
            "loader.persistent_workers": self.persistent_workers and self.workers > 0,
            **({} if self.in_order else {"loader.in_order": False}),
        }

    def applied(self, knobs: Knobs) -> Knobs:
        """Return the knobs with this setting."""
        return replace(
            knobs,
            workers=self.workers,
            prefetch=self.prefetch,
            pin_memory=self.pin_memory,
            persistent_workers=self.persistent_workers,
            in_order=self.in_order,
        )

    def cost(self) -> tuple[int, int, bool, bool, bool]:
        """Return the sort key of its cost: workers before memory before changes of the program."""
        changes = self.pin_memory, self.persistent_workers, not self.in_order
        return self.workers, self.workers * self.prefetch, *changes

    def distance(self, other: Setting) -> float:
        """Return how much more or less of the machine the other one uses, in doublings."""
        between = abs(log2((self.workers + 1) / (other.workers + 1)))
        changes = (self.pin_memory != other.pin_memory) + (self.in_order != other.in_order)
        return between + 0.25 * abs(log2(self.prefetch / other.prefetch)) + changes


@dataclass(frozen=True, slots=True)
class Trial:
    """Setting, measured."""

    setting: Setting
    predicted: Estimate | None
    """Prediction before it was measured; None of the first."""
    measured: float
    """Measured throughput, in samples a second."""
    demands: Demands
    bias: float
    """Ratio of measured to replayed throughput: what the engine does not know of this run."""
    seconds: float
    """Seconds of the budget that the trial took."""
    overhead_s: float = 0.0
    """Seconds of that which it took besides those that it was given: starting and ending a run."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Setting that could not be measured; the search goes on without it."""

    setting: Setting
    why: str
    seconds: float
    overhead_s: float = 0.0
    """Seconds besides those that it was given, as of a `Trial`."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """Result of tuning."""

    best: Setting
    throughput: float
    """Samples a second of the best setting in a long run: predicted from its own trial, then corrected."""
    trials: tuple[Trial, ...]
    agreed: bool
    """True if predicted and measured agree, and no other setting that can be measured promises more; False if
    the budget ended the search."""
    seconds: float
    """Seconds that the search took; making a scenario's data set comes before it."""
    start: Setting = field(default=Setting(0))
    failed: tuple[Failed, ...] = ()


def described(setting: Setting) -> str:
    """Return a setting as text: `4 workers, prefetch 2, pinned`."""
    extras = ", pinned" * setting.pin_memory + ", persistent" * setting.persistent_workers
    extras += ", out of order" * (not setting.in_order)
    if not setting.workers:
        return f"no workers{extras}"
    return f"{units.plural(setting.workers, 'worker')}, prefetch {setting.prefetch}{extras}"


def line(trial: Trial | Failed) -> str:
    """Return one trial as text: predicted against measured."""
    if isinstance(trial, Failed):
        return f"{described(trial.setting)}: not measured: {trial.why}"
    if trial.predicted is None:
        return f"{described(trial.setting)}: measured {units.sample_rate(trial.measured)}"
    rates = trial.predicted.value, trial.predicted.low, trial.predicted.high
    value, low, high = (units.digits(rate) for rate in rates)
    measured = units.sample_rate(trial.measured)
    return f"{described(trial.setting)}: predicted {value} ({low}–{high}), measured {measured}"


def conclusion(tuned: Tuned) -> str:
    """Return the result of tuning as text."""
    why = "nothing else promises more" if tuned.agreed else "the budget is spent"
    if tuned.failed:
        why += f"; could not be measured: {'; '.join(described(failure.setting) for failure in tuned.failed)}"
    spent = f"{len(tuned.trials)} runs in {units.duration(tuned.seconds * units.NS_PER_S)}"
    return f"Best: {described(tuned.best)}: {units.sample_rate(tuned.throughput)}, after {spent} ({why})."


def as_dict(tuned: Tuned, written: Path) -> dict[str, Any]:
    """Return plain values, for JSON."""
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
            {**failure.setting.arguments(), "why": failure.why, "seconds": failure.seconds}
            for failure in tuned.failed
        ],
    }
