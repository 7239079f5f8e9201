"""The fixes of the catalogue with their predictions, and which of them to apply first.

`choose` applies the one rule of `pipeprof.analyse.choice` to predicted gains; verdict, page, terminal and
`predict` show what it returns. `advice` puts the next best behind it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pipeprof.analyse import choice
from pipeprof.analyse.causes import Finding
from pipeprof.analyse.choice import EQUAL
from pipeprof.analyse.figures import Facts
from pipeprof.errors import InconclusiveError
from pipeprof.simulate.catalogue import PossibleFix, catalogue
from pipeprof.simulate.knobs import MEMORY, Knobs
from pipeprof.simulate.predict import Estimate, Prediction, Predictor
from pipeprof.simulate.sampling import scalable
from pipeprof.vocabulary import fixes, mechanisms, owners

MOST_ADVISED: Final = 3
UNLIKE: Final = 0.25
"""Largest error of a replay, as a share of the measured throughput, with which it may choose a fix."""
NO_WORSE: Final = (fixes.FEWER_WORKERS.word, fixes.NO_WORKERS.word, fixes.FASTER_STORAGE.word)
"""Fixes that are left out if they would lose throughput."""
COUNTED: Final = (fixes.MORE_WORKERS.word, fixes.FEWER_WORKERS.word, fixes.DEEPER_PREFETCH.word)
"""Fixes that are a number: the smallest of those within `EQUAL` of the best represents all."""


AS_MEASURED: Final = 0.02
"""Share of its throughput by which a replay may miss a run and still be as it: within its own spread."""
FEWEST_WAITING: Final = 0.02
"""Share of the time that a run and its replay must both wait for the one to say how far off the other is."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Measured rate of a run, and the distance of its waiting and of all else from the replay's.

    Both parts of a step are as far off in a prediction as they were in the replay. A prediction that no
    longer waits is therefore as fast as the loop without its waiting was measured to be, however far off the
    replay's waiting was.
    """

    base: Prediction
    """Prediction of the run as it is."""
    measured: float | None = None
    """Samples a second; None if not known: rates are then as predicted."""
    waiting: float = 1.0
    """Measured time that the accelerator waited for a sample, over the replay's."""
    rest: float = 1.0
    """Measured time of a sample in which it did not wait, over the replay's."""

    def gain(self, prediction: Prediction) -> float:
        """Return the share of the present throughput that a prediction adds; below 0 if it takes away."""
        now = self._rate(self.base)
        return self._rate(prediction) / now - 1 if now else 0.0

    def rate(self, prediction: Prediction) -> Estimate:
        """Return the samples a second of a prediction, as a gain over the measured rate."""
        return _over(self.measured, self.gain(prediction), prediction.throughput)

    def _rate(self, prediction: Prediction) -> float:
        if self.waiting == self.rest:  # for both only the ratio to the base counts
            return prediction.rate
        idle = prediction.idle
        return prediction.rate / (self.waiting * idle + self.rest * (1 - idle))


def _over(measured: float | None, gain: float, predicted: Estimate) -> Estimate:
    """Return a rate that is a gain over the measured one, as predicted if none is known."""
    if not measured or not predicted.value:
        return predicted
    return predicted.times(measured * (1 + gain) / predicted.value)


def calibrated(
    base: Prediction, replay: Prediction | None, measured: float | None, stall_share: float | None
) -> Calibration:
    """Calibrate by what was measured of a run: its samples a second and the share of its waiting.

    The two parts are told apart only if the replay is off, and both it and the run waited.
    """
    if replay is None or not measured or stall_share is None:
        return Calibration(base, measured)
    if abs(replay.rate / measured - 1) <= AS_MEASURED:
        return Calibration(base, measured)
    idle = replay.idle
    if min(idle, stall_share) < FEWEST_WAITING or max(idle, stall_share) > 1 - FEWEST_WAITING:
        return Calibration(base, measured)
    scale = replay.rate / measured
    return Calibration(base, measured, scale * stall_share / idle, scale * (1 - stall_share) / (1 - idle))


