"""The loop's passes over its loaders: where each begins and ends, and the time that belongs to no loop.

A pass is one iteration over one loader: its steps have one (loader, epoch). Passes may lie side by side (two
loaders in turn), within each other (an evaluation in the training loop), or apart, with a pause between.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeprof.record.events import RunEvent
from pipeprof.record.schema import MISSING

NOT_OBSERVED: Final = MISSING
"""Value of a null in integer arrays; no time and no count of ours is negative."""

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Spans = tuple[Ints, Ints]
"""Begins and ends, in order of begins."""
NO_SPANS: Final[Spans] = (np.zeros(0, np.int64), np.zeros(0, np.int64))
Pass = tuple[int, int]
"""Loader and epoch: one pass of the loop over a loader."""


def union(starts: Ints, ends: Ints) -> Spans:
    """Return the time that at least one span covers, as disjoint spans in order; empty ones are left out."""
    if len(starts) == 0:
        return NO_SPANS
    order = np.argsort(starts, kind="stable")
    starts, until = starts[order], np.maximum.accumulate(ends[order])
    new = np.append(True, starts[1:] > until[:-1])
    return nonempty(starts[new], until[np.append(new[1:], True)])


def nonempty(starts: Ints, ends: Ints) -> Spans:
    """Return the spans that last."""
    kept = ends > starts
    return starts[kept], ends[kept]


def clipped(spans: Spans, start_ns: int, end_ns: int) -> Spans:
    """Return the parts of spans that lie in [start, end]."""
    return nonempty(*(np.clip(edge, start_ns, end_ns) for edge in spans))


def spans_of(pairs: Iterable[tuple[int, int]]) -> Spans:
    """Return pairs of begin and end as arrays, in order."""
    array = np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)
    return array[:, 0], array[:, 1]


class EpochOrder:
    """The place of each step in its own loader and epoch, counted in takes."""

    def __init__(self, step: Ints, loader: Ints, epoch: Ints) -> None:
        self.sorted = np.lexsort((step, epoch, loader))
        """Entries of the steps, pass by pass."""
        loaders, epochs = loader[self.sorted], epoch[self.sorted]
        count = len(self.sorted)
        new = np.ones(count, dtype=bool)
        new[1:] = (np.diff(loaders) != 0) | (np.diff(epochs) != 0)
        self.starts = np.flatnonzero(new)
        """Positions in `sorted` at which each pass begins."""
        self.lengths = np.diff(np.append(self.starts, count))
        """Number of steps of each pass."""
        begin = np.repeat(self.starts, self.lengths)
        self.begin, self.position = np.empty(count, np.int64), np.empty(count, np.int64)
        self.begin[self.sorted] = begin
        self.position[self.sorted] = np.arange(count) - begin

    def at(self, steps: Ints, position: Ints) -> Ints:
        """Return the step at `position` of the passes of `steps`; -1 if that is not before them."""
        there = (position >= 0) & (position < self.position[steps])
        place = np.where(there, self.begin[steps] + position, 0)
        return np.where(there, self.sorted[place], -1)

    def before_epoch(self, steps: Ints) -> Ints:
        """Return the steps that came before the passes of `steps`; -1 before the first of all."""
        return self.sorted[self.begin[steps]].astype(np.int64) - 1


class PassMarks(NamedTuple):
    """Record of one pass in the events of a run; None if they say nothing."""

    begun_ns: int | None = None
    """Time at which `iter(loader)` was called."""
    ready_ns: int | None = None
    """Time at which the iterator existed: its workers had been started."""
    last_request_ns: int | None = None
    """Time at which the loop asked for a batch, and there was none left."""
    exhausted_ns: int | None = None
    """Time at which it had learned so, and the workers were shut down."""
    dropped_ns: int | None = None
    """Time at which the iterator was let go before its end."""


def read_marks(events: Iterable[RunEvent]) -> dict[Pass, PassMarks]:
    """Pair the events of each pass.

    An iterator is ready in the pass that its event names, if it is the only one there; older runs give 0 for
    all iterators without workers, which are paired in order of time: an iterator is ready after the last
    `iter(loader)` before. The loader ends each pass once: what is asked for after that ends it again.
    """
    marks_ns: dict[str, dict[Pass, int]] = {name: {} for name in PassMarks._fields}
    ready: list[tuple[Pass, int]] = []
    for event in events:
        key = (NOT_OBSERVED if event.loader is None else event.loader, event.epoch or 0)
        if event.kind == "workers_ready":
            ready.append((key, event.time_ns))
        elif event.kind == "epoch_end":
            how = "dropped_ns" if event.detail == "dropped" else "exhausted_ns"
            marks_ns[how].setdefault(key, event.time_ns)
        elif event.kind in _MARKS:
            marks_ns[_MARKS[event.kind]].setdefault(key, event.time_ns)
    marks_ns["ready_ns"] = _own_pass(marks_ns["begun_ns"], ready)
    keys = dict.fromkeys(key for times in marks_ns.values() for key in times)
    return {key: PassMarks(**{name: times.get(key) for name, times in marks_ns.items()}) for key in keys}


_MARKS: Final = {"epoch_start": "begun_ns", "last_request": "last_request_ns"}


def _own_pass(begun: Mapping[Pass, int], ready: Sequence[tuple[Pass, int]]) -> dict[Pass, int]:
    """Return for each pass when its iterator was ready. `begun` and `ready` are in order of time."""
    by_loader: dict[int, tuple[list[int], list[Pass]]] = {}
    for key, time_ns in begun.items():
        times, keys = by_loader.setdefault(key[0], ([], []))
        times.append(time_ns)
        keys.append(key)
    named = Counter(key for key, _ in ready)
    chosen: dict[Pass, int] = {}
    for key, time_ns in ready:
        own = key
        if named[key] > 1 or key not in begun:
            times, keys = by_loader.get(key[0], ([], []))
            place = bisect_right(times, time_ns)
            if place == 0:
                continue
            own = keys[place - 1]
        chosen.setdefault(own, time_ns)
    return chosen


class LoopPass(NamedTuple):
    """A pass of the loop over a loader."""

    loader: int
    epoch: int
    first: int
    """Entry of its first step in the timeline."""
    last: int
    steps: int
    """Batches that were taken in it."""
    made_ns: tuple[int, int] | None
    """Span from `iter(loader)` until the iterator existed; None if not seen, or if it does not fit the
    steps."""
    begin_ns: int
    """Time at which the loop began it, apart from making its iterator."""
    end_ns: int
    """Time at which its last step had ended."""
    closed_ns: tuple[int, int] | None
    """Span from asking for a batch when none was left until the workers had been shut down; None if not
    seen."""
    exhausted: bool
    """True if the loader had no batch left."""
    left_ns: int | None
    """Span from the launch of its last step until the loader had said that it has no batch left; None if
    either was not seen."""
    fits: bool
    """True if what the record says about making its iterator agrees with the steps."""

    @property
    def asked_ns(self) -> int:
        """Return the time at which the loop asked for it: for its iterator, if seen, else for its first
        batch."""
        return self.begin_ns if self.made_ns is None else self.made_ns[0]

    @property
    def spans(self) -> list[tuple[int, int]]:
        """Return the loop's time in this pass."""
        return [(self.begin_ns, self.end_ns), *(span for span in (self.made_ns, self.closed_ns) if span)]


