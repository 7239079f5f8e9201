"""Tune the loader of a user's own script: every trial is a fresh process of it, unedited."""

from __future__ import annotations

import itertools
import math
import re
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from pipeprof import units
from pipeprof.analyse.analysis import Analysis, analyse
from pipeprof.analyse.choice import EQUAL
from pipeprof.analyse.differences import Figure, cores_between, figures
from pipeprof.analyse.rates import mean_interval
from pipeprof.errors import InconclusiveError
from pipeprof.record.meta import LoaderMeta
from pipeprof.record.reader import Run
from pipeprof.simulate.demands.loader import FEWEST_BATCHES
from pipeprof.simulate.tuning.edit import Edit, edit_of
from pipeprof.simulate.tuning.processes import Script, trace_once
from pipeprof.simulate.tuning.trials import Failed, Setting, Trial, Tuned, as_dict, described
from pipeprof.simulate.tuning.tune import TRIALS, WARMUP_STEPS, search
from pipeprof.timeline import read_ints
from pipeprof.vocabulary.arguments import value_text

_PARTS: Final = 10
"""Parts of a run whose means are compared, if it is too short for batch means."""
FOR_SEARCH: Final = 0.8
"""Share of the budget that the search gets; in the remainder the present setting is measured again."""


@dataclass(frozen=True, slots=True)
class Gain:
    """Speed of the best setting over that of the present one, both measured, with a 95% interval."""

    value: float
    low: float | None
    high: float | None
    cores: str = ""
    """How much of it the speed of the cores explains, in words; empty if that was alike."""

    @property
    def is_real(self) -> bool:
        """Return True if it is a gain beyond noise."""
        return self.low is not None and self.low > 1 and self.value > 1 + EQUAL


@dataclass(frozen=True, slots=True)
class TunedScript:
    """Result of tuning a script."""

    tuned: Tuned
    present: Setting
    loader: LoaderMeta
    gain: Gain | None
    """None if nothing but the present setting was measured."""
    edit: Edit = field(default_factory=Edit)
    command: str = ""
    """Command that runs the script with the best setting."""

    @property
    def stays(self) -> bool:
        """Return True if the present setting is as good as any that was measured."""
        return self.gain is None or not self.gain.is_real

    @property
    def is_known(self) -> bool:
        """Return False if nothing else was measured that promised more."""
        return self.gain is not None or self.tuned.agreed


