"""Analyses of runs that are being written, as often as a budget of CPU time allows."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from pipeprof.analyse.analysis import Analysis
from pipeprof.analyse.live.run import LiveRun

EVERY_S: Final = 1.0
LONGEST_S: Final = 60.0
BUDGET: Final = 0.01
"""Share of a core for all that a look at runs costs: each analysis waits until its time and that of the
reading and drawing before it is a hundredth of what has passed."""


class Analyses:
    """The newest analysis of each of some runs; they take turns. Made when starting is over."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, spent: Callable[[], float] = time.process_time
    ) -> None:
        self._clock, self._spent = clock, spent
        self._spent_s = spent()
        self._next_s = 0.0
        self._turn = 0
        self._newest: dict[LiveRun, Analysis] = {}

    def look(self, runs: Sequence[LiveRun]) -> None:
        """Analyse the last seconds of the run whose turn it is, if it is time."""
        if not runs or self._clock() < self._next_s:
            return
        run = runs[self._turn % len(runs)]
        self._turn += 1
        analysis = run.analyse()
        if analysis is not None:
            self._newest[run] = analysis
        before_s, self._spent_s = self._spent_s, self._spent()
        wait_s = (self._spent_s - before_s) / BUDGET
        self._next_s = self._clock() + min(LONGEST_S, max(EVERY_S, wait_s))

    def of(self, run: LiveRun) -> Analysis | None:
        """Return the newest analysis of a run; None if it has none yet."""
        return self._newest.get(run)
