"""An early end of a script's loops that looks to it like the end of training.

The pass over the loader ends after a number of batches, or after some time. Code after the script's loop
still runs, and may ask its loaders again: the next epochs, a validation, a test. Each such pass gives one
batch, because scripts divide by the number of their batches. A script that goes on and on is ended at its
loader.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Final
from weakref import WeakKeyDictionary

MOST_PASSES: Final = 1_000
"""Passes after the end, over all loaders, until the script is ended."""
LONGEST_S: Final = 60.0
"""Seconds after the end until a script that still asks for batches is ended; the observed time if that was
longer."""


class PassEnd(StopIteration):
    """The end of a pass that pipeprof has ended."""


class Ended(SystemExit):
    """The end of a script that pipeprof has ended."""


class Limit:
    """Ends the loops after `steps` batches, over all loaders, or `seconds` after the first was asked for.

    `reached` is called once, with the reason, before anything ends. With `then_exit` the script is ended
    instead of its loops, with exit code 0.
    """

    def __init__(
        self,
        steps: int | None,
        seconds: float | None,
        then_exit: bool,
        reached: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._steps, self._seconds, self._then_exit = steps, seconds, then_exit
        self._reached, self._clock = reached, clock
        self._taken = self._passes = 0
        self._began_s: float | None = None
        self._over_s: float | None = None
        self._left: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
        self.went_on = False
        """True if the script was ended because it went on asking."""

    @property
    def is_over(self) -> bool:
        """Return True when the observed loops have been ended."""
        return self._over_s is not None

    def begin_pass(self, iterator: Any) -> None:
        """Note that a pass over a loader begins."""
        if self.is_over:
            self._left[iterator] = 1

    def next(self, take: Callable[[], Any], iterator: Any) -> Any:
        """Let the loop take a batch, or end its pass. Raises `PassEnd`, or `Ended`."""
        now_s = self._clock()
        if self._began_s is None:
            self._began_s = now_s
        why = None if self.is_over else self._why(now_s - self._began_s)
        if why is not None:
            self._over_s = now_s
            self._reached(why)
        if self.is_over:
            self._end(iterator, now_s)
        batch = take()
        self._taken += 1
        return batch

    def _why(self, passed_s: float) -> str | None:
        if self._steps is not None and self._taken >= self._steps:
            return f"after {self._steps} steps"
        if self._seconds is not None and passed_s >= self._seconds:
            return f"after {self._seconds:g} s"
        return None

    def _end(self, iterator: Any, now_s: float) -> None:
        """End the pass, except for the one batch of a pass that has begun since."""
        assert self._over_s is not None and self._began_s is not None
        in_main = threading.current_thread() is threading.main_thread()
        if self._then_exit and in_main:  # in another thread it would end that one alone
            raise Ended(0)
        longest_s = max(LONGEST_S, self._over_s - self._began_s)
        if self._passes >= MOST_PASSES or now_s - self._over_s > longest_s:
            self.went_on = True
            if in_main:
                raise Ended(0)
        left = self._left.get(iterator, 0)
        if not left:
            raise PassEnd
        self._left[iterator] = 0
        self._passes += 1
