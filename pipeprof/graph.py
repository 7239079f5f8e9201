"""The loader and its loop as a dependency graph: which event waits for which, as data.

`EDGES` is the one statement of how torch's DataLoader and a training loop order their events. Attribution
walks it backwards over measured times, demands are the times that pass along it, and the simulator fires it
forwards: an event happens when the last of its predecessors has happened and the activity between has run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, IntEnum
from functools import cache
from typing import Final, NamedTuple

from pipeprof.vocabulary import owners


class Event(IntEnum):
    """The events in the life of a batch, in the order in which they happen."""

    DISPATCH = 0
    """Time at which its indices were put into a worker's queue."""
    START = 1
    """Time at which the worker began it."""
    FINISH = 2
    """Time at which the worker had collated it."""
    PICKLED = 3
    """Time at which the worker's queue thread began to pickle it."""
    SENT = 4
    """Time at which the queue thread had written it: the main process can read it."""
    RECEIVED = 5
    """Time at which the main process, or its pin thread, had unpickled it."""
    AVAILABLE = 6
    """Time at which it was in the main process, pinned if asked for."""
    REQUEST = 7
    """Time at which the loop called `next`."""
    TAKE = 8
    """Time at which `next` returned."""
    COPY_START = 9
    """Time at which its copy to the device began."""
    COPY = 10
    """Time at which it was on the device."""
    LAUNCH = 11
    """Time at which the host had submitted its step and went on; if the loop synchronises, the step had
    ended."""
    COMPUTE_START = 12
    """Time at which the device began its step."""
    COMPUTE = 13
    """Time at which the device had finished its step."""


OF_LOADER: Final = frozenset(event for event in Event if event < Event.REQUEST)
"""Events that count the batches of one loader and epoch; the others count the steps of the whole loop."""


class Activity(Enum):
    """Work or delay that passes along an edge. The value is the owner of that time."""

    MAKE = "making"
    """The making of a batch; its time has owners of its own."""
    LOOP = owners.MAIN.name
    HAND_OVER = owners.TRANSFER.name
    PIN = owners.PIN.name
    COPY = owners.H2D.name
    COMPUTE = owners.ACCELERATOR.name


class Back(Enum):
    """The batch, or step, whose event is waited for."""

    SAME = "the same"
    BEFORE = "the one before"
    OUTSTANDING = "as many batches before as the workers may be ahead of the loop"
    QUEUE_DEPTH = "as many steps before as the device may be behind the host"
    OF_WORKER = "the batch that the same worker made before"
    NEXT_OF_WORKER = "the batch that the same worker made after it"
    ARRIVED = "the batch that the main process, or its pin thread, had received before"
    EPOCH = "the step that came before the first one of the epoch"


UNBOUNDED: Final = 1 << 30
"""Queue depth of a device that never holds the host."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The knobs that decide the graph's edges."""

    workers: int
    prefetch: int = 2
    in_order: bool = True
    pin_memory: bool = False
    """True if a thread of the main process pins the batches, one at a time."""
    pageable: bool = True
    """True if the copy to the device holds the host until it is done."""
    copies_overlap: bool = True
    """True if a copy may run alongside the step before; else the device does one thing at a time."""
    synchronises: bool = False
    """True if the loop waits for each step to end before it asks for the next batch (`.item()`)."""
    queue_depth: int = 2
    """Steps that may be launched and unfinished before the host waits."""

    @property
    def outstanding(self) -> int:
        """Return the batches dispatched ahead of the loop: prefetch factor times workers."""
        return self.workers * self.prefetch

    def distance(self, back: Back) -> int | None:
        """Return by how many batches or steps `back` goes back; None if that is not the same for all."""
        match back:
            case Back.SAME:
                return 0
            case Back.BEFORE:
                return 1
            case Back.OUTSTANDING:
                return self.outstanding
            case Back.QUEUE_DEPTH:
                return self.queue_depth
        return None


Condition = Callable[[Shape], bool]


def always(_: Shape) -> bool:
    """Hold for every shape."""
    return True


def workers(shape: Shape) -> bool:
    """Return True if workers make the batches."""
    return shape.workers > 0


def inline(shape: Shape) -> bool:
    """Return True if the loop makes its batches itself, inside `next`."""
    return shape.workers == 0


def pins(shape: Shape) -> bool:
    """Return True if a pin thread receives the batches."""
    return shape.workers > 0 and shape.pin_memory


def unpinned(shape: Shape) -> bool:
    """Return True if `next` itself receives the batches of workers."""
    return shape.workers > 0 and not shape.pin_memory


def one_stream(shape: Shape) -> bool:
    """Return True if the device copies and computes in turn."""
    return not shape.copies_overlap


def pageable(shape: Shape) -> bool:
    """Return True if the copy to the device holds the host."""
    return shape.pageable


def synchronises(shape: Shape) -> bool:
    """Return True if the host waits for each step to end."""
    return shape.synchronises


def runs_ahead(shape: Shape) -> bool:
    """Return True if the host goes on while the device computes."""
    return not shape.synchronises


class Edge(NamedTuple):
    """A dependency: `event` waits for `after` of the batch that `back` names, and then for `activity`."""

    event: Event
    after: Event
    back: Back
    activity: Activity
    when: Condition = always


