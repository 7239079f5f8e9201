"""Estimates how long threads of the main process wait for its GIL, and which thread runs meanwhile.

A look is two wake-ups of the sampling thread, half a millisecond apart. If a watched thread waits for the GIL
at the second, the time since the first is split: what the thread had of a core, what it waited for one, and
the rest, which is the wait. It counts only if another Python thread ran for half of it or more. The share
stands for the time since the look before. While no other thread computes there is no second wake-up.

The estimate is a lower bound: the sampling thread waits for the GIL too, behind a thread that waited before
it, and may come when that one has been. CONTRIBUTING.md says what was found of true waits.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from time import monotonic_ns
from typing import Final, NamedTuple

from pipeprof.measure.probe.counting import tally
from pipeprof.measure.probe.sampling.call_tree import CallTree
from pipeprof.measure.probe.sampling.lock_state import LockState, Used
from pipeprof.record.names.counters import GIL_HELD_NS, GIL_WAIT_NS, HELD_BY, part_of

BETWEEN_S: Final = 0.0005
"""Time between the two wake-ups of a look."""
BUSY: Final = 0.02
"""Share of a core from which a thread is watched: one that computes less delays no other for long."""
RAN: Final = 0.5
"""Share of a wait in which a thread has to have run to be what was waited for."""
MOST_NS: Final = 1_000_000_000
"""The most that one look stands for."""
MOST_HOLDERS: Final = 200
"""Stacks of holding threads that are distinguished; further ones are left out, their thread is named."""
MOST_TRIES: Final = 3
"""Times that the lock is looked up: on crowded cores once may not do."""
OURS: Final = "pipeprof"
"""Beginning of the names of our own threads."""


class WatchedThread(NamedTuple):
    """A thread whose waits are estimated; `stage()` names what it does, None while that does not count."""

    thread: int
    stage: Callable[[], str | None]


class LockWatch:
    """Watches threads of this process. `choose` and `look` are called by one thread, the sampling one."""

    def __init__(self, state: LockState, stack_of: Callable[[int], str]) -> None:
        """Make the watch. `stack_of(ident)` returns the stack of a thread as the record has it."""
        self._state, self._stack_of = state, stack_of
        self._watched: dict[int, WatchedThread] = {}
        self._busy: dict[int, threading.Thread] = {}
        self._used: dict[int, int] = {}
        self._chosen_ns = self._last_ns = monotonic_ns()
        self._can, self._tries = False, 0
        self._stacks = set[str]()

    def watch(self, thread: int, stage: Callable[[], str | None]) -> None:
        """Watch one thread more, by the kernel's number for it."""
        self._watched[thread] = WatchedThread(thread, stage)

    def choose(self) -> None:
        """Look out for the threads that have computed since the last call."""
        now_ns = monotonic_ns()
        enough = BUSY * (now_ns - self._chosen_ns)
        self._chosen_ns = now_ns
        used, busy = dict[int, int](), dict[int, threading.Thread]()
        for thread in threading.enumerate():
            number = thread.native_id
            if number is None or thread.name.startswith(OURS):
                continue
            cpu_ns = self._state.cpu_ns(number)
            if cpu_ns is not None:
                used[number] = cpu_ns
                if cpu_ns - self._used.get(number, 0) >= enough:
                    busy[number] = thread
        for ended in set(self._watched) - used.keys():
            del self._watched[ended]
            self._state.forget(ended)
        for idle in self._busy.keys() - busy.keys() - set(self._watched):
            self._state.forget(idle)
        self._used = used
        if not self._busy:
            self._last_ns = now_ns
        self._busy = busy if self._may_look(busy) else {}

    def _may_look(self, busy: dict[int, threading.Thread]) -> bool:
        """Return whether anybody may hold up a watched thread, and whether that can be seen here."""
        if not any(busy.keys() - {thread} for thread in list(self._watched)):
            return False
        if not self._can and self._tries < MOST_TRIES:
            self._tries += 1
            self._can = self._state.find_lock()
        return self._can

    def look(self) -> None:
        """Look once at all watched threads, if there is anybody whom they may wait for."""
        if not self._busy:
            return
        began_ns, before = monotonic_ns(), self._all_used()
        time.sleep(BETWEEN_S)
        waiting = [each for each in list(self._watched.values()) if self._state.waits(each.thread)]
        now_ns = monotonic_ns()
        stands_for = min(now_ns - self._last_ns, MOST_NS)
        self._last_ns = now_ns
        if not waiting:
            return
        after = self._all_used()
        for each in waiting:
            self._count(each, before, after, now_ns - began_ns, stands_for)

    def _all_used(self) -> dict[int, Used]:
        numbers = {*list(self._watched), *self._busy}  # the loop's thread may come to watch one more
        return {number: used for number in numbers if (used := self._state.used(number)) is not None}

    def _count(
        self,
        each: WatchedThread,
        before: dict[int, Used],
        after: dict[int, Used],
        wall_ns: int,
        stands_for: int,
    ) -> None:
        stage, known = each.stage(), before.keys() & after.keys()
        if stage is None or each.thread not in known or wall_ns <= 0:
            return
        ran = {number: after[number].cpu_ns - before[number].cpu_ns for number in known}
        wanted_core_ns = after[each.thread].runq_ns - before[each.thread].runq_ns
        waited_ns = max(0, wall_ns - ran[each.thread] - wanted_core_ns)
        others = self._busy.keys() & known - {each.thread}
        holder = max(others, key=ran.__getitem__, default=None)
        if holder is None or ran[holder] < RAN * waited_ns:
            return  # or it is without a core: that is what both wait for
        ns = stands_for * waited_ns // wall_ns
        tally.add(part_of(GIL_WAIT_NS, stage), ns)
        tally.add(part_of(GIL_HELD_NS, f"{stage}{HELD_BY}{self._named(self._busy[holder])}"), ns)

    def _named(self, holder: threading.Thread) -> str:
        """Return a thread's name and its stack."""
        name = holder.name.replace(HELD_BY, " ")
        stack = self._stack_of(holder.ident or 0)
        if stack not in self._stacks:
            if len(self._stacks) >= MOST_HOLDERS:
                return name + HELD_BY
            self._stacks.add(stack)
        return f"{name}{HELD_BY}{stack}"

    def close(self) -> None:
        """Stop looking."""
        self._busy, self._watched = {}, {}
        self._state.close()


def stack_text(tree: CallTree, thread: int) -> str:
    """Return the lines of a thread's stack, outermost first, as the record has them."""
    return "\n".join(frame.text for frame in tree.frames(sys._current_frames().get(thread)))
