"""Compare durations on a machine that others use too.

A comparison of durations shows nothing where other programs, or the hypervisor, had the cores meanwhile, or
where the cores are too slow for what is planted. Such a comparison is excused, and nothing else: a wrong word
or a wrong sum fails on every machine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, Protocol

import psutil

RUN_AGAIN: Final = "PIPEPROF_TESTS_RUN_AGAIN"
"""Set in the environment where all that fails is run again alone, as in `.ci/run`: nothing is excused at
first."""
BUSY_CORES = 0.3
"""Cores in the hands of others from which on durations say nothing."""
MOST_OF_CORES: Final = 0.7
"""Share of the cores that a run's pace asks for from which batches come late now and then, whatever else is
planted."""
UNSURE: Final = frozenset({"wide-interval", "too-few-steps", "own-cost", "clock", "unknown-owner"})
"""Reasons to abstain that other programs can bring about; no others are excused."""


def excuses() -> bool:
    """Return whether a spoilt comparison is excused now."""
    return RUN_AGAIN not in os.environ


class Watch(Protocol):
    def cores(self) -> float:
        """Cores that other programs have kept busy since the watch was made."""
        ...


class OtherPrograms:
    """Measures the cores that programs other than this test and its children keep busy, and what a hypervisor
    takes.
    """

    def __init__(self) -> None:
        self._start_s, self._busy_s, self._own_s = time.monotonic(), self._busy(), self._own()

    @staticmethod
    def _busy() -> float:
        times = psutil.cpu_times()
        return float(sum(times) - times.idle - getattr(times, "iowait", 0.0))

    @staticmethod
    def _own() -> float:
        """CPU seconds of this process, of the children that have ended, and of those that live."""
        living_s = 0.0
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                living_s += sum(child.cpu_times()[:2])
        return sum(os.times()[:4]) + living_s

    def cores(self) -> float:
        wall_s = time.monotonic() - self._start_s
        return (self._busy() - self._busy_s - (self._own() - self._own_s)) / wall_s


class Timing:
    """The durations that one test compares: the fixture `timing`.

    `excuse` says why a comparison that failed shows nothing. The test is skipped with it where it has passed
    in all else.
    """

    def __init__(self, watch: Callable[[], Watch] = OtherPrograms) -> None:
        self._make_watch = watch
        self.restart()

    def restart(self) -> None:
        """Measure again: what other programs did until now does not count."""
        self._watch = self._make_watch()
        self.excuse: str | None = None
        self._differed = False

    @property
    def busy(self) -> bool:
        """Return whether other programs have had cores since the start."""
        return self._watch.cores() > BUSY_CORES

    @contextmanager
    def compared(self, taken_cores: float | None = None, needed_share: float = 0.0) -> Iterator[None]:
        """Go on after a failed comparison of durations where other programs had the cores, or the run's own
        pace asks for most of them: then batches may come later than planted, and never sooner.

        `taken_cores` is what others had while the durations were measured, where that was before this test;
        `needed_share` is the share of the cores that the pace asks for.
        """
        try:
            yield
        except AssertionError as error:
            taken = self._watch.cores() if taken_cores is None else taken_cores
            if taken > BUSY_CORES:
                why = f"other programs kept {taken:.1f} cores busy"
            elif needed_share > MOST_OF_CORES:
                why = f"this pace asks for {needed_share:.0%} of the cores"
            else:
                self._differed = True
                raise
            said = str(error).splitlines()
            self.excuse = f"{why}: {said[0] if said else 'no message'}"

    def explains(self, cause: str, detail: str | None, taken_cores: float | None = None) -> bool:
        """Return whether a verdict is true of this busy machine, whatever was planted, and excuse it then.

        It names the other programs that the system's counters show too, or abstains for a reason that they
        bring about.
        """
        taken = self._watch.cores() if taken_cores is None else taken_cores
        named, unsure = (cause, detail) == ("cpu-contention", "neighbour"), cause == "inconclusive"
        true_here = named or (unsure and detail in UNSURE)
        if taken <= BUSY_CORES or not true_here:
            return False
        self.excuse = f"other programs kept {taken:.1f} cores busy, and the verdict is {cause}"
        return True

    def attempts(self, attempt: Callable[[int], None], most: int = 2) -> None:
        """Call `attempt(number)` until it passes, again where a comparison of durations failed in it or the
        machine was busy: a shared core may be slow without a program to be seen on it.

        The last failure counts; the test is skipped only where nothing but durations failed in it.
        """
        for number in range(most):
            self.restart()
            try:
                attempt(number)
            except AssertionError:
                if number + 1 == most or not (self.busy or self._differed):
                    raise
            else:
                if self.excuse is None:
                    return
