"""Waits for the GIL of the main process, as its counters show them: by stage, and by the thread that ran."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from pipeprof.analyse.why.lines import Line, blamed_line, parsed_lines
from pipeprof.record.names.counters import GIL_HELD_NS, GIL_WAIT_NS, HELD_BY, CounterName, part_of


class Holder(NamedTuple):
    """A thread that ran while another one waited for the GIL."""

    name: str
    line: Line | None
    """Line of the user's that it was on the longest; None if no stack was kept."""


@dataclass(frozen=True)
class LockWaits:
    """Waits for the GIL in some stages of a thread of the main process."""

    ns: int
    """Sum, at least."""
    holder: Holder | None
    """The thread that ran the longest meanwhile; None if no thread waited."""


def waited_ns(counts: Mapping[CounterName, int], stage: str) -> int:
    """Return how long the GIL was waited for in a stage, at least, by counts of the main process."""
    return counts.get(part_of(GIL_WAIT_NS, stage), 0)


def lock_waits_in(counts: Mapping[CounterName, int], stages: Mapping[str, float]) -> LockWaits:
    """Return the waits in any of `stages`, which are one thread's: two threads may wait at one time.

    With each stage comes how often what was counted in it stands for itself.
    """
    threads: dict[str, int] = {}
    lines: dict[str, dict[Line | None, int]] = {}
    for stage in stages:
        beginning = part_of(GIL_HELD_NS, f"{stage}{HELD_BY}")
        for counter, ns in counts.items():
            if counter.startswith(beginning):
                name, _, stack = counter[len(beginning) :].partition(HELD_BY)
                threads[name] = threads.get(name, 0) + ns
                line = blamed_line(parsed_lines(stack))
                mine = lines.setdefault(name, {})
                mine[line] = mine.get(line, 0) + ns
    longest = max(threads, key=threads.__getitem__, default=None)
    waits_ns = round(sum(times * waited_ns(counts, stage) for stage, times in stages.items()))
    if longest is None:
        return LockWaits(waits_ns, None)
    line = max(lines[longest], key=lines[longest].__getitem__)
    return LockWaits(waits_ns, Holder(longest, line))
