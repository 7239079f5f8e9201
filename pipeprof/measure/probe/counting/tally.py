"""Named counts of one process, added up where things happen and taken away once a second.

`record.names.counters` says what each counts. Adding costs a look-up in a dictionary; no lock is taken,
since each name is added to by one thread or loses at most one addition.
"""

from __future__ import annotations

import os
from collections import deque
from typing import Final

from pipeprof.record.names.counters import CounterName

_counts: Final[dict[CounterName, int]] = {}
_notes: Final[deque[tuple[CounterName, int]]] = deque(maxlen=4096)


def add(counter: CounterName, value: int = 1) -> None:
    """Add `value` to `counter`."""
    _counts[counter] = _counts.get(counter, 0) + value


def note(counter: CounterName, value: int) -> None:
    """Keep `value` as one row of `counter`, not added up."""
    _notes.append((counter, value))


def clear() -> None:
    """Forget what was added and noted: it is another run's, or was counted before this process was forked."""
    _counts.clear()
    _notes.clear()


def take_notes() -> list[tuple[CounterName, int]]:
    """Return the values that were noted since the last call."""
    notes = []
    while _notes:
        notes.append(_notes.popleft())
    return notes


def take() -> dict[CounterName, int]:
    """Return what was added since the last call, and begin again."""
    taken = dict(_counts)
    for counter, value in taken.items():
        left = _counts.get(counter, 0) - value
        if left:
            _counts[counter] = left  # added meanwhile by another thread
        else:
            _counts.pop(counter, None)
    return taken


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=clear)
