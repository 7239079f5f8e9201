"""The backward walk: from the end of the last step to the start of the window, by way of what came last.

For every event the last of its predecessors to happen is found for all batches at once; the walk then follows
these pointers. What lies between an event and that predecessor belongs to the activity on the edge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeprof.analyse.tiling import CODE, Rows
from pipeprof.pipeline import (
    NOT_OBSERVED,
    PREVIOUS,
    Edge,
    Event,
    Ints,
    Shape,
    Timeline,
    Window,
    edges,
)

NOWHERE: Final = -1
CHUNK: Final = 1 << 16
"""Nodes of the path that are turned into pieces at a time: the walk needs little memory beside its result."""
READY_TAKE_NS: Final = 300_000
"""Taking a batch that is ready takes less: unpickling it and waking up (PROBE_NOTES §7: 221 µs in all)."""
_IN_LOADER: Final = (Event.DISPATCH, Event.START, Event.FINISH, Event.AVAILABLE)
"""Events that count batches of their own loader and epoch; the others count steps of the loop."""


class Path(NamedTuple):
    """The critical path through a window, earliest piece first."""

    bounds: Ints
    owner: Rows
    """Code of the piece's owner in `tiling.ALWAYS`; `MAKING` and `BODY` are split by others."""
    step: Rows
    """Entry of the timeline whose event ended the piece."""


MAKING: Final = len(CODE)
"""Piece of a path: a worker, or the loop itself, makes a batch."""
BODY: Final = len(CODE) + 1
"""Piece of a path: the loop's body, where no device was observed."""


class Moments(NamedTuple):
    """When each event of each step happened: `ended[event, step]`, with no gap that can be told."""

    ended: Ints
    copy_began: Ints
    compute_began: Ints
    device: bool
    """The device's own times were observed."""


def moments(timeline: Timeline, shapes: Mapping[int, Shape]) -> Moments:
    """The events' times; those that were not observed are put where they change no path."""
    ended = np.full((len(Event), len(timeline)), NOT_OBSERVED, dtype=np.int64)
    device = bool((timeline.compute_end_ns != NOT_OBSERVED).any())
    made = (timeline.start_ns != NOT_OBSERVED) & (timeline.finish_ns != NOT_OBSERVED)
    ended[Event.REQUEST], ended[Event.TAKE] = timeline.request_ns, timeline.take_ns
    ended[Event.DISPATCH] = np.where(made, timeline.dispatch_ns, NOT_OBSERVED)
    ended[Event.START] = np.where(made, timeline.start_ns, NOT_OBSERVED)
    ended[Event.FINISH] = np.where(made, timeline.finish_ns, NOT_OBSERVED)
    ended[Event.AVAILABLE] = np.where(made, _available(timeline, shapes), NOT_OBSERVED)
    launched = np.maximum(timeline.launch_ns, timeline.take_ns)
    ended[Event.LAUNCH] = launched if device else timeline.take_ns
    if device:
        ended[Event.COPY] = np.maximum(timeline.copy_end_ns, timeline.take_ns)
        ended[Event.COMPUTE] = np.where(
            timeline.compute_end_ns == NOT_OBSERVED, ended[Event.COPY], timeline.compute_end_ns
        )
    copy_began = np.where(timeline.copy_start_ns == NOT_OBSERVED, ended[Event.COPY], timeline.copy_start_ns)
    compute_began = np.where(
        timeline.compute_start_ns == NOT_OBSERVED, ended[Event.COMPUTE], timeline.compute_start_ns
    )
    return Moments(ended, copy_began, compute_began, device)


def _available(timeline: Timeline, shapes: Mapping[int, Shape]) -> Ints:
    """When each batch was there. Where it was not observed: when the wait for it ended, if there was one."""
    waited = timeline.take_ns - timeline.request_ns
    late = timeline.finish_ns > timeline.request_ns
    for loader, shape in shapes.items():
        if shape.pin_memory and shape.workers > 0:
            # A batch finished long ago may still be waited for: the pin thread had not come to it.
            late |= (timeline.loader == loader) & (waited > READY_TAKE_NS)
    guess = np.where(late, timeline.take_ns, timeline.finish_ns)
    known = np.where(timeline.arrival_ns == NOT_OBSERVED, guess, timeline.arrival_ns)
    return np.where(timeline.worker < 0, timeline.finish_ns, np.minimum(known, timeline.take_ns))


