"""The loader as a dependency graph: which event waits for which. Used in both directions.

`predecessors` is the one statement of how torch's DataLoader and a training loop order their events.
Attribution walks it backwards over measured times; the simulator walks it forwards over demands. `Timeline`
is a recorded run as the arrays of those events.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeprof.trace import MAIN_PROCESS, Run

NOT_OBSERVED: Final = -1
"""Stands for a null in the integer arrays of a `Timeline`; no time and no count of ours is negative."""

Ints = npt.NDArray[np.int64]


class Event(IntEnum):
    """The events in the life of a batch, in the order in which they happen."""

    DISPATCH = 0
    """Its indices were put into a worker's queue."""
    START = 1
    """The worker turned to it."""
    FINISH = 2
    """The worker had collated it."""
    AVAILABLE = 3
    """It was in the main process, pinned where asked for."""
    REQUEST = 4
    """The loop called `next`."""
    TAKE = 5
    """`next` returned."""
    COPY = 6
    """It was on the device."""
    LAUNCH = 7
    """The host had submitted its step and went on."""
    COMPUTE = 8
    """The device had finished its step."""


class Node(NamedTuple):
    """An event of a batch; `batch` is its position in the order of takes of one loader and epoch."""

    event: Event
    batch: int


@dataclass(frozen=True, slots=True)
class Shape:
    """The knobs that decide the graph's edges."""

    workers: int
    prefetch: int = 2
    in_order: bool = True
    pin_memory: bool = False
    synchronises: bool = False
    """The loop waits for each step to end before it asks for the next batch (`.item()`)."""
    queue_depth: int = 2
    """Steps that may be launched and unfinished before the host waits."""

    @property
    def outstanding(self) -> int:
        """Batches dispatched ahead of the loop: prefetch factor times workers."""
        return self.workers * self.prefetch


def predecessors(  # noqa: PLR0911 - one return an event
    shape: Shape, event: Event, k: int, previous: int | None
) -> list[Node]:
    """The events that must have happened before `event` of batch `k` can (DESIGN §4).

    `previous` is the batch that the same worker made before `k`: `k - workers` when batches are handed out in
    turn. An empty list means that the event waits for the start of the epoch alone.
    """
    match event:
        case Event.DISPATCH:
            if shape.workers == 0:
                return [Node(Event.REQUEST, k)]
            earlier = k - shape.outstanding
            return [Node(Event.TAKE, earlier)] if earlier >= 0 else []
        case Event.START:
            waits = [Node(Event.DISPATCH, k)]
            if previous is not None and shape.workers > 0:
                waits.append(Node(Event.FINISH, previous))
            return waits
        case Event.FINISH:
            return [Node(Event.START, k)]
        case Event.AVAILABLE:
            pinned_one_at_a_time = shape.pin_memory and shape.workers > 0 and k > 0
            return [Node(Event.FINISH, k)] + ([Node(Event.AVAILABLE, k - 1)] if pinned_one_at_a_time else [])
        case Event.REQUEST:
            if k == 0:
                return []
            return [Node(Event.COMPUTE if shape.synchronises else Event.LAUNCH, k - 1)]
        case Event.TAKE:
            return [Node(Event.REQUEST, k), Node(Event.AVAILABLE, k)]
        case Event.COPY:
            return [Node(Event.TAKE, k)] + ([Node(Event.COPY, k - 1)] if k > 0 else [])
        case Event.LAUNCH:
            full = k - shape.queue_depth
            return [Node(Event.TAKE, k)] + ([Node(Event.COMPUTE, full)] if full >= 0 else [])
        case Event.COMPUTE:
            return [Node(Event.COPY, k)] + ([Node(Event.COMPUTE, k - 1)] if k > 0 else [])


@dataclass(frozen=True, slots=True)
class Timeline:
    """A recorded run, one entry a step, in the order of the steps. Times in ns, `NOT_OBSERVED` where null."""

    step: Ints
    loader: Ints
    epoch: Ints
    seq: Ints
    warmup: npt.NDArray[np.bool_]
    samples: Ints
    worker: Ints
    dispatch_ns: Ints
    start_ns: Ints
    finish_ns: Ints
    arrival_ns: Ints
    request_ns: Ints
    take_ns: Ints
    launch_ns: Ints
    copy_start_ns: Ints
    copy_end_ns: Ints
    compute_start_ns: Ints
    compute_end_ns: Ints
    device_wait_ns: Ints
    batch_row: Ints
    """Row of the step's batch in the `batches` table."""
    previous: Ints
    """Entry of the batch that the same worker made before this one, of the same loader and epoch."""

    def __len__(self) -> int:
        return len(self.step)


