"""The shards that batches were read from: how long a batch of each took to make, and one that stands out.

A shard is a file that holds many samples; a batch's record names the one that was read from last. That of an
unprobed batch is not known: figures are of the others alone, and so is the least number of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from pipeprof.record.columns import whole_numbers
from pipeprof.record.reader import Run
from pipeprof.timeline import NOT_OBSERVED, Ints, Timeline, take
from pipeprof.vocabulary import owners

NO_SHARD: Final = NOT_OBSERVED
"""The number of no shard."""
FEWEST_BATCHES: Final = 3
"""Batches known to be of a shard below which a slow one may be chance."""
FEWEST_SHARDS: Final = 3
CLEARLY_SLOWER: Final = 1.5
"""Time of a shard's batches, of the median of the other shards' times, from which it stands out."""


class ShardTime(NamedTuple):
    """The measured batches that are known to be read from one shard."""

    shard: str
    batches: int
    median_ns: float
    """Median time in which one of them was made: the first of an epoch take longer for other reasons."""


@dataclass(frozen=True, slots=True)
class SlowShard:
    """The shard whose batches took longest, if it stands out from the others."""

    shard: str
    median_ns: float
    others: int
    others_ns: float
    """Median of the other shards' times."""


def read_shards(run: Run) -> tuple[Ints, list[str]]:
    """Read the number of each row's shard in `batches`, or `NO_SHARD`, and the names."""
    known: dict[str, int] = {}
    parts = [np.zeros(0, np.int64)]
    for piece in run.pieces("batches", ["shard"]):
        for chunk in piece["shard"].chunks:
            names = chunk.dictionary.to_pylist()
            numbers = [NO_SHARD if name is None else known.setdefault(name, len(known)) for name in names]
            at = whole_numbers(chunk.indices, len(names))
            parts.append(np.array([*numbers, NO_SHARD], np.int64)[at])
    return np.concatenate(parts), list(known)


def shard_times(run: Run, timeline: Timeline) -> list[ShardTime]:
    """Return the shards of the measured batches, slowest first; empty if none is known."""
    numbers, names = read_shards(run)
    if not names:
        return []
    t = timeline
    shard = take(numbers, t.batch_row, NO_SHARD)
    known = t.measured & (shard != NO_SHARD) & (t.start_ns != NOT_OBSERVED) & (t.finish_ns != NOT_OBSERVED)
    order = np.flatnonzero(known)[np.argsort(shard[known], kind="stable")]
    begins = np.flatnonzero(np.diff(shard[order], prepend=NO_SHARD))
    rows = [
        ShardTime(names[shard[own[0]]], len(own), float(np.median((t.finish_ns - t.start_ns)[own])))
        for own in np.split(order, begins[1:])
        if len(own)
    ]
    return sorted(rows, key=lambda row: -row.median_ns)


def is_of_data(owner: str) -> bool:
    """Return True for time that a shard may have cost: it was read, or samples were made of it."""
    return owners.is_stall(owner) and owner not in (owners.STARTUP.name, owners.UNKNOWN.name)


def slow_shard(times: list[ShardTime]) -> SlowShard | None:
    """Return the slowest shard, if it is clearly slower than the others; None if none is."""
    times = [each for each in times if each.batches >= FEWEST_BATCHES]
    if len(times) < FEWEST_SHARDS:
        return None
    slowest, *others = times
    usual = float(np.median([each.median_ns for each in others]))
    if slowest.median_ns < CLEARLY_SLOWER * usual:
        return None
    return SlowShard(slowest.shard, slowest.median_ns, len(others), usual)
