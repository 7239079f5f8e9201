"""The batches of one epoch that were finished and are not yet known to be taken."""

from __future__ import annotations

import heapq

Made = tuple[int, int, int]
"""A batch that was finished: seq, samples, finish_ns."""


class Finished:
    """Filled from the workers' records, emptied by the loop's steps."""

    def __init__(self) -> None:
        self._made: dict[int, Made] = {}
        self._order: list[int] = []

    def __len__(self) -> int:
        return len(self._made)

    def add(self, seq: int, samples: int, finish_ns: int) -> None:
        """Add a batch that a worker has finished."""
        self._made[seq] = (seq, samples, finish_ns)
        heapq.heappush(self._order, seq)

    def take(self, seq: int) -> Made | None:
        """Return, and forget, the batch `seq`, which the loop has taken; None if it is not known."""
        made = self._made.pop(seq, None)
        while self._order and self._order[0] not in self._made:  # else it grows with the epoch's length
            heapq.heappop(self._order)
        return made

    def take_first(self) -> Made | None:
        """Return, and forget, the batch that in-order delivery has given to the loop: the first still here.

        All batches before it were finished or will never be, since the loader waits for each in turn.
        """
        while self._order:
            made = self._made.pop(heapq.heappop(self._order), None)
            if made is not None:
                return made
        return None
