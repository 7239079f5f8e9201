"""The rule for whether a fix's harm applies to a run: the warning that stands first in its advice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from pipeprof.analyse.figures import Facts
from pipeprof.vocabulary import fixes
from pipeprof.vocabulary.fixes import Fix


def warning(fix: str, facts: Facts | None) -> str | None:
    """Return the harm that `fix` does to this run's training or machine; None if none applies."""
    known = fixes.BY_WORD[fix]
    if facts is None or not known.harm:
        return None
    applies = APPLIES.get(known)
    return known.harm if known.reorders or (applies is not None and applies(facts)) else None


def _keeps_epoch(facts: Facts) -> bool:
    """Return True if persistent workers do not see `set_epoch`; older runs record this for iterables only."""
    return facts.iterable if facts.sets_epoch is None else facts.sets_epoch


def _crowds_memory(facts: Facts) -> bool:
    """Return True if one more worker like these would take much of the memory that is left."""
    needs, left = facts.worker_bytes, facts.memory_left_bytes
    return bool(needs and left is not None and needs >= MUCH * left)


def _locks_memory(facts: Facts) -> bool:
    """Return True if the batches in flight take much of the machine's memory."""
    held = (facts.batch_bytes or 0) * LEAST_HELD * max(1, facts.workers)
    return bool(facts.memory_bytes and held >= MUCH * facts.memory_bytes)


MUCH: Final = 0.25
"""Share of memory whose use may starve other programs, or make the kernel kill one."""
LEAST_HELD: Final = 2
"""Batches of each worker that are under way at once: torch's own prefetch factor."""
APPLIES: Final[Mapping[Fix, Callable[[Facts], bool]]] = {
    fixes.PERSISTENT_WORKERS: _keeps_epoch,
    fixes.MORE_WORKERS: lambda facts: (facts.iterable and not facts.splits_stream) or _crowds_memory(facts),
    fixes.PIN: _locks_memory,
    fixes.RAM: lambda facts: not (facts.data_bytes and facts.memory_bytes),  # else it is known to fit
    fixes.ONE_THREAD: lambda facts: facts.computes_on_cpu,
    fixes.NO_READ_AHEAD: lambda facts: facts.remote,
    fixes.FORK: lambda facts: not facts.computes_on_cpu,
    fixes.KEEP_OPEN: lambda facts: facts.workers > 0 and facts.start_method == "fork",
    **dict.fromkeys(
        (
            fixes.AFFINITY,
            fixes.FREE_CORES,
            fixes.UNBLOCK,
            fixes.GC_FREEZE,
            fixes.FILE_SYSTEM_SHARING,
            fixes.CHEAPER_DECODE,
            fixes.SMALLER_CHUNKS,
        ),
        lambda facts: True,
    ),
}
"""Evidence that a run has to show for the harm to apply, for fixes that keep the order of samples."""
