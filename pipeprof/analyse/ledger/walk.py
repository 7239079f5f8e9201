"""The backward walk: from the end of the last step to the start of the window, by way of what came last.

For every event the last of its predecessors (`graph.EDGES`) to happen is found for all batches at once; the
walk then follows these pointers. What lies between an event and that predecessor belongs to the activity on
the edge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeprof.analyse.ledger.lock import SWITCH_NS, ended_before, under_way
from pipeprof.analyse.ledger.tiling import CHUNK, CODE, Rows
from pipeprof.graph import EDGES, OF_LOADER, Activity, Back, Edge, Event, Shape, edges
from pipeprof.passes import NOT_OBSERVED, Bools, Ints, Window
from pipeprof.timeline import Timeline
from pipeprof.vocabulary import owners

NO_NODE: Final = -1


class Path(NamedTuple):
    """The critical path through a window, earliest piece first."""

    bounds: Ints
    owner: Rows
    """Code of the piece's owner in `tiling.CODE`; `MAKING` and `BODY` are split by others."""
    step: Rows
    """Entry of the timeline whose event ended the piece."""


MAKING: Final = len(CODE)
"""Piece of a path: a worker, or the loop itself, makes a batch."""
BODY: Final = len(CODE) + 1
"""Piece of a path: the loop's body, if no device was observed."""
_OWNER: Final = {activity: CODE.get(activity.value, MAKING) for activity in Activity}
_INDEX: Final = {edge: i for i, edge in enumerate(EDGES)}
_DEVICE: Final = (Event.COPY_START, Event.COPY, Event.COMPUTE_START, Event.COMPUTE)


class Moments(NamedTuple):
    """Times at which each event of each step happened, of the events that were observed at all."""

    events: tuple[Event, ...]
    ended: Ints
    """Times, one row an event of `events`, one column a step; `NOT_OBSERVED` if it is not known."""

    def of(self, event: Event) -> Ints:
        """Return one event's times."""
        return np.asarray(self.ended[self.events.index(event)])

    @property
    def device(self) -> bool:
        """Return True if the device's own times were observed."""
        return Event.COMPUTE in self.events


def moments(timeline: Timeline) -> Moments:
    """Return the events' times; those that were not observed are put where they change no path."""
    device = timeline.device_observed
    recorded = {
        Event.PICKLED: timeline.pickled_ns,
        Event.SENT: timeline.sent_ns,
        Event.RECEIVED: timeline.received_ns,
    }
    unseen = {event for event, times in recorded.items() if (times == NOT_OBSERVED).all()}
    events = tuple(event for event in Event if event not in unseen and (device or event not in _DEVICE))
    ended = np.empty((len(events), len(timeline)), dtype=np.int64)
    unmade = (timeline.start_ns == NOT_OBSERVED) | (timeline.finish_ns == NOT_OBSERVED)
    for row, event in enumerate(events):
        ended[row] = _times_of(event, timeline, device)
        if event in OF_LOADER:
            ended[row, unmade] = NOT_OBSERVED
    return Moments(events, ended)


def _times_of(event: Event, timeline: Timeline, device: bool) -> Ints:
    match event:
        case Event.AVAILABLE:
            return timeline.available_ns
        case Event.LAUNCH:
            return np.maximum(timeline.launch_ns, timeline.take_ns) if device else _gone_on(timeline)
        case Event.COPY_START | Event.COPY | Event.COMPUTE_START | Event.COMPUTE:
            return _on_device(event, timeline)
        case Event.SENT:  # the thread that sends takes the time when it runs again: its reader may be quicker
            received = np.where(timeline.received_ns == NOT_OBSERVED, timeline.sent_ns, timeline.received_ns)
            return np.minimum(timeline.sent_ns, received)
    return np.asarray(getattr(timeline, f"{event.name.lower()}_ns"))