class LoopTimes(NamedTuple):
    """Columns of a timeline that show its passes, one entry a step, and what its events say about them."""

    loader: Ints
    epoch: Ints
    order: EpochOrder
    worker: Ints
    request_ns: Ints
    take_ns: Ints
    launch_ns: Ints
    compute_end_ns: Ints
    marks: Mapping[Pass, PassMarks]


def find_passes(t: LoopTimes) -> tuple[LoopPass, ...]:
    """Return where each pass begins and ends, in the order of their first steps."""
    order = t.order
    if len(t.loader) == 0:
        return ()
    firsts = order.sorted[order.starts]
    lasts = order.sorted[np.append(order.starts[1:], len(order.sorted)) - 1]
    by_time = np.argsort(firsts, kind="stable")
    firsts, lasts = firsts[by_time], lasts[by_time]
    keys = list(zip(t.loader[firsts].tolist(), t.epoch[firsts].tolist(), strict=True))
    ends = _pass_ends(t, keys, lasts)
    busy = {loader: _moments_of(t, loader) for loader in np.unique(t.loader).tolist()}
    passes = []
    for key, first, last, end in zip(keys, firsts.tolist(), lasts.tolist(), ends.tolist(), strict=True):
        marks, asked = t.marks.get(key, PassMarks()), int(t.request_ns[first])
        moments, workers = busy[key[0]], bool(t.worker[first] >= 0)
        made = _made(marks, asked, moments) if workers else None
        passes.append(
            LoopPass(
                *key,
                first,
                last,
                steps=int(t.order.position[last]) + 1,
                made_ns=made,
                begin_ns=_begin(marks, asked, moments) if workers else asked,
                end_ns=max(end, asked),
                closed_ns=_closed(marks, int(t.take_ns[last])) if workers else None,
                exhausted=marks.exhausted_ns is not None,
                left_ns=_left(marks.exhausted_ns, int(t.launch_ns[last])),
                fits=not workers or made is not None or None in (marks.begun_ns, marks.ready_ns),
            )
        )
    return tuple(passes)


