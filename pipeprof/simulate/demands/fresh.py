"""Cost of memory that is new for each batch: its pages are zeroed at the first touch, and given back later.

Workers collate into fresh shared memory, which the loop gives back after the step. Without workers a batch
takes the place of the last one, unless it is so large that the C library maps it anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from pipeprof.record.reader import Run
from pipeprof.simulate.demands.read import Floats, Recorded
from pipeprof.vocabulary import owners

LARGEST_REUSED: Final = 32 << 20
"""Bytes from which glibc gives each piece of memory back to the kernel at once, and maps the next one
again."""
MOST_GROWTH: Final = 2.0
"""Growth of a page's cost with other processes running, over that of an idle machine: what the kernel took
beyond that was for other programs. Two workers on two cores paid 1.1 to 2.1 times as much."""
ENOUGH_NS: Final = 100_000_000
"""Time in the kernel below which the clock's ticks are too coarse: 25 of them at 250 Hz."""
_PAID: Final = 0.5
"""Share of the batch's bytes that its making must have touched first to have put it into fresh memory."""


@dataclass(frozen=True, slots=True)
class FreshMemory:
    """Cost of fresh memory to a recorded run; anything that was not observed costs nothing."""

    made_ns: float
    """CPU time that making a batch took to put it into fresh memory."""
    shared_ns: float
    """CPU time of a byte of fresh shared memory."""
    private_ns: float
    """The same of fresh memory of one process."""
    released_ns: float
    """CPU time in which the loop gives back a byte."""

    def making_ns(self, size_bytes: float, recorded: int, asked: int) -> float:
        """Return the additional CPU time of making a batch with the requested workers, compared with the
        recording."""
        if bool(recorded) == bool(asked):
            return 0.0
        if asked:
            return size_bytes * self.shared_ns - self.made_ns
        return mapped_anew(size_bytes) * self.private_ns - self.made_ns

    def loop_ns(self, size_bytes: float, recorded: int, asked: int) -> float:
        """Return the additional CPU time that the loop takes to give a batch back."""
        bytes_now, bytes_then = (
            size_bytes if workers else mapped_anew(size_bytes) for workers in (asked, recorded)
        )
        return (bytes_now - bytes_then) * self.released_ns


def mapped_anew(size_bytes: float) -> float:
    """Return the bytes of a batch that lie in fresh memory if the main process makes it."""
    return size_bytes if size_bytes > LARGEST_REUSED else 0.0


def fresh_memory(run: Run, recorded: Recorded) -> FreshMemory:
    """Read what fresh memory cost a run: its making by what the run shows of it, else as the machine was seen
    to pay at its start."""
    machine = run.meta.machine
    shared_ns = machine.fresh_byte_ns or 0.0
    private_ns = shared_ns if machine.private_byte_ns is None else machine.private_byte_ns
    sizes, has_workers = recorded.batch_bytes[recorded.timeline.measured], recorded.shape.workers > 0
    size = _mean(sizes) or 0.0
    touched = _mean(recorded.touched_bytes[recorded.timeline.measured])
    made = size if has_workers else mapped_anew(size)
    if touched is not None and size:
        made = size if touched >= _PAID * size else 0.0
    byte_ns = shared_ns if has_workers else private_ns
    made_ns = made * byte_ns
    if touched and made and has_workers:
        seen = _in_kernel(recorded) * min(1.0, size / touched)
        made_ns = max(made_ns, min(seen, MOST_GROWTH * made_ns))
    return FreshMemory(made_ns, shared_ns, private_ns, machine.released_byte_ns or 0.0)


def _in_kernel(recorded: Recorded) -> float:
    """Return the time in the kernel of making a batch, less its reads'; 0 if there is too little of it."""
    timeline, total, batches = recorded.timeline, 0.0, 0
    threads = np.stack([timeline.epoch, timeline.worker], axis=1)
    for thread in np.unique(threads, axis=0):
        mine = np.flatnonzero((threads == thread).all(axis=1) & timeline.measured)
        told = recorded.system_ns[mine]
        known = np.flatnonzero(np.isfinite(told))
        if len(known):
            total += float(told[known[-1]] - told[known[0]])
            batches += int(known[-1] - known[0])
    if total < ENOUGH_NS or not batches:
        return 0.0
    reads = [ns for owner, ns in recorded.making.cpu.items() if owners.merged(owner) == owners.STORAGE.name]
    return max(0.0, total / batches - float(sum(ns[timeline.measured].mean() for ns in reads)))


def _mean(values: Floats) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None