def _gone_on(timeline: Timeline) -> Ints:
    """Return when the loop's body began; it has no other end than the next request, except for the last
    one."""
    launched = timeline.take_ns.copy()
    launched[-1:] = np.maximum(launched[-1:], timeline.launch_ns[-1:])
    return launched


def _on_device(event: Event, timeline: Timeline) -> Ints:
    copied = np.maximum(timeline.copy_end_ns, timeline.take_ns)
    if event == Event.COPY:
        return copied
    if event == Event.COPY_START:
        return np.where(timeline.copy_start_ns == NOT_OBSERVED, copied, timeline.copy_start_ns)
    computed = np.where(timeline.compute_end_ns == NOT_OBSERVED, copied, timeline.compute_end_ns)
    if event == Event.COMPUTE:
        return computed
    return np.where(timeline.compute_start_ns == NOT_OBSERVED, computed, timeline.compute_start_ns)


class Predecessors(NamedTuple):
    """The last predecessor to be ready of each node `row * steps + step` of `Moments.ended`."""

    node: npt.NDArray[np.int32]
    """Node of that predecessor; NO_NODE if nothing was."""
    edge: npt.NDArray[np.int8]
    """Index into `graph.EDGES` of the dependency that leads there."""


class _Graph:
    """The dependencies of one recorded run."""

    def __init__(self, timeline: Timeline, times: Moments) -> None:
        self._timeline, self._times, self._order = timeline, times, timeline.epochs
        self._start, self._start_node = times.of(Event.START), times.events.index(Event.START) * len(timeline)

    def before(self, shape: Shape, edge: Edge, steps: Ints) -> Ints:
        """Return for each of `steps` the step whose event `edge` waits for; NO_NODE if there is none."""
        timeline, order = self._timeline, self._order
        distance = shape.distance(edge.back)
        if edge.back is Back.SAME:
            before = steps
        elif edge.back is Back.OF_WORKER:
            before = np.where(timeline.previous[steps] < steps, timeline.previous[steps], NO_NODE)
        elif edge.back is Back.NEXT_OF_WORKER:
            before = timeline.next_of_worker[steps]
        elif edge.back is Back.ARRIVED:
            before = self._arrived_before()[steps]
        elif distance is None:
            first = order.position[steps] < shape.outstanding  # a later one waits for a take of this epoch
            before = np.where(first, order.before_epoch(steps), NO_NODE)
        elif edge.event in OF_LOADER:
            # A take lets the next batch be asked for, whichever batch was taken: count the takes.
            place = order.position if shape.in_order else timeline.seq
            before = order.at(steps, place[steps] - distance)
        else:
            before = np.maximum(steps - distance, NO_NODE)
        return before

    def _arrived_before(self) -> Ints:
        """Return which batch the main process had received before each: one at a time, as they were sent."""
        timeline, times = self._timeline, self._times
        if Event.RECEIVED in times.events:
            key = times.of(Event.RECEIVED)
        elif (timeline.arrival_ns != NOT_OBSERVED).any():
            key = times.of(Event.AVAILABLE)
        else:
            key = times.of(Event.SENT if Event.SENT in times.events else Event.FINISH)
        order = np.lexsort((key, timeline.epoch, timeline.loader))
        same = (np.diff(timeline.loader[order]) == 0) & (np.diff(timeline.epoch[order]) == 0)
        before = np.full(len(order), NO_NODE, dtype=np.int64)
        before[order[1:][same]] = order[:-1][same]
        return before

    def last(self, shape: Shape, event: Event, steps: Ints) -> tuple[Ints, Ints]:
        """Return node and edge of the latest predecessor of one event that had happened by then.

        If none had, the first one that is known at all is taken. A making that held up the event and went on
        after it is reached at its start.
        """
        times, count = self._times, len(self._timeline)
        happened = times.of(event)[steps]
        latest = np.full(len(steps), NOT_OBSERVED)
        best, by = (np.full(len(steps), NO_NODE, dtype=kind) for kind in (np.int32, np.int8))
        known, known_by = best.copy(), by.copy()
        for edge in edges(shape):
            if edge.event != event or edge.after not in times.events:
                continue
            batch = self.before(shape, edge, steps)
            row = times.events.index(edge.after)
            then = np.where(batch >= 0, times.ended[row][batch], NOT_OBSERVED)
            node, index = (row * count + batch).astype(np.int32), np.int8(_INDEX[edge])
            better = (then > latest) & (then <= happened)
            if edge.back is Back.NEXT_OF_WORKER:
                start, sizes = self._start[batch], self._timeline.usual_pickle_bytes[steps]
                during = under_way(latest, happened, start, then, sizes)
                node = np.where(during, self._start_node + batch, node).astype(np.int32)
                better = ended_before(latest, happened, then) & (happened - latest > SWITCH_NS) | during
            else:
                first = (known == NO_NODE) & (then != NOT_OBSERVED)
                known, known_by = np.where(first, node, known), np.where(first, index, known_by)
            best, by = np.where(better, node, best), np.where(better, index, by)
            latest = np.where(better, then, latest)
        nothing = best == NO_NODE
        return np.where(nothing, known, best), np.where(nothing, known_by, by)

    def fill_dispatch(self, shape: Shape, steps: Ints) -> None:
        """Put a dispatch that was not observed where the batch was taken that made room for it."""
        dispatch, start = self._times.of(Event.DISPATCH), self._times.of(Event.START)
        unseen = steps[(dispatch[steps] == NOT_OBSERVED) & (start[steps] >= 0)]
        if len(unseen) == 0:
            return
        edge = next(edge for edge in edges(shape) if edge.event == Event.DISPATCH)
        allowed = self.before(shape, edge, unseen)
        room = np.where(allowed >= 0, self._times.of(edge.after)[allowed], start[unseen])
        dispatch[unseen] = np.minimum(room, start[unseen])


