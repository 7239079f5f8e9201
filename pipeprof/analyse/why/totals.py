"""The table `counters` of a run, added up by counter and worker."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final
from weakref import WeakKeyDictionary

from pipeprof.passes import Window
from pipeprof.record.names import counters
from pipeprof.record.names.counters import CounterName
from pipeprof.record.reader import Run
from pipeprof.record.schema import MAIN_PROCESS

Process = tuple[int, int, int]
"""Loader, epoch and worker."""


@dataclass
class CounterTotals:
    """Counts of a run's processes."""

    of_workers: Counter[CounterName] = field(default_factory=Counter)
    """Sums over all workers, by counter; 0 for one that nothing was added to."""
    of_main: Counter[CounterName] = field(default_factory=Counter)
    levels: dict[CounterName, dict[int, int]] = field(default_factory=dict)
    """Largest values, by level and worker."""
    memory: dict[Process, list[int]] = field(default_factory=dict)
    """Private bytes at each look, in order of time, by loader, epoch and worker."""
    allocated: dict[Process, list[int]] = field(default_factory=dict)
    """Bytes that a worker had allocated and kept, between batches from the end of its first one on."""
    own_memory: dict[Process, list[int]] = field(default_factory=dict)
    """The same of bytes that no other process shares."""
    memory_left: list[int] = field(default_factory=list)
    """Bytes that could still be had, at each look of a worker."""
    read_bytes: int = 0
    """Bytes that calls of the workers have read."""
    items: dict[Process, set[int]] = field(default_factory=dict)
    """Digests of the first items of a stream, by loader, epoch and worker."""
    own_cpu_ns: int = 0
    """CPU time of the threads that sample lines."""

    def __bool__(self) -> bool:
        return bool(self.of_workers or self.of_main or self.levels)

    def worker_level(self, name: CounterName) -> int | None:
        """Return the largest value of a level among the workers; None if it was not read."""
        values = [value for worker, value in self.levels.get(name, {}).items() if worker != MAIN_PROCESS]
        return max(values, default=None)

    def level(self, name: CounterName) -> int | None:
        """Return the largest value of a level in any process; None if it was not read."""
        return max(self.levels.get(name, {}).values(), default=None)

    @property
    def worker_bytes(self) -> int | None:
        """Return the most memory that a worker shared with no process; None if none was looked at."""
        return max((max(looks) for looks in self.own_memory.values()), default=None)

    def starting(self, beginning: CounterName) -> int:
        """Return the sum of the workers' and the main process's counters whose names begin so."""
        both = (self.of_workers, self.of_main)
        return sum(value for counts in both for name, value in counts.items() if name.startswith(beginning))


def read_counts(run: Run) -> CounterTotals:
    """Read and add up the table `counters` of a run, once."""
    counts = _read.get(run)
    if counts is None:
        counts = _read[run] = _read_table(run)
    return counts


_read: Final[WeakKeyDictionary[Run, CounterTotals]] = WeakKeyDictionary()


def _read_table(run: Run) -> CounterTotals:
    counts = CounterTotals()
    read: dict[Process, tuple[int, int]] = {}
    for piece in run.pieces("counters", ("loader", "epoch", "worker", "counter", "value")):
        columns = piece.to_pydict()
        for loader, epoch, worker, name, value in zip(*columns.values(), strict=True):
            if name is None or value is None or worker is None:
                continue
            if name == counters.STREAM_ITEM:
                counts.items.setdefault((loader or 0, epoch or 0, worker), set()).add(value)
            elif name.startswith(counters.LEVEL):
                _add_level(counts, read, name, (loader or 0, epoch or 0, worker), value)
            else:
                sums = counts.of_main if worker == MAIN_PROCESS else counts.of_workers
                sums[name] = sums.get(name, 0) + value
    counts.read_bytes = sum(last - first for first, last in read.values())
    counts.own_cpu_ns = counts.starting(counters.OWN_LINES_CPU_NS)
    return counts


def _add_level(
    counts: CounterTotals,
    read: dict[Process, tuple[int, int]],
    name: CounterName,
    process: Process,
    value: int,
) -> None:
    worker = process[2]
    largest = counts.levels.setdefault(name, {})
    largest[worker] = max(largest.get(worker, 0), value)
    if name == counters.PRIVATE_BYTES:
        counts.memory.setdefault(process, []).append(value)
    elif name == counters.ALLOCATED_BYTES:
        counts.allocated.setdefault(process, []).append(value)
    elif name == counters.OWN_BYTES and worker != MAIN_PROCESS:
        counts.own_memory.setdefault(process, []).append(value)
    elif name == counters.MEMORY_LEFT_BYTES:
        counts.memory_left.append(value)
    if name == counters.READ_CALL_BYTES and worker != MAIN_PROCESS:
        first, last = read.get(process, (value, value))
        read[process] = (min(first, value), max(last, value))


def sampler_ns(run: Run, window: Window) -> int:
    """Return the time in samplers that was counted in a window, to the second or so of a flush."""
    return sum(of_main_in(run, window, counters.SAMPLER_NS).values())


def of_main_in(run: Run, window: Window, beginning: CounterName) -> Counter[CounterName]:
    """Add up what the main process counted in a window, to the second or so of a flush.

    Only counters whose names begin with `beginning` are returned.
    """
    counts = Counter[CounterName]()
    for piece in run.pieces("counters", ("time_ns", "worker", "counter", "value")):
        for time_ns, worker, name, value in zip(*piece.to_pydict().values(), strict=True):
            inside = time_ns is not None and window.start_ns <= time_ns <= window.end_ns + _FLUSH_NS
            if inside and worker == MAIN_PROCESS and (name or "").startswith(beginning):
                counts[name] += value or 0
    return counts


_FLUSH_NS = 1_000_000_000