class _Order:
    """Where a batch stands in its own loader and epoch, and who stands so many places before it."""

    def __init__(self, timeline: Timeline) -> None:
        self.sorted = np.lexsort((timeline.step, timeline.epoch, timeline.loader))
        loader, epoch = timeline.loader[self.sorted], timeline.epoch[self.sorted]
        count = len(self.sorted)
        new = np.ones(count, dtype=bool)
        new[1:] = (np.diff(loader) != 0) | (np.diff(epoch) != 0)
        starts = np.flatnonzero(new)
        begin = np.repeat(starts, np.diff(np.append(starts, count)))
        self.begin, self.position = np.empty(count, np.int64), np.empty(count, np.int64)
        self.begin[self.sorted] = begin
        self.position[self.sorted] = np.arange(count) - begin

    def at(self, steps: Ints, position: Ints) -> Ints:
        """The step at `position` of the epochs of `steps`; NOWHERE where that is not before them."""
        there = (position >= 0) & (position < self.position[steps])
        place = np.where(there, self.begin[steps] + position, 0)
        return np.where(there, self.sorted[place], NOWHERE)

    def first(self, steps: Ints) -> Ints:
        """The first steps of the epochs of `steps`."""
        return self.sorted[self.begin[steps]].astype(np.int64)


def last_predecessors(
    timeline: Timeline, shapes: Mapping[int, Shape], times: Moments
) -> npt.NDArray[np.int64]:
    """For node `event * steps + step`, the node that was the last to be ready before it, or NOWHERE."""
    count = len(timeline)
    order = _Order(timeline)
    found = np.full((len(Event), count), NOWHERE, dtype=np.int64)
    for loader, shape in shapes.items():
        steps = np.flatnonzero(timeline.loader == loader)
        _fill_dispatch(timeline, order, shape, steps, times.ended)
        for event in Event:
            choices = [
                (edge.event, _before(timeline, order, shape, event, edge, steps))
                for edge in edges(shape, event)
            ]
            if event == Event.DISPATCH and shape.workers > 0:
                resumed = Event.COMPUTE if shape.synchronises and times.device else Event.LAUNCH
                first = order.first(steps) - 1
                choices.append((resumed, np.where(choices[0][1] >= 0, NOWHERE, first)))
            if event == Event.REQUEST and not times.device:
                choices = [(Event.LAUNCH, steps - 1)]
            found[event, steps] = _last(times, event, steps, choices)
    return found.reshape(-1)


def _fill_dispatch(timeline: Timeline, order: _Order, shape: Shape, steps: Ints, ended: Ints) -> None:
    """A dispatch that was not observed happened when the batch was taken that made room for it."""
    unseen = steps[(ended[Event.DISPATCH][steps] == NOT_OBSERVED) & (ended[Event.START][steps] >= 0)]
    if len(unseen) == 0:
        return
    allowed = _before(timeline, order, shape, Event.DISPATCH, edges(shape, Event.DISPATCH)[0], unseen)
    after = Event.TAKE if shape.workers > 0 else Event.REQUEST
    room = np.where(allowed >= 0, ended[after][allowed], ended[Event.START][unseen])
    ended[Event.DISPATCH, unseen] = np.minimum(room, ended[Event.START][unseen])


def _before(timeline: Timeline, order: _Order, shape: Shape, event: Event, edge: Edge, steps: Ints) -> Ints:
    if edge.back == 0:
        return steps
    if edge.back == PREVIOUS:
        return np.where(timeline.previous[steps] < steps, timeline.previous[steps], NOWHERE)
    if event in _IN_LOADER:
        # A take lets the next batch be asked for, whichever batch was taken: count the takes.
        place = order.position if shape.in_order else timeline.seq
        return order.at(steps, place[steps] - edge.back)
    return np.maximum(steps - edge.back, NOWHERE)


def _last(times: Moments, event: Event, steps: Ints, choices: list[tuple[Event, Ints]]) -> Ints:
    """The latest of the choices that had happened when `event` began; else the first that is known at all."""
    count = times.ended.shape[1]
    began = {Event.COPY: times.copy_began, Event.COMPUTE: times.compute_began}.get(event, times.ended[event])
    best = np.full(len(steps), NOWHERE, dtype=np.int64)
    when = np.full(len(steps), NOT_OBSERVED, dtype=np.int64)
    known = np.full(len(steps), NOWHERE, dtype=np.int64)
    for before, batch in choices:
        then = np.where(batch >= 0, times.ended[before][batch], NOT_OBSERVED)
        node = before * count + batch
        known = np.where((known == NOWHERE) & (then != NOT_OBSERVED), node, known)
        better = (then > when) & (then <= began[steps])
        best, when = np.where(better, node, best), np.where(better, then, when)
    return np.where(best == NOWHERE, known, best)


def follow(pointers: npt.NDArray[np.int64], last: int) -> Iterator[Ints]:
    """The nodes from `last` back to where no pointer leads on, latest first, in chunks."""
    before = memoryview(pointers.data)
    node = last
    while node >= 0:
        held = []
        for _ in range(CHUNK):
            held.append(node)
            node = before[node]
            if node < 0:
                break
        yield np.array(held, dtype=np.int64)


