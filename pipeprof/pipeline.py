"""The loader as a dependency graph: which event waits for which. Used in both directions.

`predecessors` is the one statement of how torch's DataLoader and a training loop order their events.
Attribution walks it backwards over measured times; the simulator walks it forwards over demands. `Timeline`
is a recorded run as the arrays of those events.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


UNBOUNDED: Final = 1 << 30
"""Queue depth of a device that never holds the host."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The knobs that decide the graph's edges."""

    workers: int
    prefetch: int = 2
    in_order: bool = True
    pin_memory: bool = False
    """A thread of the main process pins the batches, one at a time."""
    pageable: bool = True
    """The copy to the device holds the host until it is done."""
    copies_overlap: bool = True
    """A copy may run beside the step before; else the device does one thing at a time."""
    synchronises: bool = False
    """The loop waits for each step to end before it asks for the next batch (`.item()`)."""
    queue_depth: int = 2
    """Steps that may be launched and unfinished before the host waits."""

    @property
    def outstanding(self) -> int:
        """Batches dispatched ahead of the loop: prefetch factor times workers."""
        return self.workers * self.prefetch


class Edge(NamedTuple):
    """One dependency: `event` of the batch that came `back` batches earlier (0: the same batch)."""

    event: Event
    back: int


PREVIOUS: Final = -1
"""As `Edge.back`: the batch that the same worker made before."""


def edges(shape: Shape, event: Event) -> list[Edge]:  # noqa: PLR0911 - one return an event
    """What `event` waits for (DESIGN §4), the one that always holds first.

    `back` counts batches of one loader and epoch up to TAKE, and steps of the whole loop from there on. An
    event whose earlier batches do not exist waits for the start of the epoch.
    """
    parallel = shape.workers > 0
    match event:
        case Event.DISPATCH:
            return [Edge(Event.TAKE, shape.outstanding) if parallel else Edge(Event.REQUEST, 0)]
        case Event.START:
            return [Edge(Event.DISPATCH, 0)] + ([Edge(Event.FINISH, PREVIOUS)] if parallel else [])
        case Event.FINISH:
            return [Edge(Event.START, 0)]
        case Event.AVAILABLE:
            one_at_a_time = shape.pin_memory and parallel
            return [Edge(Event.FINISH, 0)] + ([Edge(Event.AVAILABLE, 1)] if one_at_a_time else [])
        case Event.REQUEST:
            return [Edge(Event.COMPUTE if shape.synchronises else Event.LAUNCH, 1)]
        case Event.TAKE:
            return [Edge(Event.REQUEST, 0), Edge(Event.AVAILABLE, 0)]
        case Event.COPY:
            turn = [] if shape.copies_overlap else [Edge(Event.COMPUTE, 1)]
            return [Edge(Event.TAKE, 0), Edge(Event.COPY, 1), *turn]
        case Event.LAUNCH:
            held = [Edge(Event.COPY, 0)] if shape.pageable else []
            return [Edge(Event.TAKE, 0), *held, Edge(Event.COMPUTE, shape.queue_depth)]
        case Event.COMPUTE:
            return [Edge(Event.COPY, 0), Edge(Event.COMPUTE, 1)]


def predecessors(shape: Shape, event: Event, k: int, previous: int | None) -> list[Node]:
    """The events that must have happened before `event` of batch `k` can: `edges` for one batch.

    `previous` is the batch that the same worker made before `k`: `k - workers` when batches are handed out in
    turn. An empty list means that the event waits for the start of the epoch alone.
    """
    nodes = []
    for before, back in edges(shape, event):
        batch = previous if back == PREVIOUS else k - back
        if batch is not None and batch >= 0:
            nodes.append(Node(before, batch))
    return nodes


def shapes_of(run: Run, timeline: Timeline) -> dict[int, Shape]:
    """The shape of each loader of a run by its id, from run.json; what run.json does not say is seen.

    A loader with workers that run.json does not name is taken to have as many as made its batches.
    """
    told = {int(one["id"]): one for one in run.meta.get("loaders") or []}
    device = run.meta.get("accelerator") or {}
    gpu = device.get("kind") == "cuda" or bool((run.meta.get("machine") or {}).get("gpu_names"))
    synchronises = _synchronises(device, timeline)
    overlap = bool(device.get("copies_overlap", _copies_overlap(timeline)))
    depth = int(device.get("queue_depth") or UNBOUNDED)
    shapes = {}
    for loader in np.unique(timeline.loader).tolist():
        one = told.get(loader, {})
        workers = one.get("workers")
        if workers is None:
            workers = int(timeline.worker[timeline.loader == loader].max(initial=MAIN_PROCESS)) + 1
        shapes[loader] = Shape(
            workers=int(workers),
            prefetch=int(one.get("prefetch") or 2),
            in_order=bool(one.get("in_order", True)),
            pin_memory=bool(one.get("pin_memory")) and gpu,  # torch starts no pin thread without a GPU
            pageable=not device.get("pinned", one.get("pin_memory", False)),
            copies_overlap=overlap,
            synchronises=synchronises,
            queue_depth=depth,
        )
    return shapes


