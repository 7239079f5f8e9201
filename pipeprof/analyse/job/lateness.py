"""The lateness of the rank that came last to a step: what its path holds beyond the others' paths.

Between two meetings each rank has its own critical path. What the last rank spent on an owner beyond what the
others spent on average, in the same step, is what made it late; its waiting peers are charged with these
owners in proportion. Ranks are added one after the other, so that one rank's record is held at a time.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from pipeprof.analyse.ledger.tiling import Tiling, cut
from pipeprof.passes import NOT_OBSERVED, Ints, Spans
from pipeprof.vocabulary import owners
from pipeprof.vocabulary.owners import UNKNOWN, merged

Matrix = npt.NDArray[np.float64]

_NOT_BLAMED: Final = (owners.COLLECTIVE.name, owners.OUTSIDE.name)
"""Meetings themselves, and time of no loop."""


class Blame:
    """Record of every rank's path, asked in the end for the owners of each step's lateness."""

    def __init__(self, last: Ints) -> None:
        self._last = last
        """The row of the rank that came last to each step."""
        self.owners: list[str] = [UNKNOWN.name]
        self._all = np.zeros((len(last), 1))
        self._late = np.zeros((len(last), 1))
        self._ranks = np.zeros(len(last), np.int64)

    def add(self, row: int, path: Tiling, spans: Spans, steps: Ints) -> None:
        """Add the path of the rank in `row`, which met the others at `spans` (its own clock) after
        `steps`."""
        spent = segments(path, *spans)
        columns = self._columns(path.owners)
        wide = np.zeros((len(steps), len(self.owners)))
        for owner, column in enumerate(columns):
            if column >= 0:
                wide[:, column] += spent[:, owner]
        self._all[steps] += wide
        self._ranks[steps] += 1
        mine = self._last[steps] == row
        self._late[steps[mine]] = wide[mine]

    def _columns(self, words: tuple[str, ...]) -> list[int]:
        """Return each owner's column; `storage:device` and its like count as `storage`, meetings in none."""
        names = [merged(word) for word in words]
        new = [name for name in dict.fromkeys(names) if name not in self.owners and name not in _NOT_BLAMED]
        self.owners += new
        self._all = np.pad(self._all, ((0, 0), (0, len(new))))
        self._late = np.pad(self._late, ((0, 0), (0, len(new))))
        return [self.owners.index(name) if name not in _NOT_BLAMED else -1 for name in names]

    def absorb(self, other: Blame) -> None:
        """Add what another record of the same steps holds of other ranks."""
        columns = self._columns(tuple(other.owners))
        self._all[:, columns] += other._all
        self._late[:, columns] += other._late
        self._ranks += other._ranks

    def shares(self) -> Matrix:
        """Return for each step the shares of `owners` in the last rank's lateness; each row sums to 1.

        A step before the late rank's measured window, which other ranks' windows may hold, has the shares of
        that rank's other steps.
        """
        others = np.maximum(self._ranks - 1, 1)[:, None]
        beyond = np.maximum(self._late - (self._all - self._late) / others, 0)
        beyond[self._last == NOT_OBSERVED] = 0
        unseen = (self._late.sum(axis=1) == 0) & (self._last != NOT_OBSERVED)
        for row in np.unique(self._last[unseen]):
            beyond[unseen & (self._last == row)] = beyond[self._last == row].sum(axis=0)
        total = beyond.sum(axis=1)
        beyond[total <= 0, 0] = 1
        return np.asarray(beyond / np.where(total > 0, total, 1)[:, None])


def segments(path: Tiling, came: Ints, left: Ints) -> Matrix:
    """Return the nanoseconds of each owner of `path` before each meeting, from the end of the one before.

    `came` and `left` are in order. Shape: (meetings, owners).
    """
    count, width = len(came), len(path.owners)
    if count == 0:
        return np.zeros((0, width))
    bounds, rows = cut(path.bounds, path.rows, np.sort(np.concatenate([came, left]), kind="stable"))
    place = np.searchsorted(came, bounds[1:], "left")
    begun = np.append(bounds[0], left[:-1])
    inside = (place < count) & (bounds[:-1] >= begun[np.minimum(place, count - 1)])
    lengths, rows, place = np.diff(bounds)[inside].astype(np.float64), rows[inside], place[inside]
    spent = np.zeros((count, width))
    plain = rows < width
    np.add.at(spent, (place[plain], rows[plain]), lengths[plain])
    mixes = path.mixes[rows[~plain] - width]
    for owner in np.flatnonzero(mixes.any(axis=0)):
        spent[:, owner] += np.bincount(place[~plain], lengths[~plain] * mixes[:, owner], minlength=count)
    return spent
