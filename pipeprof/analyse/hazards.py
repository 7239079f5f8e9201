"""Mechanisms that take no time and matter all the same: growing memory, another thread that takes batches."""

from __future__ import annotations

from pipeprof import units
from pipeprof.analyse.ledger.attribution import Attribution
from pipeprof.analyse.verdict import Doubt
from pipeprof.analyse.why.totals import CounterTotals, read_counts
from pipeprof.record.events import read_events
from pipeprof.record.names.counters import SHARED_MEMORY_BYTES, SHARED_MEMORY_USED_BYTES
from pipeprof.record.reader import Run
from pipeprof.vocabulary import fixes, mechanisms


def hazards_of(run: Run, attribution: Attribution) -> list[Doubt]:
    """List hazards that take no time: growing memory, full shared memory, another consuming thread."""
    return [*_consumer(run), *_memory(run, attribution), *_shared_memory(read_counts(run))]


def _consumer(run: Run) -> list[Doubt]:
    """Report batches taken by a thread other than the one that trains: what the training thread waits for is
    not observed.

    If no optimiser was seen to step, the thread that takes them may be the one that works with them.
    """
    names = {event.kind: event.detail or "a thread" for event in read_events(run) if event.kind in _THREADS}
    taker, trainer = (names.get(kind) for kind in _THREADS)
    if taker is None:
        return []
    word = mechanisms.THREAD_CONSUMER.word
    if trainer is None:
        problem = f"the thread {taker}, and not the main one, takes the batches"
        return [Doubt(word, problem, "if another thread trains, profile what its loop iterates")]
    problem = f"{taker} takes the batches, and {trainer} trains: what that one waits for was not observed"
    return [Doubt(word, problem, "profile what the training loop iterates: pipeprof.profile(it)", True)]


_THREADS = ("consumer_thread", "trainer_thread")


def _memory(run: Run, attribution: Attribution) -> list[Doubt]:
    """Report workers that, by the end of their epoch, will have taken most of the memory that was left."""
    grown, share, left = _growth(run, attribution, read_counts(run))
    if grown is None or not left or grown / share < mechanisms.MEMORY_GROWTH.at_least * left:
        return []
    done = "" if share > _WHOLE else f" in {units.percent(share)} of an epoch"
    problem = f"the workers' memory grew by {units.size(grown)}{done}, of {units.size(left)} that were left"
    remedy = fixes.ARRAYS.do[:1].lower() + fixes.ARRAYS.do[1:]
    return [Doubt(mechanisms.MEMORY_GROWTH.word, problem, f"{remedy}: the kernel kills what takes more")]


_WHOLE = 0.99
_LEAST_SHARE = 0.02
"""Share of an epoch below which its beginning says nothing of its end."""


def _shared_memory(counts: CounterTotals) -> list[Doubt]:
    """Report a /dev/shm that was nearly full: a batch that finds no room in it ends the training."""
    used, room = (counts.level(name) for name in (SHARED_MEMORY_USED_BYTES, SHARED_MEMORY_BYTES))
    if not used or not room or used < NEARLY_FULL * room:
        return []
    problem = (
        f"/dev/shm held up to {units.size(used)} of its {units.size(room)}, and a batch that finds no room "
        "ends the training"
    )
    return [Doubt("shared-memory", problem, mechanisms.MORE_SHARED_MEMORY)]


NEARLY_FULL = 0.8
"""Share of /dev/shm in use from which a larger batch, or another program, may fill it."""


def _growth(
    run: Run, attribution: Attribution, counts: CounterTotals
) -> tuple[int | None, float, int | None]:
    """Return how much all workers of an epoch grew, in which share of it, and what was left before.

    Taken from the epoch in which they grew the most; None if no worker was looked at twice.
    """
    by_epoch: dict[tuple[int, int], int] = {}
    for (loader, epoch, _), looks in counts.own_memory.items():
        if len(looks) > 1:
            by_epoch[loader, epoch] = by_epoch.get((loader, epoch), 0) + looks[-1] - looks[0]
    if not by_epoch or not counts.memory_left:
        return None, 1.0, None
    (loader, epoch), grown = max(by_epoch.items(), key=lambda item: item[1])
    said = run.meta.loader(loader)
    timeline = attribution.timeline
    taken = int(timeline.samples[(timeline.loader == loader) & (timeline.epoch == epoch)].clip(0).sum())
    share = min(1.0, taken / said.samples) if said.samples and taken else 1.0
    return grown, max(share, _LEAST_SHARE), max(counts.memory_left)
