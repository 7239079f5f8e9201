"""The shard that a late rank was reading when the others waited for it.

A shard is a file that holds many samples; a batch's record names the one that was read from last. What the
others waited for a step of the late rank is charged to the shard of the batch that it took in that step, as
far as the rank was late for its data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeprof.analyse.resources.shards import NO_SHARD, is_of_data, read_shards
from pipeprof.record.reader import Run
from pipeprof.timeline import Ints, Timeline, take

MOST_LISTED: Final = 256
"""Number of shards that the answer lists, those first that cost most."""


@dataclass(frozen=True)
class ShardRow:
    """Time that the others waited for batches that one rank read from one shard. Shares are of that rank."""

    rank: int
    shard: str
    steps: int
    """Steps in the measured window, made from it."""
    steps_share: float
    """Share of the rank's measured steps whose shard is known."""
    caused_ns: int
    """Time that all others together waited for them, because they were late."""
    caused_share: float | None
    """Share of what the others waited for this rank's batches; None if they did not."""

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


def reading_of(run: Run, timeline: Timeline, steps: Ints) -> Reading | None:
    """Read the shards of the measured `steps` of a run; None if none is known."""
    numbers, names = read_shards(run)
    if not names:
        return None
    by_step = np.full(int(max(timeline.step.max(initial=-1), steps.max(initial=-1))) + 1, NO_SHARD)
    by_step[timeline.step] = take(numbers, timeline.batch_row, NO_SHARD)
    return Reading(names, steps, by_step[steps])


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
    whole = float(cost_ns.sum())
    return [
        ShardRow(
            rank,
            reading.names[i],
            int(steps[i]),
            float(steps[i] / known.sum()),
            round(cost[i]),
            min(1.0, float(cost[i] / whole)) if whole else None,
        )
        for i in np.flatnonzero(steps).tolist()
    ]