def last_predecessors(timeline: Timeline, shapes: Mapping[int, Shape], times: Moments) -> Predecessors:
    """Find for every event of every step the predecessor that it waited for last."""
    graph, size = _Graph(timeline, times), times.ended.shape
    node, edge = np.full(size, NO_NODE, dtype=np.int32), np.full(size, NO_NODE, dtype=np.int8)
    for loader, shape in shapes.items():
        steps = np.flatnonzero(timeline.loader == loader)
        graph.fill_dispatch(shape, steps)
        for row, event in enumerate(times.events):
            node[row, steps], edge[row, steps] = graph.last(shape, event, steps)
    return Predecessors(node.reshape(-1), edge.reshape(-1))


def follow(pointers: npt.NDArray[np.int32], last: int) -> Iterator[Ints]:
    """Yield the nodes from `last` back to where no pointer leads on, latest first, in chunks.

    Times that contradict each other can make pointers lead in a circle: no path is longer than all nodes.
    """
    before = memoryview(pointers.data)
    node, left = last, len(pointers)
    while node >= 0 and left > 0:
        held = []
        for _ in range(min(CHUNK, left)):
            held.append(node)
            node = before[node]
            if node < 0:
                break
        left -= len(held)
        yield np.array(held, dtype=np.int64)


def critical_path(timeline: Timeline, shapes: Mapping[int, Shape], window: Window) -> Path:
    """Walk from the end of `window` to its start; every nanosecond between lies in exactly one piece."""
    times = moments(timeline)
    before = last_predecessors(timeline, shapes, times)
    before.node[times.ended.reshape(-1) <= window.start_ns] = NO_NODE
    pieces = []
    at = window.end_ns
    held: Ints = np.zeros(0, np.int64)
    for chunk in follow(before.node, _last_node(timeline, times)):
        # The last node of a chunk waits for the next one: its edge leads there.
        nodes = np.concatenate([held, chunk])
        pieces.append(_pieces(timeline, times, before, nodes[:-1], nodes[1:], at, window))
        at, held = int(pieces[-1].bounds[0]), nodes[-1:]
    pieces.append(_pieces(timeline, times, before, held, held[:0], at, window))
    return _joined(pieces, window)


