"""Typed reading of the `events` table: the events of a run, in order of time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pipeprof.record.reader import Run


class RunEvent(NamedTuple):
    """Row of `events`. Loader and epoch are None if the event belongs to none."""

    time_ns: int
    kind: str
    """A word of `schema.EVENTS`."""
    loader: int | None
    epoch: int | None
    detail: str | None = None
    worker: int | None = None
    """Worker that it happened to; None if it happened to none, or to the whole process."""


def read_events(run: Run) -> list[RunEvent]:
    """Read all events of a run, earliest first; rows without a time or a kind are left out."""
    return sorted(_rows(run), key=lambda event: event.time_ns)


def _rows(run: Run) -> Iterator[RunEvent]:
    table = run.table("events")
    columns = (table[name].to_pylist() for name in RunEvent._fields)
    for time_ns, kind, *rest in zip(*columns, strict=True):
        if time_ns is not None and kind is not None:
            yield RunEvent(time_ns, kind, *rest)