def critical_path(timeline: Timeline, shapes: Mapping[int, Shape], window: Window) -> Path:
    """Walk from the end of `window` to its start; every nanosecond between lies in exactly one piece."""
    times = moments(timeline, shapes)
    pointers = last_predecessors(timeline, shapes, times)
    pointers[times.ended.reshape(-1) <= window.start_ns] = NOWHERE
    pieces = []
    at = window.end_ns
    held: Ints = np.zeros(0, np.int64)
    for chunk in follow(pointers, _last_node(timeline, times)):
        # The last node of a chunk waits for the next one: its edge leads there.
        nodes = np.concatenate([held, chunk])
        pieces.append(_pieces(timeline, times, nodes, at, window, len(nodes) - 1))
        at, held = int(pieces[-1].bounds[0]), nodes[-1:]
    pieces.append(_pieces(timeline, times, held, at, window, 1))
    return _joined(pieces, window)


def _joined(pieces: list[Path], window: Window) -> Path:
    pieces = pieces[::-1]
    return Path(
        np.concatenate([*(piece.bounds[:-1] for piece in pieces), [window.end_ns]]),
        np.concatenate([piece.owner for piece in pieces]),
        np.concatenate([piece.step for piece in pieces]),
    )


def _pieces(
    timeline: Timeline, times: Moments, nodes: Ints, at: int, window: Window, edges_wanted: int
) -> Path:
    """The pieces between the first `edges_wanted` of `nodes` and what they were reached from.

    They end at `at`; where the last node has no edge on, its piece goes back to the start of the window.
    """
    count = len(timeline)
    event, step = np.divmod(nodes, count)
    reached = np.minimum.accumulate(np.minimum(times.ended.reshape(-1)[nodes], at))
    reached = np.maximum(reached, window.start_ns)
    came_from = np.append(reached[1:], window.start_ns)
    began = np.where(event == Event.COPY, times.copy_began[step], reached)
    began = np.where(event == Event.COMPUTE, times.compute_began[step], began)
    began = np.clip(began, came_from, reached)
    n = edges_wanted
    bounds = np.empty(2 * n + 1, dtype=np.int64)
    bounds[0:-1:2], bounds[1::2], bounds[-1] = reached[:n], began[:n], came_from[n - 1] if n else at
    owner = np.empty(2 * n, dtype=np.int32)
    owner[0::2] = np.where(event[:n] == Event.COMPUTE, CODE["accelerator"], CODE["h2d"])
    owner[1::2] = _edge_owners(timeline, times, event, step)[:n]
    kept = np.flatnonzero(np.diff(bounds) < 0)[::-1]
    starts = bounds[kept + 1]
    return Path(np.append(starts, at), owner[kept], np.repeat(step[:n], 2)[kept].astype(np.int32))


def _last_node(timeline: Timeline, times: Moments) -> int:
    """The event that ends the measured window (`pipeline.measured_window`)."""
    count = len(timeline)
    seen = timeline.compute_end_ns != NOT_OBSERVED
    last = int(np.flatnonzero(~timeline.warmup & (seen if times.device else True))[-1])
    if times.device:
        return int(Event.COMPUTE) * count + last
    if last + 1 < count:
        return int(Event.REQUEST) * count + last + 1
    return int(Event.TAKE) * count + last


_EDGE_OWNER: Final = {
    Event.DISPATCH: "main",
    Event.START: "transfer",
    Event.AVAILABLE: "transfer",
    Event.REQUEST: "main",
    Event.TAKE: "transfer",
    Event.COPY: "main",
    Event.LAUNCH: "main",
    Event.COMPUTE: "main",
}


def _edge_owners(timeline: Timeline, times: Moments, event: Ints, step: Ints) -> Rows:
    """Who owns the time between each event of the path and the one that it was reached from."""
    table = np.array([CODE[_EDGE_OWNER[e]] if e in _EDGE_OWNER else MAKING for e in Event], dtype=np.int32)
    owner = table[event]
    before = np.append(event[1:], NOWHERE)
    if not times.device:
        owner[event == Event.REQUEST] = BODY
    first = (event == Event.START) & (timeline.previous[step] < 0)
    owner[first] = CODE["startup"]
    owner[(event == Event.AVAILABLE) & (before == Event.AVAILABLE)] = CODE["pin"]
    owner[(timeline.worker[step] < 0) & (owner != MAKING) & (owner != BODY)] = CODE["main"]
    lost = (event == Event.TAKE) & (times.ended[Event.FINISH][step] == NOT_OBSERVED)
    owner[lost] = CODE["unknown"]
    # No way back to the start of the window: workers were only being started, or a record is lost.
    owner[-1] = CODE["startup"] if event[-1] == Event.DISPATCH else CODE["unknown"]
    return owner
