"""Search with the engine, confirm by measuring: a short run, predictions, the best candidate, and again.

The only module of this room that measures.
"""

from __future__ import annotations

import itertools
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pipeprof.analyse.choice import EQUAL
from pipeprof.errors import InconclusiveError, PipeprofError
from pipeprof.record import reader
from pipeprof.record.reader import Run
from pipeprof.scenario import Scenario, with_values
from pipeprof.simulate.catalogue import worker_counts
from pipeprof.simulate.demands.loader import Demands
from pipeprof.simulate.demands.other_programs import open_run
from pipeprof.simulate.predict import Estimate, predict, replay
from pipeprof.simulate.search import PREFETCHES
from pipeprof.simulate.tuning.trials import Failed, Setting, Trial, Tuned, conclusion, line
from pipeprof.timeline import measured_window, read_timeline
from pipeprof.units import NS_PER_S

WARMUP_STEPS: Final = 5
"""Steps of a run of the user's own that are not counted: caches fill, libraries load."""
NEAR: Final = 3
"""Number of worker counts for which other depths of prefetching are asked about."""
TRIALS: Final = 5
"""Short runs that a budget is cut for; fewer are made if predicted and measured agree."""
SHORTEST: Final = 0.5
"""Share of a trial's seconds below which the rest of a budget is not worth another."""


Measure = Callable[[Setting, float], Run]
"""Function that measures a setting for about that many seconds and gives the run."""


def search(
    measure: Measure,
    start: Setting,
    budget_s: float,
    clock: Callable[[], float] = time.monotonic,
    on_trial: Callable[[Trial | Failed], None] = lambda trial: None,
    is_allowed: Callable[[Setting], bool] = lambda setting: True,
    may_reorder: bool = False,
    reserve_s: float = 0.0,
) -> Tuned:
    """Measure `start`, then what promises most, until that was measured or the budget is spent.

    The first other setting may also take what `reserve_s` has kept for later: without it nothing is known.
    Beside `start` only settings are tried that `is_allowed` holds for. With `may_reorder` batches may be
    delivered out of order.

    `on_trial` is called after each trial. A later setting that cannot be measured is left out. Raises what
    `measure` raises for `start`, and `InconclusiveError` if no run of it that the budget holds can be
    predicted from.
    """
    began = clock()
    first, seconds = _first(measure, start, budget_s, clock)
    on_trial(first)
    trials, failed = [first], list[Failed]()
    while True:
        wanted, promise = _most_promising(trials, failed, is_allowed, may_reorder)
        agreed = wanted in {trial.setting for trial in trials}
        until_s = budget_s + (reserve_s if len(trials) + len(failed) == 1 else 0.0)
        left = until_s - (clock() - began) - _overhead_s([*trials, *failed], first.demands, wanted)
        # a quicker setting makes as many batches sooner
        enough = seconds * min(1.0, first.measured / promise.value) if promise.value > 0 else seconds
        if agreed or left < enough * SHORTEST:
            break
        tried = _tried(measure, wanted, promise, min(seconds, left), clock)
        if isinstance(tried, Failed):
            failed.append(tried)
        else:
            trials.append(tried)
        on_trial(tried)
    scores = {trial.setting: _promise(trial, trial.setting).value for trial in trials}
    best = _cheapest_of_the_best(scores)
    return Tuned(best, scores[best], tuple(trials), agreed, clock() - began, start, tuple(failed))


def _first(
    measure: Measure, start: Setting, budget_s: float, clock: Callable[[], float]
) -> tuple[Trial, float]:
    """Return the trial of `start`, and the seconds that a trial here has to be given."""
    began, seconds = clock(), budget_s / TRIALS
    while True:
        tried = clock()
        try:
            return _trial(measure, start, None, seconds, clock), seconds
        except InconclusiveError:
            overhead_s = max(0.0, clock() - tried - seconds)
            seconds *= 2  # fewer trials, of steps that take long
            if clock() - began + seconds + overhead_s > budget_s:
                raise


def _trial(
    measure: Measure, setting: Setting, promise: Estimate | None, seconds: float, clock: Callable[[], float]
) -> Trial:
    began = clock()
    run = measure(setting, seconds)
    demands = open_run(run)
    measured = _throughput(run)
    bias = measured / replay(demands).throughput.value
    took = clock() - began
    return Trial(setting, promise, measured, demands, bias, took, max(0.0, took - seconds))


def _tried(
    measure: Measure, setting: Setting, promise: Estimate, seconds: float, clock: Callable[[], float]
) -> Trial | Failed:
    """Run a trial as `_trial` does; a failure here is the setting's fault: an earlier one was measured."""
    began = clock()
    try:
        return _trial(measure, setting, promise, seconds, clock)
    except PipeprofError as error:
        for raised in (error, error.__cause__):  # their frames hold the loader's iterator, and it its workers
            traceback.clear_frames(raised.__traceback__ if raised else None)
        took = clock() - began
        return Failed(setting, error.problem.partition("\n")[0], took, max(0.0, took - seconds))


def _overhead_s(tried: Sequence[Trial | Failed], demands: Demands, wanted: Setting) -> float:
    """Return the seconds that a trial of `wanted` will take besides those that it is given.

    They are those of the nearest one, and more if it has more workers to start: each starts in its turn, and
    they share the cores while they load their libraries.
    """
    nearest = min(tried, key=lambda trial: wanted.distance(trial.setting))
    start_up, more = demands.start_up, max(0, wanted.workers - nearest.setting.workers)
    return (
        nearest.overhead_s + more * (start_up.host_ns + start_up.boot_ns / demands.measured.cores) / NS_PER_S
    )