def _made(marks: PassMarks, asked: int, moments: Ints) -> tuple[int, int] | None:
    """Return the span in which the iterator was made: before its first request, with no other of the loader
    meanwhile."""
    begun, ready = marks.begun_ns, marks.ready_ns
    if begun is None or ready is None or not begun <= ready <= asked or _any_between(moments, begun, ready):
        return None
    return begun, ready


def _begin(marks: PassMarks, asked: int, moments: Ints) -> int:
    """Return the time at which the loop began the loader: persistent workers get a new epoch, and no
    iterator."""
    begun = marks.begun_ns
    if begun is None or marks.ready_ns is not None or begun > asked or _any_between(moments, begun, asked):
        return asked
    return begun


def _closed(marks: PassMarks, taken: int) -> tuple[int, int] | None:
    asked, ended = marks.last_request_ns, marks.exhausted_ns
    return (asked, ended) if asked is not None and ended is not None and taken <= asked <= ended else None


def _left(ended_ns: int | None, launch_ns: int) -> int | None:
    if ended_ns is None or launch_ns == NOT_OBSERVED:
        return None
    return max(0, ended_ns - launch_ns)


def _moments_of(t: LoopTimes, loader: int) -> Ints:
    """Return the times at which the loop asked a loader for batches and took them, in order."""
    own = t.loader == loader
    return np.sort(np.concatenate([t.request_ns[own], t.take_ns[own]]), kind="stable")


def _any_between(times: Ints, begin: int, end: int) -> bool:
    """Return True if some of the times, which are in order, lie between two others."""
    return bool(np.searchsorted(times, begin, "right") < np.searchsorted(times, end, "left"))


def _pass_ends(t: LoopTimes, keys: Sequence[Pass], lasts: Ints) -> Ints:
    """Return the times at which the last step of each pass had ended.

    On the device, if that was seen. If the loader had no batch left, when the loop asked for one. If the loop
    broke off, the iterator was let go, most often at the end of the step; see `_bodies_of_lasts`.
    """
    marks = [t.marks.get(key, PassMarks()) for key in keys]
    taken = np.maximum(t.take_ns[lasts], t.launch_ns[lasts])
    exhausted = _ints(mark.last_request_ns or mark.exhausted_ns for mark in marks)
    dropped = _ints(mark.dropped_ns for mark in marks)
    on_device = t.compute_end_ns[lasts] != NOT_OBSERVED
    guessed = t.take_ns[lasts] + _bodies_of_lasts(t, lasts, dropped)
    is_known = on_device | (exhausted >= t.take_ns[lasts])
    return np.maximum(taken, np.where(is_known, np.maximum(exhausted, t.compute_end_ns[lasts]), guessed))


def _ints(times: Iterable[int | None]) -> Ints:
    return np.array([NOT_OBSERVED if at is None else at for at in times], dtype=np.int64)


