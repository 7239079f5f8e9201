"""Search with the engine, confirm by measuring: a short run, predictions, the best candidate, and again.

The only module of this room that measures.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import log2
from pathlib import Path
from typing import Any, Final, NamedTuple

from pipeprof import trace
from pipeprof.errors import InconclusiveError, PipeprofError
from pipeprof.pipeline import measured_window, read_timeline
from pipeprof.scenario import Scenario, with_values
from pipeprof.simulate.demands import Demands
from pipeprof.simulate.fixes import NOISE, worker_counts
from pipeprof.simulate.knobs import Knobs
from pipeprof.simulate.neighbours import open_run
from pipeprof.simulate.predict import Estimate, predict, replay
from pipeprof.trace import Run

PREFETCHES: Final = (1, 2, 4, 8)
WARMUP_STEPS: Final = 5
"""Steps of a run of the user's own that are not counted: caches fill, libraries load."""
NEAR: Final = 3
"""Counts of workers for which other depths of prefetching are asked about."""
TRIALS: Final = 5
"""Short runs that a budget is cut for; fewer are made where predicted and measured agree."""


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


def setting_of(knobs: Knobs) -> Setting:
    """What a run was recorded with."""
    return Setting(knobs.workers, knobs.prefetch, knobs.pin_memory, knobs.persistent_workers)


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


@dataclass(frozen=True, slots=True)
class Tuned:
    """What tuning came to."""

    best: Setting
    throughput: float
    """Samples a second of the best setting in a long run: predicted from its own trial, then corrected."""
    trials: tuple[Trial, ...]
    agreed: bool
    """Predicted and measured agree and no other setting promises more; else the budget ended the search."""
    seconds: float
    start: Setting = field(default=Setting(0))


Measure = Callable[[Setting, float], Run]
"""Measures a setting for about so many seconds and gives the run."""


def search(
    measure: Measure,
    start: Setting,
    budget_s: float,
    clock: Callable[[], float] = time.monotonic,
    told: Callable[[Trial], None] = lambda trial: None,
) -> Tuned:
    """Measure `start`, then what promises most, until that was measured or the budget is spent.

    `told` is called after each trial. Raises `InconclusiveError` where no run that the budget holds can be
    predicted from.
    """
    began = clock()
    seconds = budget_s / TRIALS
    while True:
        try:
            trials = [_trial(measure, start, None, seconds, clock)]
            break
        except InconclusiveError:
            seconds *= 2  # fewer trials, of steps that take long
            if clock() - began + seconds > budget_s:
                raise
    told(trials[0])
    agreed = False
    while True:
        wanted, promise = _most_promising(trials)
        agreed = wanted in {trial.setting for trial in trials}
        left = budget_s - (clock() - began)
        if agreed or left < max(trial.seconds for trial in trials):
            break
        trials.append(_trial(measure, wanted, promise, seconds, clock))
        told(trials[-1])
    scores = {trial.setting: _promise(trial, trial.setting).value for trial in trials}
    best = _cheapest_of_the_best(scores)
    return Tuned(best, scores[best], tuple(trials), agreed, clock() - began, start)


def _trial(
    measure: Measure, setting: Setting, promise: Estimate | None, seconds: float, clock: Callable[[], float]
) -> Trial:
    began = clock()
    run = measure(setting, seconds)
    demands = open_run(run)
    measured = _throughput(run)
    bias = measured / replay(demands).throughput.value
    return Trial(setting, promise, measured, demands, bias, clock() - began)


def _throughput(run: Run) -> float:
    timeline = read_timeline(run)
    window = measured_window(timeline)
    if window is None or window.wall_ns == 0:
        raise InconclusiveError(f"{run.directory}: no step was measured", "give a larger budget")
    return float(timeline.samples[~timeline.warmup].sum()) * 1e9 / window.wall_ns


def _most_promising(trials: list[Trial]) -> tuple[Setting, Estimate]:
    """The cheapest setting within noise of the best, each predicted from the trial nearest to it.

    Turned one after the other: workers, then prefetch for the best counts of them, then what changes the
    program. Every setting that was measured is in the running.
    """
    demands, start = trials[0].demands, trials[0].setting
    promises: dict[Setting, Estimate] = {}

    def ask(settings: Iterable[Setting]) -> Setting:
        for setting in settings:
            if setting not in promises:
                promises[setting] = _promise(
                    min(trials, key=lambda one: setting.distance(one.setting)), setting
                )
        return _cheapest_of_the_best({setting: promise.value for setting, promise in promises.items()})

    ask(trial.setting for trial in trials)
    ask(start._replace(workers=workers) for workers in worker_counts(demands.measured))
    best = max(promise.value for promise in promises.values())
    near = sorted((one for one, promise in promises.items() if promise.value > best * 0.9), key=Setting.cost)
    chosen = ask(one._replace(prefetch=p) for one in near[:NEAR] if one.workers for p in PREFETCHES)
    if demands.batches.copy.any():
        chosen = ask([chosen._replace(pin_memory=True)])
    if demands.steps > demands.batches_per_epoch and chosen.workers:
        chosen = ask([chosen._replace(persistent_workers=True)])
    return chosen, promises[chosen]


