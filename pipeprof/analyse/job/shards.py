"""The shard that a late rank was reading when the others waited for it.

A shard is a file that holds many samples; a batch's record names the one that was read from last. What the
others waited for a step of the late rank is charged to the shard of the batch that it took in that step, as
far as the rank was late for its data. Of an unprobed batch the shard is not known: the steps with probed ones
stand for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeprof.analyse.resources.shards import NO_SHARD, is_of_data, read_shards
from pipeprof.record.reader import Run
from pipeprof.timeline import Bools, Ints, Timeline, take

MOST_LISTED: Final = 256
"""Number of shards that the answer lists, those first that cost most."""


@dataclass(frozen=True)
class ShardRow:
    """Time that the others waited for batches that one rank read from one shard. Shares are of that rank."""

    rank: int
    shard: str
    steps: int
    """Steps in the measured window that are known to be made from it."""
    steps_share: float
    """Share of the rank's measured steps whose shard is known."""
    caused_ns: int
    """Time that all others together waited for its batches; an estimate if some were unprobed."""
    caused_share: float | None
    """Share of what the others waited for this rank's probed batches; None if they did not."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


class Reading(NamedTuple):
    """The shard that each of one rank's steps was made from."""

    names: list[str]
    steps: Ints
    """Numbers of the measured steps."""
    numbers: Ints
    """Numbers of their shards in `names`, or `NO_SHARD`."""
    unprobed: Bools
    """True if the step's batch was made unprobed: its shard is not known."""


def reading_of(run: Run, timeline: Timeline, steps: Ints) -> Reading | None:
    """Read the shards of the measured `steps` of a run; None if none is known."""
    numbers, names = read_shards(run)
    if not names:
        return None
    by_step = np.full(int(max(timeline.step.max(initial=-1), steps.max(initial=-1))) + 1, NO_SHARD)
    unprobed = np.zeros(len(by_step), dtype=bool)
    by_step[timeline.step] = take(numbers, timeline.batch_row, NO_SHARD)
    if timeline.unprobed is not None:
        unprobed[timeline.step] = timeline.unprobed
    return Reading(names, steps, by_step[steps], unprobed[steps])


def late_for_data(shares: npt.NDArray[np.float64], words: Sequence[str]) -> npt.NDArray[np.float64]:
    """Return the part of each step's lateness that is for data: the sum of the shares of such `owners`."""
    data = [i for i, word in enumerate(words) if is_of_data(word)]
    return np.asarray(shares[:, data].sum(axis=1))


def rows_of(rank: int, reading: Reading, cost_ns: npt.NDArray[np.float64]) -> list[ShardRow]:
    """Return the shards of one rank. `cost_ns`: what the others waited for its data, by step of the job."""
    size = len(reading.names)
    known = reading.numbers != NO_SHARD
    steps = np.bincount(reading.numbers[known], minlength=size)
    cost = np.bincount(reading.numbers[known], cost_ns[reading.steps[known]], minlength=size)
    whole, of_unprobed = float(cost_ns.sum()), float(cost_ns[reading.steps[reading.unprobed]].sum())
    of_probed = whole - of_unprobed
    times = whole / of_probed if of_probed > 0 else 1.0
    return [
        ShardRow(
            rank,
            reading.names[i],
            int(steps[i]),
            float(steps[i] / known.sum()),
            round(cost[i] * times),
            min(1.0, float(cost[i] / of_probed)) if of_probed > 0 else None,
        )
        for i in np.flatnonzero(steps).tolist()
    ]