def _bodies_of_lasts(t: LoopTimes, lasts: Ints, dropped: Ints) -> Ints:
    """Return how long the body of each pass's last step is taken to be, if its end was not seen.

    The other steps of the loader show how long a step is. Until the iterator was let go, if that is neither
    shorter nor longer than all of them: `next(iter(loader))` lets it go before its step, and one that is kept
    in a variable is let go at any time after. Else until the loop turned to a loader again, if that is no
    longer than the longest of them. Else as long as their median, and what is left is a pause.
    """
    bodies = _bodies(t)
    inner = bodies != NOT_OBSERVED
    inner[lasts] = False
    lengths = np.maximum(bodies[lasts], 0)
    let_go = np.where(dropped == NOT_OBSERVED, NOT_OBSERVED, dropped - t.take_ns[lasts])
    for loader in np.unique(t.loader[lasts]).tolist():
        own = t.loader[lasts] == loader
        others = bodies[inner & (t.loader == loader)]
        if len(others) == 0:
            others = _of_single_batches(lengths[own], bodies[inner])
            let_go[own] = NOT_OBSERVED
        longest = int(others.max())
        believed = (let_go >= others.min()) & (let_go <= longest)
        usual = np.where(lengths > longest, int(np.median(others)), lengths)
        lengths[own] = np.where(believed, let_go, usual)[own]
    return lengths


def _of_single_batches(own: Ints, inner: Ints) -> Ints:
    """Return what a step of a loader is compared with whose passes have one batch each: those that take
    several passes show it themselves, except for the longest, which may hold a pause."""
    if len(own) > 2 or len(inner) == 0:
        return np.sort(own)[: max(1, len(own) - 1)]
    return inner


def _bodies(t: LoopTimes) -> Ints:
    """Return how long after each take the loop began a loader again: asked for a batch or an iterator, or
    learned that there is none left. `NOT_OBSERVED` if it did not."""
    marked = _ints(
        at for mark in t.marks.values() for at in (mark.begun_ns, mark.last_request_ns, mark.exhausted_ns)
    )
    turns = np.sort(np.concatenate([t.request_ns, marked[marked != NOT_OBSERVED]]), kind="stable")
    after = np.append(turns, NOT_OBSERVED)[np.searchsorted(turns, t.take_ns, "right")]
    return np.where(after == NOT_OBSERVED, NOT_OBSERVED, after - t.take_ns)


@dataclass(frozen=True, eq=False)
class Window:
    """The measured part of a run: after warm-up, to the end of the last step, without what no loop spent."""

    start_ns: int
    end_ns: int
    outside: Spans = NO_SPANS
    """Disjoint spans within it that are not counted: pauses, first start-ups, steps that are not measured."""

    @cached_property
    def wall_ns(self) -> int:
        """Return the loop's time in the window."""
        begins, ends = self.outside
        return self.end_ns - self.start_ns - int((ends - begins).sum())

    def part(self, start_ns: int, end_ns: int) -> Window:
        """Return the window between two times."""
        start = min(max(start_ns, self.start_ns), self.end_ns)
        end = max(min(end_ns, self.end_ns), start)
        return Window(start, end, clipped(self.outside, start, end))

    def without(self, spans: Spans) -> Window:
        """Return the window with more of its time left out."""
        both = union(*(np.concatenate(edges) for edges in zip(self.outside, spans, strict=True)))
        return Window(self.start_ns, self.end_ns, clipped(both, self.start_ns, self.end_ns))

    def holds(self, times: Ints) -> Bools:
        """Return for each time whether it is the loop's."""
        begins, ends = self.outside
        at = np.searchsorted(begins, times, "right") - 1
        apart = (at >= 0) & (times < np.append(ends, 0)[at])
        return np.asarray((times >= self.start_ns) & (times <= self.end_ns) & ~apart)

    def loop_time(self, times: Ints) -> Ints:
        """Return the loop's time from the start of the window to each of `times`."""
        inside = np.clip(times, self.start_ns, self.end_ns)
        begins, ends = self.outside
        before = np.append(0, np.cumsum(ends - begins))
        at = np.searchsorted(begins, inside, "right")
        into = np.where(at > 0, np.minimum(inside, np.append(0, ends)[at]) - np.append(0, begins)[at], 0)
        return np.asarray(inside - self.start_ns - np.append(0, before)[at] - into)
