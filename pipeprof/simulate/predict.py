"""Question to a recorded run: the throughput that other knobs would have given, with its uncertainty."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np

from pipeprof.analyse.ledger.attribution import Ledger
from pipeprof.errors import InconclusiveError
from pipeprof.graph import Event
from pipeprof.simulate.demands.loader import Demands
from pipeprof.simulate.demands.plain_run import without_own_cost
from pipeprof.simulate.engine import Walked, shape_of, walk
from pipeprof.simulate.extrapolation import Extrapolation
from pipeprof.simulate.knobs import Knobs
from pipeprof.simulate.ledger import predicted_ledger
from pipeprof.simulate.sampling import Draw, batch_ratio, draw
from pipeprof.simulate.uncertainty import device_error, stated, work_error
from pipeprof.timeline import NOT_OBSERVED, Ints, PassMarks, Timeline, Window, measured_window, previous
from pipeprof.units import NS_PER_S
from pipeprof.vocabulary import owners


@dataclass(frozen=True, slots=True)
class Estimate:
    """A predicted number and the interval that should hold the measured one nine times in ten."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """Return plain values, for JSON."""
        return {"value": self.value, "low": self.low, "high": self.high}

    def times(self, scale: float) -> Estimate:
        """Return the estimate and its interval, multiplied."""
        return Estimate(self.value * scale, self.low * scale, self.high * scale)


@dataclass(frozen=True, slots=True)
class Played:
    """A run in virtual time, with what it was drawn from: its ledger is made when it is asked for."""

    demands: Demands
    knobs: Knobs
    draw: Draw
    walked: Walked
    timeline: Timeline
    window: Window

    @property
    def rate(self) -> float:
        """Return the throughput in samples a second, of all ranks of all nodes."""
        samples = (
            self.knobs.nodes * self.knobs.ranks * int(self.timeline.samples[self.timeline.measured].sum())
        )
        return samples * NS_PER_S / max(1, self.window.wall_ns)

    def ledger(self) -> Ledger:
        """Return the ledger: the owners of its time."""
        reading_ns = self.walked.reading_ns.astype(np.float64)
        return predicted_ledger(self.demands, self.knobs, self.draw, self.timeline, self.window, reading_ns)


@dataclass(frozen=True, slots=True)
class Ends:
    """Ends of a prediction's intervals: its possible error."""

    low: float
    high: float
    """Upper end of the throughput's interval over its middle; `low` is the lower one."""
    device: float
    """Part of the interval that no work of the host explains, relative."""
    middle: Played
    others: tuple[Played, ...]
    """Short runs: one as asked for, and the same with more and with less of the host's work."""

    def shares(self, ledger: Ledger) -> dict[str, Estimate]:
        """Return each owner's share of the ledger's window: it moves as it does between the short runs."""
        usual = self.middle.ledger().shares
        ends = [other.ledger().shares for other in self.others]
        estimates = {}
        for owner, value in ledger.shares.items():
            moved = [0.0, *(end.get(owner, 0.0) - usual.get(owner, 0.0) for end in ends)]
            low, high = (value + min(moved)) * (1 - self.device), (value + max(moved)) * (1 + self.device)
            estimates[owner] = Estimate(value, max(0.0, low), min(1.0, high))
        return estimates


class Figures(NamedTuple):
    """The figures of a prediction with their intervals."""

    throughput: Estimate
    utilization: Estimate
    stall: Estimate
    ends: Ends