def _throughput(run: Run) -> float:
    timeline = read_timeline(run)
    window = measured_window(timeline)
    if window is None or window.wall_ns == 0:
        raise InconclusiveError(f"{run.directory}: no step was measured", "give a larger budget")
    return float(timeline.samples[timeline.measured].sum()) * NS_PER_S / window.wall_ns


def _most_promising(
    trials: list[Trial], failed: Sequence[Failed], is_allowed: Callable[[Setting], bool], may_reorder: bool
) -> tuple[Setting, Estimate]:
    """Return the cheapest setting within noise of the best, each predicted from the trial nearest to it.

    Turned one after the other: workers, then prefetch for the best counts of them, then what changes the
    program. Every setting that was measured is in the running; what failed, and what takes more, is not.
    """
    demands, start = trials[0].demands, trials[0].setting
    promises: dict[Setting, Estimate] = {}

    def ask(settings: Iterable[Setting]) -> Setting:
        for setting in settings:
            is_tried = any(trial.setting == setting for trial in trials)
            is_open = is_tried or (is_allowed(setting) and not _dominated_by_failure(setting, trials, failed))
            if setting not in promises and is_open:
                promises[setting] = _promise(
                    min(trials, key=lambda trial: setting.distance(trial.setting)), setting
                )
        return _cheapest_of_the_best({setting: promise.value for setting, promise in promises.items()})

    ask(trial.setting for trial in trials)
    ask(start._replace(workers=workers) for workers in worker_counts(demands.measured))
    best = max(promise.value for promise in promises.values())
    near = sorted(
        (candidate for candidate, promise in promises.items() if promise.value > best * 0.9), key=Setting.cost
    )
    chosen = ask(
        candidate._replace(prefetch=p) for candidate in near[:NEAR] if candidate.workers for p in PREFETCHES
    )
    if demands.batches.copy.any():
        chosen = ask([chosen._replace(pin_memory=True)])
    if demands.steps > demands.batches_per_epoch and chosen.workers:
        chosen = ask([chosen._replace(persistent_workers=True)])
    if may_reorder and chosen.workers > 1:
        chosen = ask([chosen._replace(in_order=False)])
    return chosen, promises[chosen]


def _dominated_by_failure(setting: Setting, trials: Sequence[Trial], failed: Sequence[Failed]) -> bool:
    """Return True if it failed, or takes as much or more of everything than one that failed with more workers
    than ever ran: what memory or time did not hold then, it will not hold now."""
    most = max(trial.setting.workers for trial in trials)
    return any(
        setting == failure.setting
        or (
            failure.setting.workers > most
            and all(mine >= its for mine, its in zip(setting, failure.setting, strict=True))
        )
        for failure in failed
    )


def _promise(trial: Trial, setting: Setting) -> Estimate:
    """Predict the long run under `setting` from `trial`, corrected by what the engine missed there."""
    rate = predict(trial.demands, setting.applied(trial.demands.measured)).throughput
    return Estimate(*(value * trial.bias for value in (rate.value, rate.low, rate.high)))


def _cheapest_of_the_best(scores: Mapping[Setting, float]) -> Setting:
    best = max(scores.values())
    return min(
        (setting for setting, score in scores.items() if score >= best * (1 - EQUAL)), key=Setting.cost
    )


def tune_scenario(
    scenario: Scenario,
    budget_s: float,
    directory: Path,
    on_trial: Callable[[Trial | Failed], None] = lambda trial: None,
) -> tuple[Tuned, Scenario]:
    """Tune a scenario's loader on this machine; the runs go into `directory`. Returns the tuned scenario too.

    A data set that is still to be made is made before the budget's clock starts. Raises what
    `measure.run.run` raises, and `InconclusiveError` if a run cannot be predicted from.
    """
    from pipeprof.measure.bench.bench import Bench
    from pipeprof.measure.bench.run import run

    with Bench(scenario):
        pass

    count = itertools.count(1)

    def measure(setting: Setting, seconds: float) -> Run:
        values = {**setting.scenario_values(), "run.seconds": seconds, "run.steps": None, "run.epochs": None}
        pinned = "-pinned" if setting.pin_memory else ""
        part = directory / f"{next(count)}-w{setting.workers}-p{setting.prefetch}{pinned}"
        return reader.load(run(with_values(scenario, values), part))

    loader = scenario.loader
    # one worker at least: a run without workers does not show what handing batches over costs
    start = Setting(
        max(1, loader.workers), loader.prefetch or 2, loader.pin_memory, loader.persistent_workers
    )
    tuned = search(measure, start, budget_s, on_trial=on_trial)
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
    Prints what it tried. At most about `budget_s` seconds; raises `InconclusiveError` if too few batches came
    in a fifth of them.
    """
    from pipeprof.measure.bench.failure import translated

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
            whole = {"batch_size": batch_size, **given, **setting.arguments()}
            try:
                _train(dataset, step, whole, seconds, out)
            except Exception as error:
                if setting == start:
                    raise  # the caller's own error, as it is
                raise translated(error) from error
            return reader.load(out)

        tuned = search(measure, start, budget_s, on_trial=lambda trial: print(line(trial)))
    print(conclusion(tuned))
    return {"batch_size": batch_size, **given, **tuned.best.arguments()}


def _train(
    dataset: Any, step: Callable[[Any], Any], arguments: dict[str, Any], seconds: float, out: Path
) -> None:
    """Run epochs over a profiled loader until `seconds` have passed."""
    from pipeprof.measure.session.session import Session

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
