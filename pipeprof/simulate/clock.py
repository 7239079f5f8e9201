"""Virtual time: what happens when, cores shared equally by everything runnable, and meetings of ranks.

It is a heap loop of our own and not SimPy, which took 3 to 9 times as long per event (four workers, two
cores, the same machine): a matrix of 60 cells x 2,000 batches has to be predicted in 10 s on one core.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

Then = Callable[[Any], None]


def share_of_core(tasks: float, cores: float, neighbours: float) -> float:
    """Return the part of a core that each of this many runnable tasks gets with the neighbours' running."""
    return min(1.0, cores / (tasks + neighbours))


class VirtualClock:
    """Events in virtual nanoseconds. Ties are served in the order of the requests."""

    def __init__(self, cores: float, neighbours: float = 0.0) -> None:
        self.now = 0.0
        self.stopped = False
        self._cores, self._neighbours = cores, neighbours
        self._served = 0.0
        """CPU nanoseconds that a task which had always been runnable would have got by now."""
        self._serial = 0
        self._timed: list[tuple[float, int, float | None, Then, Any]] = []
        self._runnable: list[tuple[float, int, Then, Any]] = []

    def at(self, time_ns: float, then: Then, argument: Any = None) -> None:
        """Call `then(argument)` at `time_ns`, or now if that has passed."""
        self._serial += 1
        at_ns = time_ns if time_ns > self.now else self.now
        heappush(self._timed, (at_ns, self._serial, None, then, argument))

    def work(self, cpu_ns: float, then: Then, argument: Any = None) -> None:
        """Call `then(argument)` when a core has spent `cpu_ns` on it.

        Processor sharing: n runnable tasks and m of the neighbours' on C cores each run at min(1, C / (n +
        m)). A task is done when the common service reaches the level it joined at plus its own demand, so one
        heap of levels is enough.
        """
        self._serial += 1
        heappush(self._runnable, (self._served + cpu_ns, self._serial, then, argument))

    def work_from(self, time_ns: float, cpu_ns: float, then: Then, argument: Any = None) -> None:
        """Call `then(argument)` when a core has spent `cpu_ns` on it, from `time_ns` on, which is in the
        future."""
        self._serial += 1
        heappush(self._timed, (time_ns, self._serial, cpu_ns, then, argument))

    def run(self) -> None:
        """Advance until nothing is left to happen or `stopped` is set."""
        timed, runnable, cores, neighbours = self._timed, self._runnable, self._cores, self._neighbours
        while not self.stopped and (timed or runnable):
            rate = 0.0
            if runnable:
                crowd = len(runnable) + neighbours
                rate = cores / crowd if crowd > cores else 1.0
                done = self.now + (runnable[0][0] - self._served) / rate
                if not timed or done <= timed[0][0]:
                    self._served, _, then, argument = heappop(runnable)
                    self.now = done
                    then(argument)
                    continue
            time, _, cpu_ns, then, argument = heappop(timed)
            self._served = served = self._served + (time - self.now) * rate
            self.now = time
            if cpu_ns is None:
                then(argument)
            else:
                self._serial = serial = self._serial + 1
                heappush(runnable, (served + cpu_ns, serial, then, argument))


class Meeting:
    """A barrier at which the ranks of a node end each step together, as data parallel training does."""

    def __init__(self, clock: VirtualClock, ranks: int) -> None:
        self._clock, self._ranks = clock, ranks
        self._here: list[tuple[Then, Any]] = []

    def come(self, then: Then, argument: Any) -> None:
        """Call `then(argument)` when the last rank has come."""
        self._here.append((then, argument))
        if len(self._here) == self._ranks:
            here, self._here = self._here, []
            for each, its in here:
                self._clock.at(self._clock.now, each, its)