EDGES: Final = (
    Edge(Event.DISPATCH, Event.TAKE, Back.OUTSTANDING, Activity.LOOP, workers),
    Edge(Event.DISPATCH, Event.LAUNCH, Back.EPOCH, Activity.LOOP, workers),
    Edge(Event.DISPATCH, Event.REQUEST, Back.SAME, Activity.LOOP, inline),
    Edge(Event.START, Event.DISPATCH, Back.SAME, Activity.HAND_OVER, workers),
    Edge(Event.START, Event.FINISH, Back.OF_WORKER, Activity.HAND_OVER, workers),
    Edge(Event.START, Event.DISPATCH, Back.SAME, Activity.LOOP, inline),
    Edge(Event.FINISH, Event.START, Back.SAME, Activity.MAKE),
    # The queue thread of a worker sends one batch after the other, and needs the worker's interpreter lock.
    Edge(Event.PICKLED, Event.FINISH, Back.SAME, Activity.HAND_OVER, workers),
    Edge(Event.PICKLED, Event.SENT, Back.OF_WORKER, Activity.HAND_OVER, workers),
    Edge(Event.PICKLED, Event.FINISH, Back.NEXT_OF_WORKER, Activity.HAND_OVER, workers),
    Edge(Event.SENT, Event.FINISH, Back.SAME, Activity.HAND_OVER, workers),
    Edge(Event.SENT, Event.PICKLED, Back.SAME, Activity.HAND_OVER, workers),
    # What was not recorded of the way is passed over: each event waits for the earlier ones directly, too.
    # Unpickling fetches the file descriptor of each storage from a thread of the worker: its lock again.
    Edge(Event.RECEIVED, Event.FINISH, Back.SAME, Activity.HAND_OVER, workers),
    Edge(Event.RECEIVED, Event.SENT, Back.SAME, Activity.HAND_OVER, workers),
    Edge(Event.RECEIVED, Event.REQUEST, Back.SAME, Activity.HAND_OVER, unpinned),
    Edge(Event.RECEIVED, Event.AVAILABLE, Back.ARRIVED, Activity.HAND_OVER, pins),
    Edge(Event.RECEIVED, Event.RECEIVED, Back.ARRIVED, Activity.HAND_OVER, unpinned),
    Edge(Event.RECEIVED, Event.FINISH, Back.NEXT_OF_WORKER, Activity.HAND_OVER, workers),
    Edge(Event.AVAILABLE, Event.FINISH, Back.SAME, Activity.HAND_OVER, workers),
    Edge(Event.AVAILABLE, Event.SENT, Back.SAME, Activity.HAND_OVER, unpinned),
    Edge(Event.AVAILABLE, Event.RECEIVED, Back.SAME, Activity.HAND_OVER, unpinned),
    Edge(Event.AVAILABLE, Event.SENT, Back.SAME, Activity.PIN, pins),
    Edge(Event.AVAILABLE, Event.RECEIVED, Back.SAME, Activity.PIN, pins),
    Edge(Event.AVAILABLE, Event.AVAILABLE, Back.ARRIVED, Activity.PIN, pins),
    Edge(Event.AVAILABLE, Event.FINISH, Back.SAME, Activity.LOOP, inline),
    Edge(Event.REQUEST, Event.LAUNCH, Back.BEFORE, Activity.LOOP),
    Edge(Event.TAKE, Event.REQUEST, Back.SAME, Activity.HAND_OVER, workers),
    Edge(Event.TAKE, Event.AVAILABLE, Back.SAME, Activity.HAND_OVER, workers),
    Edge(Event.TAKE, Event.REQUEST, Back.SAME, Activity.LOOP, inline),
    Edge(Event.TAKE, Event.AVAILABLE, Back.SAME, Activity.LOOP, inline),
    Edge(Event.COPY_START, Event.TAKE, Back.SAME, Activity.LOOP),
    Edge(Event.COPY_START, Event.COPY, Back.BEFORE, Activity.LOOP),
    Edge(Event.COPY_START, Event.COMPUTE, Back.BEFORE, Activity.LOOP, one_stream),
    Edge(Event.COPY, Event.COPY_START, Back.SAME, Activity.COPY),
    Edge(Event.LAUNCH, Event.TAKE, Back.SAME, Activity.LOOP),
    Edge(Event.LAUNCH, Event.COPY, Back.SAME, Activity.LOOP, pageable),
    Edge(Event.LAUNCH, Event.COMPUTE, Back.QUEUE_DEPTH, Activity.LOOP, runs_ahead),
    Edge(Event.LAUNCH, Event.COMPUTE, Back.SAME, Activity.LOOP, synchronises),
    Edge(Event.COMPUTE_START, Event.COPY, Back.SAME, Activity.LOOP),
    Edge(Event.COMPUTE_START, Event.COMPUTE, Back.BEFORE, Activity.LOOP),
    Edge(Event.COMPUTE, Event.COMPUTE_START, Back.SAME, Activity.COMPUTE),
)
"""Every dependency. Of predecessors that happened at the same time the one listed first is followed."""


@cache
def edges(shape: Shape) -> tuple[Edge, ...]:
    """Return the dependencies that hold for a shape, in the order of `EDGES`."""
    return tuple(edge for edge in EDGES if edge.when(shape))
