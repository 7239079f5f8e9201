"""Protection of runs from forks: a child never touches its parent's runs, nor finds their locks taken."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Final, Protocol


class Guarded(Protocol):
    """A run of this process."""

    @property
    def lock(self) -> threading.Lock:
        """Return the lock that is held while the run is being written."""
        ...

    def forked(self) -> None:
        """Forget the run in a forked child: it is the parent's."""
        ...


_guarded: Final[weakref.WeakSet[Guarded]] = weakref.WeakSet()
_held: Final[list[threading.Lock]] = []


def guard(run: Guarded) -> int:
    """Start guarding the active run `run`. Return how many runs are active."""
    _guarded.add(run)
    return len(_guarded)


def unguard(run: Guarded) -> int:
    """Stop guarding `run`, which is over. Return how many runs are still active."""
    _guarded.discard(run)
    return len(_guarded)


def _before() -> None:
    """Delay a fork while a flush thread is inside pyarrow, whose locks the child would find taken."""
    for run in list(_guarded):
        run.lock.acquire()
        _held.append(run.lock)


def _after_in_parent() -> None:
    while _held:
        _held.pop().release()


def _after_in_child() -> None:
    _held.clear()
    for run in list(_guarded):
        run.forked()
    _guarded.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
