"""The table of dependencies holds together."""

from __future__ import annotations

import itertools

import pytest

from pipeprof.graph import EDGES, OF_LOADER, Back, Event, Shape, edges

SHAPES = [
    Shape(workers, 2, in_order, pin, pageable, overlap, synchronises)
    for workers, in_order, pin, pageable, overlap, synchronises in itertools.product(
        (0, 1, 3), *[(False, True)] * 5
    )
]


@pytest.mark.parametrize("event", Event)
def test_every_event_waits_for_something_in_some_shape_and_is_waited_for(event: Event) -> None:
    assert any(edge.event == event for edge in EDGES)
    assert event == Event.COMPUTE or any(edge.after == event for edge in EDGES)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_no_event_of_a_batch_waits_for_itself(shape: Shape) -> None:
    assert _circles(shape) == []
    for edge in edges(shape):
        assert edge.back not in (Back.BEFORE, Back.QUEUE_DEPTH) or edge.event not in OF_LOADER


def _circles(shape: Shape) -> list[Event]:
    """Events of a batch that wait, in the end, for themselves."""
    waits = {
        event: {e.after for e in edges(shape) if e.event == event and e.back is Back.SAME} for event in Event
    }
    for _ in Event:
        waits = {event: after.union(*(waits[one] for one in after)) for event, after in waits.items()}
    return [event for event, after in waits.items() if event in after]


def test_no_dependency_is_listed_twice() -> None:
    for shape in SHAPES:
        listed = [(edge.event, edge.after, edge.back) for edge in edges(shape)]
        assert len(listed) == len(set(listed))
