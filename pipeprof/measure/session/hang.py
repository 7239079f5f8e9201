"""Reports a loop that has waited too long for a batch: which worker holds it, where, and why.

Runs in the flush thread. What it learns goes to `hang.txt` in the run directory, to an event, and to standard
error; the job goes on.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from time import monotonic_ns
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from pipeprof.measure.host.mounts import SHARED_MEMORY, shared_memory_bytes
from pipeprof.measure.host.stacks import (
    LoopStack,
    descriptors_of,
    native_frame,
    read_stack,
    stack_of_stopped,
    state_of,
)
from pipeprof.measure.probe.counting.losses import Loss
from pipeprof.measure.session.passes import RecordEvent
from pipeprof.measure.session.worker_state import waits_for
from pipeprof.units import NS_PER_S, duration, plural, size

HANG_TXT: Final = "hang.txt"
_FULL: Final = 0.95
_MOST_FRAMES: Final = 12
_NOT_THE_USERS: Final = ("_utils/worker.py", "_utils/fetch.py", "multiprocessing/process.py")


class Waiting(NamedTuple):
    """A loop that waits for a batch."""

    since_ns: int
    loader: str
    loader_number: int
    epoch: int
    seq: int | None
    """Number of the batch that must come next; None if any may, and without workers."""
    holder: int | None
    """Worker that was asked for it."""
    pids: tuple[int, ...]
    """The workers' process numbers; 0 for one that has ended."""
    thread: int
    """Python's number of the thread that waits."""
    losses: Mapping[int, Loss] = MappingProxyType({})
    """By worker, the first batch that it could not make or hand over."""


class HangWatch:
    """Watches loops that wait, and reports each wait longer than `after_s` once."""

    def __init__(
        self, after_s: float, directory: Path, record: RecordEvent, say: Callable[[str], None] | None = None
    ) -> None:
        self.after_ns = round(after_s * NS_PER_S)
        self._directory, self._record, self._say = directory, record, say or _say
        self._reported: set[tuple[int, int]] = set()

    def look(self, sources: Iterable[Any]) -> None:
        """Look at the loops over `sources`."""
        for source in sources:
            waiting: Waiting | None = source.waiting()
            if waiting is None or monotonic_ns() - waiting.since_ns < self.after_ns:
                continue
            wait = (waiting.loader_number, waiting.since_ns)
            if wait not in self._reported:
                self._reported.add(wait)
                self._report(waiting)

    def _report(self, waiting: Waiting) -> None:
        lines = list(described(waiting))
        text = "\n".join(lines)
        with suppress(OSError), (self._directory / HANG_TXT).open("a") as file:
            file.write(f"{text}\n\n")
        number, epoch = waiting.loader_number, waiting.epoch
        self._record("hang", loader=number, epoch=epoch, worker=waiting.holder, detail=lines[0])
        self._say(text)


def _say(text: str) -> None:
    with suppress(OSError, ValueError):
        print(f"pipeprof: {text}", file=sys.stderr, flush=True)


def described(waiting: Waiting) -> Iterator[str]:
    """Yield the lines that describe a wait: the batch, its worker, the other workers, exhausted resources."""
    waited = duration(monotonic_ns() - waiting.since_ns)
    if not waiting.pids:
        yield f"no batch for {waited}: {waiting.loader} makes it in the training process itself"
        yield from _frames(own_frames(waiting.thread))
        return
    if waiting.seq is None or waiting.holder is None:
        yield f"no batch for {waited}: the loop waits for any worker of {waiting.loader}"
        holders = list(range(len(waiting.pids)))
    else:
        batch = f"batch {waiting.seq} of epoch {waiting.epoch} of {waiting.loader}"
        holder = f"worker {waiting.holder}{_of(waiting.pids[waiting.holder])}"
        yield f"no batch for {waited}: the loop waits for {batch}, which {holder} holds"
        holders = [waiting.holder]
    for worker in holders:
        yield from _worker(worker, waiting, in_full=True)
    for worker in (each for each in range(len(waiting.pids)) if each not in holders):
        yield from _worker(worker, waiting, in_full=False)
    yield from _full(waiting.pids)


def _of(pid: int) -> str:
    return f" (process {pid})" if pid else ""


