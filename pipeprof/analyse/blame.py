"""Why the rank that came last to a step was late: what its path holds beyond the others' paths.

Between two meetings each rank has its own critical path. What the last rank spent on an owner beyond what the
others spent on average, in the same step, is what made it late; its waiting peers are charged with these
owners in proportion. Ranks are added one after the other, so that one rank's record is held at a time.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from pipeprof.analyse.breaks import Spans
from pipeprof.analyse.tiling import Tiling, cut
from pipeprof.pipeline import NOT_OBSERVED, Ints

Matrix = npt.NDArray[np.float64]

UNKNOWN: Final = "unknown"
_IN_MEETING: Final = "collective"


class Blame:
    """Filled with every rank's path, then asked for the owners of each step's lateness."""

    def __init__(self, last: Ints) -> None:
        self._last = last
        """The row of the rank that came last to each step."""
        self.owners: list[str] = [UNKNOWN]
        self._all = np.zeros((len(last), 1))
        self._late = np.zeros((len(last), 1))
        self._ranks = np.zeros(len(last), np.int64)

    def add(self, row: int, path: Tiling, spans: Spans, steps: Ints) -> None:
        """The path of the rank in `row`, which met the others at `spans` (its own clock) after `steps`."""
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

    def _columns(self, owners: tuple[str, ...]) -> list[int]:
        """Where each owner is counted; `storage:device` and its like as `storage`, meetings nowhere."""
        names = ["storage" if owner.startswith("storage:") else owner for owner in owners]
        new = [name for name in dict.fromkeys(names) if name not in self.owners and name != _IN_MEETING]
        self.owners += new
        self._all = np.pad(self._all, ((0, 0), (0, len(new))))
        self._late = np.pad(self._late, ((0, 0), (0, len(new))))
        return [self.owners.index(name) if name != _IN_MEETING else -1 for name in names]

    def shares(self) -> Matrix:
        """For each step the shares of `owners` in the last rank's lateness; each row sums to 1.

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
    """Nanoseconds of each owner of `path` before each meeting, from the end of the meeting before it.

    `came` and `left` are in order. Shape: (meetings, owners).
    """
    count, width = len(came), len(path.owners)
    if count == 0:
        return np.zeros((0, width))
    bounds, rows = cut(path.bounds, path.rows, np.sort(np.concatenate([came, left])))
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
