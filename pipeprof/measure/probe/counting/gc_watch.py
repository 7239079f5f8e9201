"""Times Python's garbage collector in this process, through `gc.callbacks`."""

from __future__ import annotations

import gc
import os
from time import monotonic_ns
from typing import Any, Final

from pipeprof.measure.probe.counting import tally
from pipeprof.record.names.counters import GC_COUNT, GC_NS, part_of


class GcWatch:
    """Adds up the time in collections. Installed once in a process, on the first `start`."""

    def __init__(self) -> None:
        self.total_ns = 0
        """In collections since the process began to watch; it only grows."""
        self._began_ns = 0

    def start(self) -> None:
        """Watch this process. A forked child has its parent's callbacks already."""
        if not self._is_installed():
            gc.callbacks.append(self)

    def stop(self) -> None:
        """Stop watching."""
        # by identity: a callback of the user's may compare as it likes
        gc.callbacks[:] = [each for each in gc.callbacks if each is not self]
        self._began_ns = 0

    def _is_installed(self) -> bool:
        return any(each is self for each in gc.callbacks)

    def __call__(self, phase: str, info: dict[str, Any]) -> None:
        """Note a collection; the collector itself calls this before and after each."""
        if phase == "start":
            self._began_ns = monotonic_ns()
            return
        if self._began_ns == 0:  # it had begun before the watch was installed
            return
        took_ns = monotonic_ns() - self._began_ns
        self._began_ns = 0
        self.total_ns += took_ns
        generation = info.get("generation")
        tally.add(part_of(GC_NS, generation), took_ns)
        tally.add(part_of(GC_COUNT, generation))


WATCH: Final = GcWatch()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=WATCH.stop)