def _worker(worker: int, waiting: Waiting, in_full: bool) -> Iterator[str]:
    pid = waiting.pids[worker]
    if not pid:
        yield f"  worker {worker} has ended"
        return
    loss = waiting.losses.get(worker)
    if loss is not None and loss.epoch == waiting.epoch and waiting.seq in (None, loss.seq):
        yield f"  worker {worker} {loss.sentence()}"
        return
    letter, place = state_of(pid)
    doing = _state(letter, place)
    if letter in "TtZ":
        yield from _at_rest(worker, pid, doing, in_full and letter != "Z")
        return
    stack = read_stack(pid, waits=letter in "SD")
    if stack is None:
        yield f"  worker {worker} {doing}; its Python stack is not observed: ptrace is not allowed, or fails"
        return
    if stack.seq is None:
        lost = f": batch {waiting.seq} was made, and is stuck on its way or lost" if in_full else ""
        yield f"  worker {worker} has no batch to make{lost}"
        return
    yield f"  worker {worker} {doing}, in {_making(stack)}"
    if in_full:
        if (native := native_frame(pid)) is not None:
            yield f"    in native code: {native}"
        yield from _frames(stack.frames)


def _at_rest(worker: int, pid: int, doing: str, in_full: bool) -> Iterator[str]:
    """Yield the lines for a worker that runs nothing, if py-spy can read its memory."""
    stack = stack_of_stopped(pid) if in_full else None
    if stack is None or stack.seq is None:
        yield f"  worker {worker} {doing}" + ("; where is not observed without py-spy" if in_full else "")
        return
    yield f"  worker {worker} {doing}, in {_making(stack)}"
    yield from _frames(stack.frames)


def _state(letter: str, place: str) -> str:
    if letter in "Tt":
        return "is stopped (kill -CONT lets it go on)"
    if letter == "Z":
        return "has ended"
    if letter == "R":
        return "computes"
    what = "disk" if letter == "D" else waits_for(place)
    known = {"lock": "a lock", "socket": "a socket", "sleep": "the end of a sleep", "pipe": "a pipe or FIFO"}
    where = f" ({place})" if place else ""
    return f"waits for {known.get(what or '', 'the disk' if what == 'disk' else 'the kernel')}{where}"


def _making(stack: LoopStack) -> str:
    parts = [f"batch {stack.seq}"]
    if stack.start_ns is not None:
        parts[0] += f" since {duration(monotonic_ns() - stack.start_ns)}"
    if stack.sample is not None:
        parts.append(f"sample {stack.sample}")
    if stack.file is not None:
        parts.append(f"last file {stack.file}")
    return ", ".join(parts)


def _frames(frames: Iterable[tuple[str, int, str]]) -> Iterator[str]:
    """Yield the lines of a stack, innermost first, without frames of pipeprof and torch around the user's."""
    ours = str(Path(__file__).parents[2])
    kept = [
        frame for frame in frames if not frame[0].startswith(ours) and not frame[0].endswith(_NOT_THE_USERS)
    ]
    for file, line, function in kept[:_MOST_FRAMES]:
        yield f"    {file}:{line} in {function}"


def own_frames(thread: int) -> list[tuple[str, int, str]]:
    """Return the stack of a thread of this process, innermost first."""
    frame = sys._current_frames().get(thread)
    frames = []
    while frame is not None:
        frames.append((frame.f_code.co_filename, frame.f_lineno or 0, frame.f_code.co_qualname))
        frame = frame.f_back
    return frames


def _full(pids: Iterable[int]) -> Iterator[str]:
    """Yield the room left in shared memory, and the processes that ran out of file descriptors."""
    if (room := shared_memory_bytes()) is not None:
        free, whole = room
        is_full = bool(whole) and free < (1 - _FULL) * whole
        yield f"  {SHARED_MEMORY} {'is full: ' if is_full else ''}has {size(free)} of {size(whole)} free"
    for pid in (os.getpid(), *filter(None, pids)):
        opened = descriptors_of(pid)
        if opened is not None and opened[0] > _FULL * opened[1]:
            yield f"  process {pid} has {plural(opened[0], 'descriptor')} open, of {opened[1]}"