def _promise(trial: Trial, setting: Setting) -> Estimate:
    """The long run under `setting`, predicted from `trial` and corrected by what the engine missed there."""
    found = predict(trial.demands, setting.applied(trial.demands.measured)).throughput
    return Estimate(*(value * trial.bias for value in (found.value, found.low, found.high)))


def _cheapest_of_the_best(scores: Mapping[Setting, float]) -> Setting:
    best = max(scores.values())
    return min(
        (setting for setting, score in scores.items() if score >= best * (1 - NOISE)), key=Setting.cost
    )


def tune_scenario(
    scenario: Scenario,
    budget_s: float,
    directory: Path,
    told: Callable[[Trial], None] = lambda trial: None,
) -> tuple[Tuned, Scenario]:
    """Tune a scenario's loader on this machine; the runs go into `directory`. Returns the tuned scenario too.

    Raises what `measure.run.run` raises, and `InconclusiveError` where a run cannot be predicted from.
    """
    from pipeprof.measure.run import run

    count = itertools.count(1)

    def measure(setting: Setting, seconds: float) -> Run:
        values = {**setting.scenario_values(), "run.seconds": seconds, "run.steps": None, "run.epochs": None}
        pinned = "-pinned" if setting.pin_memory else ""
        part = directory / f"{next(count)}-w{setting.workers}-p{setting.prefetch}{pinned}"
        return trace.load(run(with_values(scenario, values), part))

    loader = scenario.loader
    # one worker at least: a run without workers does not show what handing batches over costs
    start = Setting(
        max(1, loader.workers), loader.prefetch or 2, loader.pin_memory, loader.persistent_workers
    )
    tuned = search(measure, start, budget_s, told=told)
    return tuned, with_values(scenario, tuned.best.scenario_values())


def tune(
    dataset: Any,
    step: Callable[[Any], Any],
    *,
    batch_size: int = 1,
    budget_s: float = 60.0,
    workers: int = 2,
    **arguments: Any,
) -> dict[str, Any]:
    """Find DataLoader arguments for `dataset` and one training step, by measuring and predicting.

    `step` is called with each batch and really trains. `arguments` go to the DataLoader as they are
    (`shuffle`, `collate_fn`, ...). Returns all arguments of the best: `DataLoader(dataset, **tune(...))`.
    Prints what it tried. At most about `budget_s` seconds; raises `InconclusiveError` where too few batches
    came in a fifth of them.
    """
    given = {"pin_memory": False, "persistent_workers": False, **arguments}
    start = Setting(
        workers,
        given.pop("prefetch_factor", None) or 2,
        given.pop("pin_memory"),
        given.pop("persistent_workers"),
    )
    with tempfile.TemporaryDirectory(prefix="pipeprof-tune-") as room:
        count = 0

        def measure(setting: Setting, seconds: float) -> Run:
            nonlocal count
            count += 1
            out = Path(room) / str(count)
            _train(dataset, step, {"batch_size": batch_size, **given, **setting.arguments()}, seconds, out)
            return trace.load(out)

        tuned = search(measure, start, budget_s, told=lambda trial: print(line(trial)))
    print(conclusion(tuned))
    return {"batch_size": batch_size, **given, **tuned.best.arguments()}


def _train(
    dataset: Any, step: Callable[[Any], Any], arguments: dict[str, Any], seconds: float, out: Path
) -> None:
    """Epochs over a profiled loader until `seconds` have passed."""
    from pipeprof.measure.session import Session

    ends = time.monotonic() + seconds
    with Session(out, warmup_steps=WARMUP_STEPS) as session:
        loader = session.loader(dataset, **arguments)
        while time.monotonic() < ends:
            batches = 0
            for batch in loader:
                step(batch)
                batches += 1
                if time.monotonic() >= ends:
                    break
            if not batches:
                raise PipeprofError("the data set gave no batch", "make batch_size smaller than the data set")


def line(trial: Trial) -> str:
    """One trial as text: predicted beside measured."""
    setting = trial.setting
    told = f"{setting.workers} workers, prefetch {setting.prefetch}"
    told += ", pinned" * setting.pin_memory + ", persistent" * setting.persistent_workers
    if trial.predicted is None:
        return f"{told}: measured {trial.measured:.4g} samples/s"
    low, high = trial.predicted.low, trial.predicted.high
    return (
        f"{told}: predicted {trial.predicted.value:.4g} ({low:.4g}–{high:.4g}), "
        f"measured {trial.measured:.4g} samples/s"
    )


def conclusion(tuned: Tuned) -> str:
    """What it came to, as text."""
    best = tuned.best
    why = "nothing else promises more" if tuned.agreed else "the budget is spent"
    return (
        f"Best: {best.workers} workers, prefetch {best.prefetch}"
        f"{', pinned' * best.pin_memory}{', persistent' * best.persistent_workers}: "
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
    }