class _Trials:
    """Runs of the script. The first is made with the script's own arguments, and says what those are."""

    def __init__(self, script: Script, directory: Path, max_memory_bytes: int | None) -> None:
        self._script, self._directory, self._max_memory_bytes = script, directory, max_memory_bytes
        self._count = itertools.count(1)
        self._waiting: Run | None = None
        self._began_s = time.monotonic()
        self.runs: dict[Setting, list[Run]] = {}
        self.loader, self.present, self._name = LoaderMeta(0), Setting(0), "loader"

    def begin(self, seconds: float) -> None:
        """Run the script as it is. Raises `InconclusiveError` if it takes no batch from a DataLoader."""
        run = self._trace("present", (), seconds, WARMUP_STEPS)
        measured = analyse(run).verdict.measured
        if measured.loader is None:
            raise _too_few(run)
        self.loader = run.meta.loader(measured.loader.id)
        self.present = _setting_of(self.loader)
        self._name = _address(self.loader) if measured.other_loaders else "loader"
        self._waiting = run
        self.runs[self.present] = [run]

    def clock(self) -> float:
        """Return the time; until the first run is taken, when that began."""
        return self._began_s if self._waiting is not None else time.monotonic()

    def measure(self, setting: Setting, seconds: float) -> Run:
        """Run the script with a setting."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            if not _holds_enough(waiting):
                raise _too_few(waiting)
            return waiting
        run = self._trace(_label(setting), self.settings(setting), seconds, WARMUP_STEPS + setting.workers)
        if setting == self.present and not any(map(_holds_enough, [run, *self.runs.get(setting, [])])):
            raise _too_few(run)
        self.runs.setdefault(setting, []).append(run)
        return run

    def _trace(self, label: str, settings: tuple[str, ...], seconds: float, warmup_steps: int) -> Run:
        out = self._directory / f"{next(self._count)}-{label}"
        return trace_once(self._script, settings, seconds, out, warmup_steps, self._max_memory_bytes)

    def settings(self, setting: Setting) -> tuple[str, ...]:
        """Return what `trace --set` is given to get a setting."""
        return tuple(
            f"{self._name}.{key}={value_text(value)}" for key, value in self.changed(setting).items()
        )

    def changed(self, setting: Setting) -> dict[str, Any]:
        """Return the arguments of DataLoader in which a setting differs from the present one."""
        before, after = ({"in_order": True, **each.arguments()} for each in (self.present, setting))
        changed = {key: value for key, value in after.items() if value != before[key]}
        if setting.workers == 0:  # what needs workers goes with them
            changed = {key: value for key, value in changed.items() if key not in _OF_WORKERS}
        return changed


def _holds_enough(run: Run) -> bool:
    """Return whether a run has as many measured steps as a prediction needs."""
    steps = read_ints(run, "steps", ("step",))["step"]
    return len(steps) >= WARMUP_STEPS + FEWEST_BATCHES


def _too_few(run: Run) -> InconclusiveError:
    """Say that too few batches came, and which budget would be enough at their rate."""
    took_ns = np.sort(read_ints(run, "steps", ("take_ns",))["take_ns"])
    if len(took_ns) < 2:
        return InconclusiveError(
            "the script took too few batches from its DataLoaders to say anything", "give a larger budget"
        )
    each_ns = float(took_ns[-1] - took_ns[0]) / (len(took_ns) - 1)
    enough_s = math.ceil(each_ns / units.NS_PER_S * (WARMUP_STEPS + _ENOUGH_STEPS) * TRIALS / FOR_SEARCH)
    return InconclusiveError(
        f"the script took {len(took_ns)} batches from its DataLoaders in a trial, one each "
        f"{units.duration(each_ns)}: too few to say anything",
        f"give it --budget {enough_s} or more",
    )


_ENOUGH_STEPS: Final = 10
"""Steps after warm-up: twice the least that a prediction needs."""
_OF_WORKERS: Final = ("prefetch_factor", "persistent_workers")


def tune_script(
    script: Script,
    budget_s: float,
    directory: Path,
    on_trial: Callable[[Trial | Failed], None] = lambda trial: None,
    keep_order: bool = False,
    max_memory_bytes: int | None = None,
) -> TunedScript:
    """Find the best arguments for the loader that the script waits for most.

    Takes about `budget_s` seconds; the runs go into `directory`. Batches keep their order with `keep_order`.
    A setting with which the script's processes together take more than `max_memory_bytes` is given up. Raises
    `MeasureError` if the script fails as it is, `InconclusiveError` if too few batches came.
    """
    trials = _Trials(script, directory, max_memory_bytes)
    began = trials.clock()
    trials.begin(budget_s * FOR_SEARCH / TRIALS)
    reorders = trials.present.in_order and not keep_order
    # less prefetching gains nothing but memory: it is not a change to propose by itself
    least = 1 if max_memory_bytes is not None else min(2, trials.present.prefetch)
    tuned = search(
        trials.measure,
        trials.present,
        budget_s * FOR_SEARCH,
        trials.clock,
        on_trial,
        lambda setting: setting.prefetch >= least,
        reorders,
        budget_s * (1 - FOR_SEARCH),
    )
    best = tuned.best
    if best == trials.present:
        return TunedScript(tuned, trials.present, trials.loader, None)
    left = budget_s - (time.monotonic() - began) - tuned.trials[0].overhead_s
    if left > 1:
        trials.measure(trials.present, min(left, budget_s * FOR_SEARCH / TRIALS))
    gain = _gain([analyse(run) for run in trials.runs[trials.present]], analyse(trials.runs[best][-1]))
    changed = _whole(trials.changed(best), trials.present, best)
    command = shlex.join(["pipeprof", "trace", *script.words(trials.settings(best))])
    return TunedScript(tuned, trials.present, trials.loader, gain, edit_of(trials.loader, changed), command)


def _whole(changed: Mapping[str, Any], before: Setting, after: Setting) -> dict[str, Any]:
    """Return the arguments to write in the script: those, too, that torch refuses without workers."""
    if after.workers or not before.workers:
        return dict(changed)
    return {**changed, "prefetch_factor": None, "persistent_workers": False}


def _gain(present: list[Analysis], best: Analysis) -> Gain:
    """Compare throughputs. How far two runs of the present setting lie apart widens the interval, and so does
    what cores of another speed explain."""
    rates = [figures(each)["throughput_samples_per_s"] for each in present]
    after = figures(best)["throughput_samples_per_s"]
    if not any(rate.value for rate in rates) or not after.value:
        raise InconclusiveError("no step was measured", "give a larger budget")
    halves = [_half_share(*each) for each in zip(present, rates, strict=True)]
    known = [
        (rate.value, half)
        for rate, half in zip(rates, halves, strict=True)
        if rate.value and half is not None
    ]
    speeds = cores_between(present[-1], best)
    cores = "" if speeds is None else speeds.sentence
    of_best = _half_share(best, after)
    values = [value for value, _ in known] or [rate.value for rate in rates if rate.value]
    before = sum(values) / len(values)
    ratio = after.value / before
    if of_best is None or not known:  # runs of too few steps say nothing of their spread
        return Gain(ratio, None, None, cores)
    shares = [half / len(known) for _, half in known]
    spread = (max(values) - min(values)) / 2 / before
    explained = 0.0
    if speeds is not None and cores:
        explained = speeds.relative if speeds.explains is None else speeds.explains
    half = ratio * math.hypot(*shares, spread, of_best, explained)
    return Gain(ratio, ratio - half, ratio + half, cores)


def _half_share(analysis: Analysis, rate: Figure) -> float | None:
    """Return half the interval of a run's throughput, as a share of it; None if too few steps were measured.

    A trial of long steps has too few for batch means: its steps, or ten parts of them, are then taken to be
    independent.
    """
    if rate.half is not None and rate.value:
        return rate.half / rate.value
    lengths = np.zeros(0) if analysis.attribution is None else analysis.attribution.step_lengths
    if len(lengths) < FEWEST_BATCHES:
        return None
    parts = np.array_split(lengths, min(len(lengths), _PARTS))
    mean, low, high = mean_interval([float(part.mean()) for part in parts])
    return (high - low) / 2 / mean


def _setting_of(loader: LoaderMeta) -> Setting:
    return Setting(
        loader.workers or 0,
        loader.prefetch or 2,
        bool(loader.pin_memory),
        bool(loader.persistent_workers),
        loader.in_order is not False,
    )


def _address(loader: LoaderMeta) -> str:
    """Return the name by which `--set` knows a loader; that of all if it has none in the source."""
    return re.sub(r"-\d+$", "", loader.name) if loader.file and not loader.in_library else "loader"


def _label(setting: Setting) -> str:
    parts = [f"w{setting.workers}", f"p{setting.prefetch}"]
    named = (("pinned", setting.pin_memory), ("kept", setting.persistent_workers))
    return "-".join(
        [*parts, *(name for name, holds in (*named, ("unordered", not setting.in_order)) if holds)]
    )


def conclusion(result: TunedScript) -> list[str]:
    """Return the lines that a search ends with, before the change to make."""
    tuned, spent = result.tuned, units.duration(result.tuned.seconds * units.NS_PER_S)
    why = "predicted and measured agree" if tuned.agreed else "the budget is spent"
    lines = [f"{units.plural(len(tuned.trials), 'setting')} measured in {spent} ({why})."]
    if tuned.failed:
        names = "; ".join(described(each.setting) for each in tuned.failed)
        lines.append(f"Could not be measured: {names}.")
    if result.gain is not None:
        gain = result.gain
        interval = "" if gain.low is None else f" (95% CI {units.digits(gain.low)}–{units.digits(gain.high)})"
        lines.append(
            f"Best: {described(tuned.best)}: {units.digits(gain.value)} times the speed of the present "
            f"{described(result.present)}{interval}, measured."
        )
        if gain.cores:
            lines.append(f"{gain.cores[0].upper()}{gain.cores[1:]}.")
    if not result.is_known:
        lines.append("No other setting could be measured in that time: give a larger --budget.")
    elif result.stays:
        reason = "nothing else promises more" if result.gain is None else "no gain beyond noise was measured"
        lines.append(f"Stay as it is ({described(result.present)}): {reason}.")
    return lines


def result_as_dict(result: TunedScript, written: Path) -> dict[str, Any]:
    """Return plain values, for JSON."""
    gain = result.gain
    return {
        **as_dict(result.tuned, written),
        "present": result.present.arguments(),
        "stay": result.stays if result.is_known else None,
        "gain": None if gain is None else asdict(gain),
        "loader": {"name": result.loader.name, "file": result.loader.file, "line": result.loader.line},
        "diff": result.edit.diff or None,
        "notes": list(result.edit.notes),
        "command": result.command or None,
    }
