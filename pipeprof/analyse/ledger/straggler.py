"""Stragglers: batches that came far later than their peers while later ones sat ready behind them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np

from pipeprof.analyse.ledger.making import Values
from pipeprof.analyse.ledger.tiling import CODE, Shares, normalised
from pipeprof.graph import Shape
from pipeprof.timeline import NOT_OBSERVED, Ints, Timeline
from pipeprof.vocabulary import owners

LATE: Final = 1.5
"""Multiple of its loader's median making time from which a batch is a straggler."""
_FAR: Final = np.iinfo(np.int64).max


class Lateness(NamedTuple):
    """Lateness per step, in ns."""

    excess_ns: Ints
    """Time that the making took beyond the median, as far as later batches sat ready meanwhile; else 0."""
    head_of_line_ns: Ints
    """Time that the next later batch had sat finished when this one was finished; 0 if none had."""


def lateness(timeline: Timeline, shapes: Mapping[int, Shape]) -> Lateness:
    """Find the stragglers of each loader that delivers in order."""
    excess = np.zeros(len(timeline), np.int64)
    blocked = np.zeros(len(timeline), np.int64)
    made = (timeline.start_ns != NOT_OBSERVED) & (timeline.finish_ns != NOT_OBSERVED)
    for loader, shape in shapes.items():
        steps = np.flatnonzero((timeline.loader == loader) & made)
        if shape.workers < 2 or len(steps) < 3:
            continue
        took = timeline.finish_ns[steps] - timeline.start_ns[steps]
        earliest = _earliest_later(timeline, steps, shape.outstanding)
        waiting = np.maximum(timeline.finish_ns[steps] - earliest, 0)
        blocked[steps] = waiting
        usual = int(np.median(took))
        late = took > LATE * usual
        if shape.in_order:
            excess[steps] = np.where(late, np.minimum(took - usual, waiting), 0)
    return Lateness(excess, blocked)


def _earliest_later(timeline: Timeline, steps: Ints, outstanding: int) -> Ints:
    """Return the time at which the first of the later batches that were out with each one was finished."""
    earliest = np.full(len(steps), _FAR, np.int64)
    for ahead in range(1, min(outstanding, len(steps))):
        later, own = steps[ahead:], steps[:-ahead]
        same = timeline.epoch[later] == timeline.epoch[own]
        finish = np.where(same, timeline.finish_ns[later], _FAR)
        earliest[:-ahead] = np.minimum(earliest[:-ahead], finish)
    return earliest


def charge_stragglers(mixes: Shares, late: Lateness, took: Values) -> None:
    """Move the excess of stragglers from the owners it came from to `straggler`, in place.

    It is taken from the owners in proportion to what each took beyond its own median. What a server refused
    stays where it is: some batches are late for it whatever the order of delivery.
    """
    steps = np.flatnonzero(late.excess_ns)
    if len(steps) == 0:
        return
    usual = np.median(mixes * took[:, None], axis=0)
    spent = mixes[steps] * took[steps, None]
    beyond = np.maximum(spent - usual, 0)
    total = beyond.sum(axis=1)
    share = np.minimum(1, np.divide(late.excess_ns[steps], total, out=np.zeros_like(total), where=total > 0))
    moved = beyond * share[:, None]
    moved[:, [CODE[owners.STORAGE_THROTTLED], CODE[owners.STORAGE_RETRY]]] = 0
    spent -= moved
    spent[:, CODE[owners.STRAGGLER.name]] += moved.sum(axis=1)
    mixes[steps] = normalised(spent.astype(np.float32))