def _joined(pieces: list[Path], window: Window) -> Path:
    pieces = pieces[::-1]
    return Path(
        np.concatenate([*(piece.bounds[:-1] for piece in pieces), [window.end_ns]]),
        np.concatenate([piece.owner for piece in pieces]),
        np.concatenate([piece.step for piece in pieces]),
    )


def _pieces(
    timeline: Timeline,
    times: Moments,
    before: Predecessors,
    nodes: Ints,
    reached: Ints,
    at: int,
    window: Window,
) -> Path:
    """Return the pieces between `nodes`, latest first, and those that are `reached` from them.

    They end at `at`; a node from which nothing is reached has a piece back to the start of the window.
    """
    ended = times.ended.reshape(-1)
    bounds = np.concatenate([[at], ended[reached], np.full(len(nodes) - len(reached), window.start_ns)])
    bounds = np.maximum(np.minimum.accumulate(bounds), window.start_ns)
    owner, step = _owners(timeline, times, before, nodes), nodes % len(timeline)
    held = np.flatnonzero(_held_up(times, before, nodes, len(timeline)))
    owner[held], step[held] = MAKING, before.node[nodes[held]] % len(timeline)
    kept = np.flatnonzero(np.diff(bounds) < 0)[::-1]
    starts = bounds[kept + 1]
    return Path(np.append(starts, at), owner[kept], step[kept].astype(np.int32))


def _held_up(times: Moments, before: Predecessors, nodes: Ints, steps: int) -> Bools:
    """Return where an event was held up by the next making of its worker, which went on after it."""
    locked = np.isin(before.edge[nodes], _NEXT_MAKING)
    return np.asarray(locked & (before.node[nodes] // steps == times.events.index(Event.START)))


def _last_node(timeline: Timeline, times: Moments) -> int:
    """Return the event that ends the measured window (`timeline.measured_window`)."""
    count = len(timeline)
    seen = timeline.compute_end_ns != NOT_OBSERVED
    last = int(np.flatnonzero(timeline.measured & (seen if times.device else True))[-1])
    if times.device:
        return times.events.index(Event.COMPUTE) * count + last
    if last + 1 < count:
        return times.events.index(Event.REQUEST) * count + last + 1
    return times.events.index(Event.LAUNCH) * count + last


_NEXT_MAKING: Final = [i for i, edge in enumerate(EDGES) if edge.back is Back.NEXT_OF_WORKER]
_FROM_EPOCH: Final = [i for i, edge in enumerate(EDGES) if edge.back is Back.EPOCH]
_EDGE_OWNER: Final = np.array([_OWNER[edge.activity] for edge in EDGES], dtype=np.int32)


def _owners(timeline: Timeline, times: Moments, before: Predecessors, nodes: Ints) -> Rows:
    """Return who owns the time between each node and what it was reached from."""
    row, step = np.divmod(nodes, len(timeline))
    event = np.array(times.events, dtype=np.int32)[row]
    owner = _EDGE_OWNER[before.edge[nodes]]
    if not times.device:
        epoch = np.isin(before.edge[nodes], _FROM_EPOCH)  # the next epoch waits for the last step's body
        owner[(event == Event.REQUEST) | (event == Event.LAUNCH) | epoch] = BODY
    first = (event == Event.START) & (timeline.previous[step] < 0) & (timeline.worker[step] >= 0)
    owner[first] = CODE[owners.STARTUP.name]
    lost = (event == Event.TAKE) & (times.of(Event.FINISH)[step] == NOT_OBSERVED)
    owner[lost] = CODE[owners.UNKNOWN.name]
    # No way back to the start of the window: workers were only being started, or a record is lost.
    nowhere = before.node[nodes] == NO_NODE
    started = event[nowhere] == Event.DISPATCH
    owner[nowhere] = np.where(started, CODE[owners.STARTUP.name], CODE[owners.UNKNOWN.name])
    return owner