@dataclass(frozen=True)
class Prediction:
    """A run that has not happened.

    Its ledger is walked, and the three short runs behind its intervals are played, when they are asked for.
    """

    knobs: Knobs
    rate: float
    """Samples a second of the measured window, all ranks of all nodes together: `throughput.value`."""
    played: Played = field(repr=False)
    find_figures: Callable[[], Figures] = field(repr=False, compare=False)
    extrapolations: tuple[Extrapolation, ...] = ()
    """Extrapolations of the question beyond what was measured, in words."""

    @property
    def timeline(self) -> Timeline:
        """Return rank 0's events, in virtual ns from the start of the run."""
        return self.played.timeline

    @cached_property
    def ledger(self) -> Ledger:
        """Return the owners of its time."""
        return self.played.ledger()

    @property
    def idle(self) -> float:
        """Return the share of the window in which the accelerator waited for a batch: `stall.value`."""
        return self.ledger.stall_ns / max(1, self.ledger.window.wall_ns)

    @cached_property
    def _figures(self) -> Figures:
        return self.find_figures()

    @property
    def throughput(self) -> Estimate:
        """Return the samples a second of the measured window, all ranks of all nodes together."""
        return self._figures.throughput

    @property
    def utilization(self) -> Estimate:
        """Return the share of the window in which the accelerator computed, 0 to 1."""
        return self._figures.utilization

    @property
    def stall(self) -> Estimate:
        """Return the share of the window in which it had nothing to do for want of a batch, 0 to 1."""
        return self._figures.stall

    @property
    def shares(self) -> dict[str, Estimate]:
        """Return the share of the window, 0 to 1, of each owner of the ledger. Worked out when asked for."""
        return self._figures.ends.shares(self.ledger)

    @property
    def limit(self) -> str:
        """Return the owner of the largest part of the critical path, which sets the pace of this run.

        It is `unknown` if the run takes no time.
        """
        path_ns = self.ledger.path_ns
        return max(path_ns, key=path_ns.__getitem__, default=owners.UNKNOWN.name)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON; the timeline is left out."""
        return {
            "throughput_samples_per_s": self.throughput.as_dict(),
            "utilization": self.utilization.as_dict(),
            "stall_share": self.stall.as_dict(),
            "wall_ns": self.ledger.window.wall_ns,
            "ledger_ns": self.ledger.ledger_ns,
            "ledger_share": {owner: share.as_dict() for owner, share in self.shares.items()},
            "path_ns": self.ledger.path_ns,
            "limit": self.limit,
            "extrapolations": [str(each) for each in self.extrapolations],
        }


ALIKE: Final = 0.02
"""Share by which predictions with a full device and with one that is not may differ and still be one."""
MAY_BE_FULL: Final = Extrapolation(
    "whether the storage gives more to more readers is not known: the interval holds both, and the lower end "
    "stands; `pipeprof predict RUN --probe` asks it"
)
FEWEST_STEPS: Final = 100
"""Steps of a prediction that is to show the long run."""
MOST_STEPS: Final = 400
"""Recorded steps played at most: a longer run is drawn from, so that a report is made in seconds."""
TRIED_STEPS: Final = 40
"""Steps counted when the ends of an interval are looked for."""
MOST_REPLAYED: Final = 5_000
"""Steps up to which a run is replayed whole."""


def long_run(demands: Demands, knobs: Knobs) -> tuple[int, int]:
    """Return steps and the warm-up after which what the workers made ahead at the start no longer counts."""
    epoch = demands.batches_per_epoch if demands.steps > demands.batches_per_epoch else 0
    recorded = min(demands.steps - demands.warmup, MOST_STEPS)
    warmup = max(demands.warmup, knobs.outstanding)
    counted = max(
        recorded, 2 * knobs.outstanding, 10 * knobs.workers, min(epoch, MOST_REPLAYED), FEWEST_STEPS
    )
    return warmup + counted, warmup


class LateError(InconclusiveError):
    """A question for which there is no more time."""


class Predictor:
    """Predictor of one run, as it is without pipeprof. Equal questions are simulated once and give the same
    prediction."""

    def __init__(self, recorded: Demands, seed: int = 0) -> None:
        self.recorded, self.demands, self.seed = recorded, without_own_cost(recorded), seed
        self.is_late: Callable[[], bool] = bool
        """True from the time at which nothing is predicted any more that is not known; never by itself."""
        self._known: dict[tuple[Knobs, int, int], Prediction] = {}
        self._replayed: Prediction | None = None

    def predict(self, knobs: Knobs, steps: int | None = None, warmup: int | None = None) -> Prediction:
        """Predict the run that `knobs` would give; see `predict` for the arguments and what it raises.

        Raises `LateError` if `is_late` and the answer is not known.
        """
        steps, warmup = _lengths(self.demands, knobs, steps, warmup)
        key = (knobs, steps, warmup)
        if key not in self._known:
            if self.is_late():
                raise LateError("there is no more time", "ask it alone: `pipeprof predict`")
            self._known[key] = self._predicted(knobs, steps, warmup)
        return self._known[key]

    def _predicted(self, knobs: Knobs, steps: int, warmup: int) -> Prediction:
        """Predict, with both ends if it is not known whether the device of the data is full."""
        demands, worst = self.demands, self.demands.if_full
        prediction = predict(demands, knobs, steps, warmup, self.seed)
        if worst is None or knobs.storage != demands.measured.storage or knobs == demands.measured:
            return prediction
        full = predict(worst, replace(knobs, storage=worst.measured.storage), steps, warmup, self.seed)
        return either(prediction, full, self._base_if_full)

    @cached_property
    def _base_if_full(self) -> float:
        """Return the throughput of the run as it is over that which is simulated of it on a full device."""
        worst = self.demands.if_full
        assert worst is not None, "only asked where there is one"
        steps, warmup = long_run(worst, worst.measured)
        full = _play(worst, worst.measured, steps, min(steps - 1, warmup), self.seed).rate
        return self.base().rate / full if full else 1.0

    def base(self) -> Prediction:
        """Predict the long run as it is, which every change of knobs is compared with."""
        return self.predict(self.demands.measured)

    def at_least(self, knobs: Knobs, steps: int) -> Prediction:
        """Return the long run of `knobs` if it has been predicted, else a run of `steps` steps."""
        long = (knobs, *long_run(self.demands, knobs))
        return self._known.get(long) or self.predict(knobs, steps)

    def replay(self) -> Prediction:
        """Predict the recorded run step by step, with what observing it cost: compared with the measured
        numbers it shows what to trust."""
        recorded = self.recorded
        steps = min(recorded.steps, MOST_REPLAYED)
        if recorded is self.demands:
            return self.predict(recorded.measured, steps, recorded.warmup)
        if self._replayed is None:
            self._replayed = predict(recorded, recorded.measured, steps, recorded.warmup, self.seed)
        return self._replayed


def either(usual: Prediction, full: Prediction, scale: float) -> Prediction:
    """Return the lower of two predictions with an interval that holds both: the device may be full, or not.

    `scale` brings those of the full device to the level of the run as it is.
    """
    if full.rate * scale >= usual.rate * (1 - ALIKE):
        return usual

    def figures() -> Figures:
        return Figures(
            throughput=_around(full.throughput.times(scale), usual.throughput),
            utilization=_around(full.utilization, usual.utilization),
            stall=_around(full.stall, usual.stall),
            ends=full._figures.ends,
        )

    return replace(
        full,
        knobs=usual.knobs,
        rate=full.rate * scale,
        find_figures=figures,
        extrapolations=(*usual.extrapolations, MAY_BE_FULL),
    )


def _around(estimate: Estimate, other: Estimate) -> Estimate:
    return Estimate(estimate.value, min(estimate.low, other.low), max(estimate.high, other.high))


def replay(demands: Demands, seed: int = 0) -> Prediction:
    """Predict the recorded run again, step by step."""
    return Predictor(demands, seed).replay()


def _lengths(demands: Demands, knobs: Knobs, steps: int | None, warmup: int | None) -> tuple[int, int]:
    """Return steps and warm-up of a prediction, the long run's if they are not given."""
    usual = long_run(demands, knobs)
    steps = usual[0] if steps is None else steps
    return steps, min(steps - 1, usual[1] if warmup is None else warmup)