def _synchronises(device: Mapping[str, Any], timeline: Timeline) -> bool:
    """The device says so, or nearly every step had ended when the host went on from it."""
    if device.get("synchronises"):
        return True
    seen = (timeline.compute_end_ns != NOT_OBSERVED) & (timeline.launch_ns != NOT_OBSERVED)
    waited = timeline.launch_ns[seen] >= timeline.compute_end_ns[seen]
    return bool(seen.any() and waited.mean() >= 0.9)


def _copies_overlap(timeline: Timeline) -> bool:
    """Some copies began before the step before them had ended."""
    began, ended = timeline.copy_start_ns[1:], timeline.compute_end_ns[:-1]
    seen = (began != NOT_OBSERVED) & (ended != NOT_OBSERVED)
    return not seen.any() or bool((began[seen] >= ended[seen]).mean() < 0.9)


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
    columns = read_ints(run, "steps", [*_FROM_STEPS, "warmup"])
    if (np.diff(columns["step"]) < 0).any():
        order = np.argsort(columns["step"], kind="stable")
        columns = {name: values[order] for name, values in columns.items()}
    key = ("loader", "epoch", "seq")
    batches = read_ints(run, "batches", [*key, *_FROM_BATCHES])
    row = Keys(*(batches.pop(name) for name in key)).find(*(columns[name] for name in key))
    for name in _FROM_BATCHES:
        columns[name] = take(batches.pop(name), row, MAIN_PROCESS if name == "worker" else NOT_OBSERVED)
    return Timeline(
        warmup=columns.pop("warmup") == 1,
        batch_row=row,
        previous=_previous(columns["loader"], columns["epoch"], columns["worker"], columns["start_ns"]),
        **columns,
    )


def take(values: Ints, row: Ints, missing: int = NOT_OBSERVED) -> Ints:
    """`values` at each row, `missing` where the row is negative."""
    if len(values) == 0:
        return np.full(len(row), missing, dtype=np.int64)
    return np.where(row >= 0, values[row], missing)


def read_ints(run: Run, table: str, names: Sequence[str]) -> dict[str, Ints]:
    """Integer columns of a table, without holding the whole table as Arrow."""
    parts: dict[str, list[Ints]] = {name: [np.zeros(0, np.int64)] for name in names}
    for piece in run.pieces(table, names):
        for name in names:
            parts[name].append(ints(piece[name]))
    return {name: np.concatenate(parts.pop(name)) for name in names}


def ints(column: Any) -> Ints:
    """An integer column of Arrow as int64, `NOT_OBSERVED` for null."""
    filled = column.cast("int64").combine_chunks().fill_null(NOT_OBSERVED)
    return np.asarray(filled.to_numpy(zero_copy_only=False), dtype=np.int64)


class Keys:
    """Finds the row of a (loader, epoch, seq) in a table that has each key once."""

    def __init__(self, loader: Ints, epoch: Ints, seq: Ints) -> None:
        self._base = [int(one.max(initial=0)) + 1 for one in (loader, epoch, seq)]
        packed = self._pack(loader, epoch, seq)
        self._order = np.argsort(packed, kind="stable")
        self._sorted = packed[self._order]

    @classmethod
    def of(cls, timeline: Timeline) -> Keys:
        """The keys of a timeline's steps."""
        return cls(timeline.loader, timeline.epoch, timeline.seq)

    def _pack(self, loader: Ints, epoch: Ints, seq: Ints) -> Ints:
        return (loader * self._base[1] + epoch) * self._base[2] + seq

    def find(self, loader: Ints, epoch: Ints, seq: Ints) -> Ints:
        """For each key its row, or -1."""
        if len(self._sorted) == 0:
            return np.full(len(loader), -1, dtype=np.int64)
        known = (epoch < self._base[1]) & (seq < self._base[2])
        wanted = self._pack(loader, epoch, seq)
        place = np.minimum(np.searchsorted(self._sorted, wanted), len(self._sorted) - 1)
        return np.where(known & (self._sorted[place] == wanted), self._order[place], -1).astype(np.int64)


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
    then ends when it was taken. Steps at the end whose computation was not seen any more (a torn run) are
    left out. None where no step was measured.
    """
    seen = timeline.compute_end_ns != NOT_OBSERVED
    measured = np.flatnonzero(~timeline.warmup & (seen if seen.any() else True))
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
