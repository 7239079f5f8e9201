"""A question to a recorded run: what would other knobs have given, and how sure is that."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from pipeprof.analyse.attribution import Ledger
from pipeprof.devices import NS_PER_S
from pipeprof.pipeline import NOT_OBSERVED, Timeline, Window, measured_window
from pipeprof.simulate.demands import Demands
from pipeprof.simulate.doubt import device_error, stated, work_error
from pipeprof.simulate.draw import Draw, draw
from pipeprof.simulate.engine import Walked, walk
from pipeprof.simulate.knobs import Knobs
from pipeprof.simulate.ledger import predicted_ledger


@dataclass(frozen=True, slots=True)
class Estimate:
    """A predicted number and the interval that should hold the measured one nine times in ten."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """For JSON."""
        return {"value": self.value, "low": self.low, "high": self.high}


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
        """Samples a second of all ranks of all nodes."""
        samples = (
            self.knobs.nodes * self.knobs.ranks * int(self.timeline.samples[~self.timeline.warmup].sum())
        )
        return samples * NS_PER_S / max(1, self.window.wall_ns)

    def ledger(self) -> Ledger:
        """Who owned its time."""
        reading_ns = self.walked.reading_ns.astype(np.float64)
        return predicted_ledger(self.demands, self.knobs, self.draw, self.timeline, self.window, reading_ns)


@dataclass(frozen=True, slots=True)
class Ends:
    """How far a prediction may be off."""

    low: float
    high: float
    """The ends of the throughput's interval over its middle."""
    device: float
    """The part of it that no work of the host explains, relative."""
    middle: Played
    others: tuple[Played, ...]
    """A short run as asked for, and the same with more and with less of the host's work."""

    def shares(self, ledger: Ledger) -> dict[str, Estimate]:
        """Each owner's share of the ledger's window: it moves as it does between the short runs."""
        usual = _shares(self.middle.ledger())
        ends = [_shares(other.ledger()) for other in self.others]
        found = {}
        for owner, value in _shares(ledger).items():
            moved = [0.0, *(end.get(owner, 0.0) - usual.get(owner, 0.0) for end in ends)]
            low, high = (value + min(moved)) * (1 - self.device), (value + max(moved)) * (1 + self.device)
            found[owner] = Estimate(value, max(0.0, low), min(1.0, high))
        return found


def _shares(ledger: Ledger) -> dict[str, float]:
    return {owner: ns / max(1, ledger.window.wall_ns) for owner, ns in ledger.ledger_ns.items()}