def predict(
    demands: Demands, knobs: Knobs, steps: int | None = None, warmup: int | None = None, seed: int = 0
) -> Prediction:
    """Predict the run that `knobs` would give: of `steps` steps, the first `warmup` not counted; else the
    long run.

    Raises `InconclusiveError` if the run cannot answer. Equal arguments give equal predictions.
    """
    extrapolations = stated(demands, knobs)
    steps, warmup = _lengths(demands, knobs, steps, warmup)
    played = _play(demands, knobs, steps, warmup, seed)
    prediction: Prediction

    def figures() -> Figures:
        return _figures(prediction, _ends(demands, knobs, steps - warmup, seed))

    prediction = Prediction(knobs, played.rate, played, figures, extrapolations)
    return prediction


def _figures(prediction: Prediction, ends: Ends) -> Figures:
    """Return the figures of a prediction, with their intervals between the ends."""
    rate, idle, low, high = prediction.rate, prediction.idle, ends.low, ends.high
    wall_ns = max(1, prediction.ledger.window.wall_ns)
    busy = prediction.ledger.ledger_ns.get(owners.ACCELERATOR.name, 0) / wall_ns
    return Figures(
        throughput=Estimate(rate, rate * low, rate * high),
        utilization=Estimate(busy, busy * low, min(1.0, busy * high)),
        stall=Estimate(idle, max(0.0, 1 - (1 - idle) * high), 1 - (1 - idle) * low),
        ends=ends,
    )


def replayed_rate(demands: Demands, most_steps: int) -> float:
    """Return the samples a second of the run as it was recorded, of at most that many measured steps."""
    steps = min(demands.steps, demands.warmup + most_steps)
    return _play(demands, demands.measured, steps, min(steps - 1, demands.warmup), seed=0).rate


def _play(demands: Demands, knobs: Knobs, steps: int, warmup: int, seed: int) -> Played:
    draws = [draw(demands, knobs, steps, seed, rank) for rank in range(knobs.ranks)]
    walked = walk(knobs, draws)[0]
    timeline = as_timeline(walked, demands, knobs, draws[0], warmup)
    window = measured_window(timeline)
    assert window is not None, "a step after warm-up was walked"
    return Played(demands, knobs, draws[0], walked, timeline, window)