@dataclass(frozen=True, slots=True)
class Ranked:
    """A fix with what is predicted of it."""

    fix: PossibleFix
    prediction: Prediction
    gain: float
    """Share of the present throughput that it adds; below 0 if it makes things worse."""
    feasible: bool = True
    """True if the machine has the memory that it needs, as far as that is known."""
    measured: float | None = None
    """Measured samples a second that it gains over; None if not known."""

    @property
    def rate(self) -> Estimate:
        """Return the samples a second with it: a gain over the measured rate, else as predicted."""
        return _over(self.measured, self.gain, self.prediction.throughput)

    @property
    def worthwhile(self) -> bool:
        """Return True if it gains anything, and the machine can accommodate it."""
        return self.feasible and self.gain > EQUAL

    def summary(self) -> dict[str, Any]:
        """Return the change, its costs and the figures with it, as plain values, for JSON."""
        fix = self.fix
        return {
            "fix": fix.word,
            "title": fix.title,
            "how": fix.how,
            "keys": fix.keys or None,
            "gain": self.gain,
            "throughput_samples_per_s": self.rate.as_dict(),
            "stall_share": self.prediction.stall.as_dict(),
            "ram_bytes": fix.ram_bytes,
            "cores": fix.cores,
            "feasible": None if fix.ram_bytes is None else self.feasible,
            "assumption": fix.assumption,
        }

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON, including all of the prediction."""
        return {**self.prediction.as_dict(), **self.summary()}


@dataclass(frozen=True, slots=True)
class Choice:
    """The fix to name; `ranked` is its prediction, None if there is none."""

    word: str
    ranked: Ranked | None = None


def rank(
    predictor: Predictor,
    ineffective: Collection[str] = (),
    words: Collection[str] | None = None,
    calibration: Calibration | None = None,
) -> list[Ranked]:
    """Predict the fixes of the catalogue, the largest gain first, those that do not fit in memory last.

    Those in `ineffective` are left out; if `words` are given, all others. If more workers are ineffective, so
    is every fix that brings more of them. Gains are over the run as it is, by `calibration` if it
    is given. Raises as `predict` does for the run as it is.
    """
    demands, calibration = predictor.demands, calibration or Calibration(predictor.base())
    most = demands.measured.workers if fixes.MORE_WORKERS.word in ineffective else None
    groups: dict[str, list[Ranked]] = {}
    for fix in catalogue(demands):
        if fix.word in ineffective or (words is not None and fix.word not in words):
            continue
        if most is not None and fix.knobs.workers > most:
            continue
        try:
            prediction = predictor.predict(fix.knobs)
        except InconclusiveError:
            continue
        feasible = choice.fits_in_memory(fix.ram_bytes or 0, demands.host.memory_bytes)
        key = fix.word if fix.word in COUNTED else fix.title
        groups.setdefault(key, []).append(
            Ranked(fix, prediction, calibration.gain(prediction), feasible, calibration.measured)
        )
    kept = [_cheapest_of_the_best(group) for group in groups.values()]
    kept = [candidate for candidate in kept if candidate.fix.word not in NO_WORSE or candidate.gain > -EQUAL]
    return sorted(kept, key=lambda candidate: (not candidate.feasible, -candidate.gain))


def _cheapest_of_the_best(group: Sequence[Ranked]) -> Ranked:
    best = max(candidate.gain for candidate in group)
    near = [candidate for candidate in group if choice.equal(candidate.gain, best)]
    return min(near, key=lambda candidate: (candidate.fix.knobs.workers, candidate.fix.knobs.prefetch))


def choose(
    ranked: Sequence[Ranked], finding: Finding, facts: Facts, replay_error: float | None = None
) -> Choice:
    """Choose among the predicted fixes that bear on the cause.

    If the replay is further than `UNLIKE` from the run, the predictor does not know what held it up: the fix
    is then chosen without gains, and a prediction of it is kept only if it gains.
    """
    best = {candidate.fix.word: candidate for candidate in reversed(ranked) if candidate.feasible}
    # What cannot be done here gains nothing.
    gains = dict.fromkeys((candidate.fix.word for candidate in ranked), 0.0)
    if abs(replay_error or 0.0) > UNLIKE:
        gains = {word: gain for word, gain in gains.items() if word not in best}
        best = {word: candidate for word, candidate in best.items() if candidate.worthwhile}
    else:
        gains |= {word: candidate.gain for word, candidate in best.items()}
    word = choice.choose(finding, facts, gains)
    if finding.shown is not None and finding.shown.mechanism is mechanisms.LOST_CACHE:
        return Choice(word, None)  # the replay makes each sample again, and has no cache
    return Choice(word, best.get(word))


def advice(
    ranked: Sequence[Ranked],
    chosen: Choice,
    finding: Finding,
    facts: Facts,
    replay_error: float | None = None,
    shares: Mapping[str, float] | None = None,
) -> list[Ranked]:
    """List the predicted ones of at most three fixes to apply: the chosen one, then the largest gains of
    others.

    Empty if none was chosen. What is known to be useless here, or bears on nothing that takes a share worth
    mending (`shares` of the ledger), is left out, however large its predicted gain, and all others if the
    replay is unlike the run. More cores cost money, and are listed only if they were chosen.
    """
    if chosen.word == fixes.NONE.word:
        return []
    if abs(replay_error or 0.0) > UNLIKE:
        return [] if chosen.ranked is None else [chosen.ranked]
    others: dict[str, Ranked] = {}
    bears = choice.bearing(finding, shares or {})
    for candidate in ranked:
        word = candidate.fix.word
        if not candidate.worthwhile or word in (chosen.word, fixes.MORE_CORES.word):
            continue
        if word in bears and not choice.is_useless(word, finding, facts):
            others.setdefault(word, candidate)
    if chosen.ranked is None:
        return list(others.values())[: MOST_ADVISED - 1]
    return [chosen.ranked, *others.values()][:MOST_ADVISED]


def in_memory(predictor: Predictor) -> Knobs:
    """Return the knobs of the same loop with every batch already in memory."""
    demands = predictor.demands
    knobs = demands.measured
    kept = {owners.MAIN.name, owners.H2D.name, owners.COLLECTIVE.name}
    everything = dict.fromkeys(scalable(demands) - kept, 0.0)
    # if no read was seen, none is left to be made cheaper, and another storage could not be asked for
    if demands.place.reads_observed:
        knobs = replace(knobs, storage=MEMORY, keep="decoded")
    return replace(knobs, scale={**knobs.scale, **everything})


def headroom(predictor: Predictor) -> Prediction:
    """Predict the run with the best of all loaders.

    Without workers if that is better: what costs nothing to make still has to be handed over.
    """
    free = in_memory(predictor)
    runs = [predictor.predict(knobs) for knobs in (free, replace(free, workers=0))]
    return max(runs, key=lambda run: run.rate)