@dataclass(frozen=True, slots=True)
class Prediction:
    """A run that has not happened."""

    knobs: Knobs
    throughput: Estimate
    """Samples a second of the measured window, all ranks of all nodes together."""
    utilization: Estimate
    """Share of the window in which the accelerator computed, 0 to 1."""
    stall: Estimate
    """Share of the window in which it had nothing to do for want of a batch, 0 to 1."""
    ledger: Ledger
    timeline: Timeline = field(repr=False)
    """Rank 0's events, in virtual ns from the start of the run."""
    ends: Ends = field(repr=False, compare=False)
    extrapolations: tuple[str, ...] = ()
    """How far the question is from what was measured, in words."""

    @property
    def shares(self) -> dict[str, Estimate]:
        """Of each owner of the ledger: its part of the window, 0 to 1. Worked out when asked for."""
        return self.ends.shares(self.ledger)

    @property
    def limit(self) -> str:
        """The owner of the largest part of the critical path: what sets the pace of this run."""
        return max(self.ledger.path_ns, key=self.ledger.path_ns.__getitem__)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; the timeline is left out."""
        return {
            "throughput_samples_per_s": self.throughput.as_dict(),
            "utilization": self.utilization.as_dict(),
            "stall_share": self.stall.as_dict(),
            "wall_ns": self.ledger.window.wall_ns,
            "ledger_ns": self.ledger.ledger_ns,
            "ledger_share": {owner: share.as_dict() for owner, share in self.shares.items()},
            "path_ns": self.ledger.path_ns,
            "limit": self.limit,
            "extrapolations": list(self.extrapolations),
        }


FEWEST_STEPS: Final = 100
"""Steps of a prediction that is to show the long run."""
MOST_STEPS: Final = 400
"""A longer recorded run is drawn from, not played in full: a report and its fixes are made in seconds."""
TRIED_STEPS: Final = 40
"""Steps counted where the ends of an interval are looked for."""
MOST_REPLAYED: Final = 5_000
"""Steps up to which a run is played back whole."""


def replay(demands: Demands, seed: int = 0) -> Prediction:
    """The recorded run again, step by step: beside the measured numbers it shows what to trust."""
    if demands.steps > MOST_REPLAYED:
        return predict(demands, demands.measured, MOST_REPLAYED, demands.warmup, seed)
    return predict(demands, demands.measured, demands.steps, demands.warmup, seed)


def long_run(demands: Demands, knobs: Knobs) -> tuple[int, int]:
    """Steps and warm-up after which what the workers made ahead at the start no longer counts."""
    epoch = demands.batches_per_epoch if demands.steps > demands.batches_per_epoch else 0
    recorded = min(demands.steps - demands.warmup, MOST_STEPS)
    warmup = max(demands.warmup, knobs.outstanding)
    counted = max(
        recorded, 2 * knobs.outstanding, 10 * knobs.workers, min(epoch, MOST_REPLAYED), FEWEST_STEPS
    )
    return warmup + counted, warmup


def predict(
    demands: Demands, knobs: Knobs, steps: int | None = None, warmup: int | None = None, seed: int = 0
) -> Prediction:
    """The run that `knobs` would give: of `steps` steps, the first `warmup` not counted; else the long run.

    Raises `InconclusiveError` where the run cannot answer. Equal arguments give equal predictions.
    """
    extrapolations = stated(demands, knobs)
    usual = long_run(demands, knobs)
    steps = usual[0] if steps is None else steps
    warmup = min(steps - 1, usual[1] if warmup is None else warmup)
    played = _play(demands, knobs, steps, warmup, seed)
    rate, ledger, wall_ns = played.rate, played.ledger(), max(1, played.window.wall_ns)
    busy = ledger.ledger_ns.get("accelerator", 0) / wall_ns
    idle = ledger.stall_ns / wall_ns
    ends = _ends(demands, knobs, steps - warmup, seed)
    low, high = ends.low, ends.high
    return Prediction(
        knobs=knobs,
        throughput=Estimate(rate, rate * low, rate * high),
        utilization=Estimate(busy, busy * low, min(1.0, busy * high)),
        stall=Estimate(idle, max(0.0, 1 - (1 - idle) * high), 1 - (1 - idle) * low),
        ledger=ledger,
        timeline=played.timeline,
        ends=ends,
        extrapolations=extrapolations,
    )


def _play(demands: Demands, knobs: Knobs, steps: int, warmup: int, seed: int) -> Played:
    draws = [draw(demands, knobs, steps, seed, rank) for rank in range(knobs.ranks)]
    walked = walk(knobs, draws)[0]
    timeline = as_timeline(walked, knobs, warmup)
    window = measured_window(timeline)
    assert window is not None, "a step after warm-up was walked"
    return Played(demands, knobs, draws[0], walked, timeline, window)


def _ends(demands: Demands, knobs: Knobs, counted: int, seed: int) -> Ends:
    """The ends of the intervals.

    Short runs with more and with less of the host's work show how far the pace depends on it: not at all
    where a device sets it, and downwards only where the accelerator is just kept busy.
    """
    error = work_error(demands, knobs, counted)
    warmup = max(5, knobs.outstanding)
    steps = warmup + max(TRIED_STEPS, knobs.outstanding, 4 * knobs.workers)
    owners = (*demands.batches.cpu, "transfer", "main", "blocked", "collective")

    def tried(factor: float) -> Played:
        asked = knobs.scaled(**dict.fromkeys(owners, factor))
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


def as_timeline(walked: Walked, knobs: Knobs, warmup: int) -> Timeline:
    """The walked run as the arrays that attribution walks backwards."""
    n = len(walked.seq)
    steps = np.arange(n, dtype=np.int64)
    times = walked.times
    return Timeline(
        step=steps,
        loader=np.zeros(n, dtype=np.int64),
        epoch=walked.epoch,
        seq=walked.seq,
        warmup=steps < warmup,
        samples=np.full(n, knobs.batch_size, dtype=np.int64),
        worker=walked.worker,
        dispatch_ns=times["dispatch"],
        start_ns=times["start"],
        finish_ns=times["finish"],
        arrival_ns=times["available"],
        request_ns=times["request"],
        take_ns=times["take"],
        launch_ns=times["launch"],
        copy_start_ns=times["copy_start"],
        copy_end_ns=times["copy_end"],
        compute_start_ns=times["compute_start"],
        compute_end_ns=times["compute_end"],
        device_wait_ns=np.full(n, NOT_OBSERVED, dtype=np.int64),
        batch_row=np.full(n, -1, dtype=np.int64),
        previous=_previous(walked),
    )


def _previous(walked: Walked) -> np.ndarray[Any, np.dtype[np.int64]]:
    order = np.lexsort((walked.times["start"], walked.worker, walked.epoch))
    same = (np.diff(walked.epoch[order]) == 0) & (np.diff(walked.worker[order]) == 0)
    previous = np.full(len(order), -1, dtype=np.int64)
    previous[order[1:][same]] = order[:-1][same]
    return previous