def _ends(demands: Demands, knobs: Knobs, counted: int, seed: int) -> Ends:
    """Return the ends of the intervals.

    Short runs with more and with less of the host's work show how far the pace depends on it: not at all if a
    device sets it, and downwards only if the accelerator is just kept busy.
    """
    error = work_error(demands, knobs, counted)
    warmup = max(5, knobs.outstanding)
    steps = warmup + max(TRIED_STEPS, knobs.outstanding, 4 * knobs.workers)
    made = {*demands.batches.cpu, *demands.batches.away}
    scaled = (owners.TRANSFER.name, owners.PIN.name, owners.MAIN.name, owners.COLLECTIVE.name)

    def tried(factor: float) -> Played:
        asked = knobs.scaled(**dict.fromkeys((*made, *scaled), factor))
        if not demands.emulated_accelerator:
            asked = replace(asked, accelerator_speed=asked.accelerator_speed / factor)
        return _play(demands, asked, steps, warmup, seed)

    middle, slow, fast = tried(1.0), tried(1 + error), tried(1 / (1 + error))
    device = device_error(demands, knobs)
    return Ends(
        low=min(1.0, slow.rate / middle.rate) * (1 - device),
        high=max(1.0, fast.rate / middle.rate) * (1 + device),
        device=device,
        middle=middle,
        others=(slow, fast),
    )


def as_timeline(walked: Walked, demands: Demands, knobs: Knobs, drawn: Draw, warmup: int) -> Timeline:
    """Return the simulated run as the arrays that attribution walks backwards.

    Its events are those recorded of the run that it is drawn from.
    """
    n, times, observed = len(walked.seq), walked.times, demands.observed
    steps, unseen = np.arange(n, dtype=np.int64), np.full(n, NOT_OBSERVED, dtype=np.int64)

    def shown(event: Event, seen: bool) -> Ints:
        return times[event] if seen else unseen

    return Timeline(
        step=steps,
        loader=np.zeros(n, dtype=np.int64),
        epoch=walked.epoch,
        seq=walked.seq,
        warmup=steps < warmup,
        samples=_samples(walked, demands, knobs, drawn),
        worker=walked.worker,
        dispatch_ns=times[Event.DISPATCH],
        start_ns=times[Event.START],
        finish_ns=times[Event.FINISH],
        pickled_ns=unseen,
        sent_ns=shown(Event.SENT, observed.sent and knobs.workers > 0),
        sent_bytes=unseen,
        state_bytes=unseen,
        received_ns=shown(Event.RECEIVED, observed.received and knobs.workers > 0),
        arrival_ns=shown(Event.AVAILABLE, observed.arrived or not knobs.workers),
        request_ns=times[Event.REQUEST],
        take_ns=times[Event.TAKE],
        launch_ns=times[Event.LAUNCH],
        copy_start_ns=shown(Event.COPY_START, observed.device),
        copy_end_ns=shown(Event.COPY, observed.device),
        compute_start_ns=shown(Event.COMPUTE_START, observed.device),
        compute_end_ns=shown(Event.COMPUTE, observed.device),
        device_wait_ns=_device_waits(times) if observed.device_waits else unseen,
        batch_row=unseen,
        previous=previous(np.zeros(n, dtype=np.int64), walked.epoch, walked.worker, times[Event.START]),
        marks=_marks(walked),
        pin_threads=frozenset({0}) if shape_of(knobs, drawn).pin_memory else frozenset(),
    )


def _samples(walked: Walked, demands: Demands, knobs: Knobs, drawn: Draw) -> Ints:
    """Return the samples of each step: as many as the recorded batch had, at the size that is asked for."""
    samples = demands.batches.samples[drawn.rows[walked.epoch * drawn.batches_per_epoch + walked.seq]]
    samples = np.where(samples > 0, samples * batch_ratio(demands, knobs), knobs.batch_size)
    return np.rint(samples).astype(np.int64)


def _device_waits(times: Mapping[Event, Ints]) -> Ints:
    """Return how long the device was idle before each batch was taken, as a device itself measures it."""
    free = np.append(times[Event.REQUEST][:1], times[Event.COMPUTE][:-1])
    return np.asarray(np.maximum(times[Event.TAKE] - np.maximum(free, times[Event.REQUEST]), 0))


def _marks(walked: Walked) -> dict[tuple[int, int], PassMarks]:
    """Return the marks of passes without pauses: the loop asks for the next epoch when one is over, and waits
    until its iterator is there."""
    first = np.flatnonzero(np.append(True, np.diff(walked.epoch) != 0))
    asked = walked.times[Event.REQUEST][first].tolist()
    over = walked.times[Event.LAUNCH][first[1:] - 1].tolist()
    return {
        (0, epoch): PassMarks(begun_ns=begun, ready_ns=ready, exhausted_ns=ended)
        for epoch, (begun, ready, ended) in enumerate(
            zip([0, *over], asked, [*over, None], strict=True), int(walked.epoch[0])
        )
    }