_FROM_STEPS = [
    "step",
    "loader",
    "epoch",
    "seq",
    "samples",
    "request_ns",
    "arrival_ns",
    "take_ns",
    "launch_ns",
    "copy_start_ns",
    "copy_end_ns",
    "compute_start_ns",
    "compute_end_ns",
    "device_wait_ns",
]
_FROM_BATCHES = ["worker", "dispatch_ns", "start_ns", "finish_ns"]


def read_timeline(run: Run) -> Timeline:
    """Join the steps of a run with the batches that they took, on (loader, epoch, seq)."""
    steps, batches = run.table("steps").sort_by("step"), run.table("batches")
    columns: dict[str, Any] = {name: ints(steps[name]) for name in _FROM_STEPS}
    row = _match(
        [columns[name] for name in ("loader", "epoch", "seq")],
        [ints(batches[name]) for name in ("loader", "epoch", "seq")],
    )
    for name in _FROM_BATCHES:
        missing = MAIN_PROCESS if name == "worker" else NOT_OBSERVED
        values = ints(batches[name])
        columns[name] = (
            np.where(row >= 0, values[row], missing) if len(values) else np.full(len(row), missing)
        )
    warmup = steps["warmup"].combine_chunks().fill_null(False).to_numpy(zero_copy_only=False)
    return Timeline(
        warmup=warmup.astype(bool),
        batch_row=row,
        previous=_previous(columns["loader"], columns["epoch"], columns["worker"], columns["start_ns"]),
        **columns,
    )


def ints(column: Any) -> Ints:
    """An integer column of Arrow as int64, `NOT_OBSERVED` for null."""
    filled = column.cast("int64").combine_chunks().fill_null(NOT_OBSERVED)
    return np.asarray(filled.to_numpy(zero_copy_only=False), dtype=np.int64)


def _match(left: list[Ints], right: list[Ints]) -> Ints:
    """For each row of `left`, the row of `right` with the same key, or -1."""
    if len(right[0]) == 0:
        return np.full(len(left[0]), -1, dtype=np.int64)
    base = [int(max(a.max(initial=0), b.max(initial=0))) + 1 for a, b in zip(left, right, strict=True)]
    wanted, held = ((c[0] * base[1] + c[1]) * base[2] + c[2] for c in (left, right))
    order = np.argsort(held, kind="stable")
    place = np.minimum(np.searchsorted(held[order], wanted), len(held) - 1)
    row = order[place]
    return np.where(held[row] == wanted, row, -1).astype(np.int64)


def _previous(loader: Ints, epoch: Ints, worker: Ints, start: Ints) -> Ints:
    """Position of the batch made before by the same worker of the same loader and epoch, or -1."""
    order = np.lexsort((start, worker, epoch, loader))
    same = (np.diff(loader[order]) == 0) & (np.diff(epoch[order]) == 0) & (np.diff(worker[order]) == 0)
    previous = np.full(len(order), -1, dtype=np.int64)
    later = order[1:][same]
    previous[later] = order[:-1][same]
    return np.where(start == NOT_OBSERVED, -1, previous)


class Window(NamedTuple):
    """The measured part of a run: after warm-up, to the end of the last step."""

    start_ns: int
    end_ns: int

    @property
    def wall_ns(self) -> int:
        """Length of the window."""
        return self.end_ns - self.start_ns


def measured_window(timeline: Timeline) -> Window | None:
    """From the end of the last warm-up step (or the first request) to the end of the last step.

    A step ends with its computation, or, where no device was observed, with the next request; the last one
    then ends when it was taken. None where no step was measured.
    """
    measured = np.flatnonzero(~timeline.warmup)
    if len(measured) == 0:
        return None
    first, last = int(measured[0]), int(measured[-1])
    before = _end_of(timeline, first - 1) if first > 0 else int(timeline.request_ns[0])
    return Window(before, max(_end_of(timeline, last), before))


def _end_of(timeline: Timeline, i: int) -> int:
    ended = int(timeline.compute_end_ns[i])
    if ended != NOT_OBSERVED:
        return ended
    if i + 1 < len(timeline):
        return int(timeline.request_ns[i + 1])
    return max(int(timeline.take_ns[i]), int(timeline.launch_ns[i]))
