"""Fires the events of `graph.EDGES`: each after the last of its predecessors, and after its activity."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, lru_cache, partial
from typing import Final, NamedTuple

from pipeprof.graph import OF_LOADER, Back, Edge, Event, Shape, edges

SIMULATED: Final = tuple(event for event in Event if event != Event.PICKLED)
"""When pickling began is not simulated: sending waits for the end of the making directly, too."""

Begin = Callable[[int, float], None]
"""Starts an event's activity for one batch or step, at the time when the last predecessor had happened."""


_Follower = tuple[Begin, list[int] | None, list[float], int]
"""An event that waits for another one: its activity; how many predecessors of each batch or step have not
happened, None if there is only one; when the last of those that have did; how much later its batch is."""


class Firing:
    """A graph of one shape, unrolled over the batches and steps of a run as its events happen.

    What depends on the order in which events happen is for the caller to `arrive` at: which batch a worker
    makes next, which one comes first if any may, and the first batches of an epoch.
    """

    def __init__(self, shape: Shape, length: int, begin: Mapping[Event, Begin]) -> None:
        plan = _plan(shape, length)
        self._times = [[0.0] * plan.size for _ in Event]
        self._followers: list[list[_Follower]] = [[] for _ in Event]
        self._joint: dict[Event, _Follower] = {}
        for event in SIMULATED:
            start = begin.get(event) or partial(self.happen, event)
            missing = plan.missing.get(event)
            joint = start, None if missing is None else missing.copy(), [0.0] * plan.size
            self._joint[event] = (*joint, 0)
            for after, distance in plan.leads.get(event, ()):
                self._followers[after].append((*joint, distance))

    @property
    def times(self) -> dict[Event, list[float]]:
        """Return the times of each event, one for each batch or step."""
        return {event: self._times[event] for event in SIMULATED}

    def happen(self, event: Event, i: int, at_ns: float) -> None:
        """Let `event` of batch or step `i` happen, and begin what waited for nothing else."""
        self._times[event][i] = at_ns
        for begin, missing, since_ns, shift in self._followers[event]:
            j = i + shift
            if missing is None:
                begin(j, at_ns)
                continue
            since = since_ns[j]
            if since < at_ns:
                since = since_ns[j] = at_ns
            left = missing[j] = missing[j] - 1
            if left == 0:
                begin(j, since)

    def arrive(self, event: Event, i: int, at_ns: float) -> None:
        """Count one predecessor of `event`, found by the order of things, as having happened."""
        begin, missing, since_ns, _ = self._joint[event]
        if missing is not None:
            since_ns[i] = max(since_ns[i], at_ns)
            missing[i] -= 1
        if missing is None or missing[i] == 0:
            begin(i, max(since_ns[i], at_ns))


def by_order(shape: Shape, edge: Edge) -> bool:
    """Return whether the order in which events happen decides whom an edge leads to."""
    any_first = shape.workers > 0 and not shape.in_order
    delivered = edge.event not in OF_LOADER and edge.after in OF_LOADER
    return (any_first and delivered) or shape.distance(edge.back) is None


class _Plan(NamedTuple):
    """A graph of one shape and length, before anything has happened."""

    size: int
    """Length of the lists of batches and steps: some lead beyond the last."""
    missing: Mapping[Event, list[int]]
    """Number of predecessors of each batch or step, for events that have more than one at any time."""
    leads: Mapping[Event, list[tuple[Event, int]]]
    """For each event those that it waits for, and that many batches or steps later."""


@lru_cache(maxsize=256)
def _plan(shape: Shape, length: int) -> _Plan:
    held = [edge for edge in simulated_edges(shape) if _distance(shape, edge) <= length]
    size = length + max(_distance(shape, edge) for edge in held) + 1
    missing: dict[Event, list[int]] = {}
    leads: dict[Event, list[tuple[Event, int]]] = {}
    for event in SIMULATED:
        mine = [edge for edge in held if edge.event == event]
        # a batch is dispatched after a take, or when its epoch begins
        if len(mine) > 1 and event != Event.DISPATCH:
            missing[event] = _counts(shape, mine, size)
        leads[event] = [(edge.after, _distance(shape, edge)) for edge in mine if not by_order(shape, edge)]
    return _Plan(size, missing, leads)


def _distance(shape: Shape, edge: Edge) -> int:
    return shape.distance(edge.back) or 0


def _counts(shape: Shape, mine: list[Edge], size: int) -> list[int]:
    counts = [len(mine)] * size
    for edge in mine:
        for i in range(_distance(shape, edge)):
            counts[i] -= 1
    return counts


def is_simulated(edge: Edge) -> bool:
    """Return whether a dependency is fired.

    What receiving a batch takes of the main process is work of the take: a batch is received ahead of it.
    """
    inside_next = edge.event == Event.RECEIVED and edge.after in (Event.REQUEST, Event.RECEIVED)
    return edge.event in SIMULATED and edge.after in SIMULATED and not inside_next


@cache
def simulated_edges(shape: Shape) -> tuple[Edge, ...]:
    """Return the edges between simulated events, without those that others imply."""
    held = [edge for edge in edges(shape) if is_simulated(edge)]
    later = _later(held)
    return tuple(edge for edge in held if not any(_implies(later, other, edge) for other in held))


def _later(held: list[Edge]) -> Mapping[Event, set[Event]]:
    """Return for each event those that always come after it, of the same batch."""
    later: dict[Event, set[Event]] = {event: set() for event in Event}
    for edge in held:
        if edge.back is Back.SAME:
            later[edge.after].add(edge.event)
    for _ in later:  # no chain is longer than there are events
        for following in later.values():
            following.update(*[later[event] for event in following])
    return later


def _implies(later: Mapping[Event, set[Event]], other: Edge, edge: Edge) -> bool:
    """Return whether one dependency holds wherever another does."""
    if other == edge or other.back != edge.back:
        return False
    since = other.after == edge.after or other.after in later[edge.after]
    until = other.event == edge.event or edge.event in later[other.event]
    return since and until
