"""A recorded run as the arrays of its events, with everything that several rooms derive from them.

The steps are joined with the batches that they took. What follows from the columns alone is a property of
`Timeline`: when a step ended, whether its batch was ready, which part of its wait the device did not feel,
where the passes over the loaders begin and end, and what lies between them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeprof.graph import UNBOUNDED, Shape
from pipeprof.passes import (
    NO_SPANS,
    NOT_OBSERVED,
    Bools,
    EpochOrder,
    Ints,
    LoopPass,
    LoopTimes,
    Pass,
    PassMarks,
    Spans,
    Window,
    clipped,
    find_passes,
    read_marks,
    spans_of,
    union,
)
from pipeprof.record.columns import whole_numbers
from pipeprof.record.events import RunEvent, read_events
from pipeprof.record.meta import AcceleratorMeta, LoaderMeta
from pipeprof.record.reader import Run
from pipeprof.record.schema import MAIN_PROCESS, UNPROBED_BLOCK

__all__ = [
    "NOT_OBSERVED",
    "READY_TAKE_NS",
    "Bools",
    "Ints",
    "Keys",
    "LoopPass",
    "PassMarks",
    "Spans",
    "Timeline",
    "Window",
    "ints",
    "measured_window",
    "previous",
    "read_ints",
    "read_timeline",
    "shapes_of",
    "take",
    "union",
]

_ALIKE: Final = 0.2
"""Difference in the logarithm of their times up to which two batches took about as long: a fifth."""
LARGE_STATE_BYTES: Final = 65_536
"""Bytes of a state from which carrying it counts as a part of what the state costs: pickling, writing and
unpickling this many, all that a pipe holds, takes a millisecond; the descriptors of a batch take as long."""
READY_TAKE_NS: Final = 300_000
"""Time above which a wait for a batch that was finished before was a wait for the pin thread. Taking a batch
that is already pinned takes less: waking up and handing it over, 221 µs in all as measured on an idle
machine."""


def shapes_of(run: Run, timeline: Timeline) -> dict[int, Shape]:
    """Return the shape of each loader of a run by its id, from run.json, or from the record if run.json does
    not say.

    A loader with workers that run.json does not name is assumed to have as many as made its batches.
    """
    device = run.meta.accelerator
    synchronises = _synchronises(device, timeline)
    overlap = _copies_overlap(timeline) if device.copies_overlap is None else device.copies_overlap
    depth = device.queue_depth or UNBOUNDED
    shapes = {}
    for loader in np.unique(timeline.loader).tolist():
        loader_meta = run.meta.loader(loader)
        workers = loader_meta.workers
        if workers is None:
            workers = int(timeline.worker[timeline.loader == loader].max(initial=MAIN_PROCESS)) + 1
        shapes[loader] = Shape(
            workers=workers,
            prefetch=loader_meta.prefetch or 2,
            in_order=loader_meta.in_order is not False,
            pin_memory=loader in timeline.pin_threads,
            pageable=not (loader_meta.pin_memory if device.pinned is None else device.pinned),
            copies_overlap=overlap,
            synchronises=synchronises,
            queue_depth=depth,
        )
    return shapes


def _pin_threads(run: Run) -> frozenset[int]:
    """Return the loaders that were to pin their batches; torch starts no thread for it without a GPU."""
    gpu = run.meta.accelerator.device_of_torch or bool(run.meta.machine.gpu_names)
    return frozenset(loader.id for loader in run.meta.loaders if gpu and loader.pin_memory)


Floats = npt.NDArray[np.float64]
_AUTOMATIC: Final = re.compile(r"loader\d+")
"""Name that a session gives a loader without one."""


def _alike(run: Run, taken_from: Collection[int]) -> dict[int, int]:
    """Map each loader of the steps to the first one made with the same arguments: usually itself."""
    first: dict[LoaderMeta, int] = {}
    kinds = {}
    for loader in sorted(taken_from):
        loader_meta = run.meta.loader(loader)
        unnamed = _AUTOMATIC.fullmatch(loader_meta.name) and loader_meta.dataset is not None
        kinds[loader] = first.setdefault(
            replace(loader_meta, id=0, name="" if unnamed else loader_meta.name), loader
        )
    return kinds


def _synchronises(device: AcceleratorMeta, timeline: Timeline) -> bool:
    """Return True if the device says so, or if nearly every step had ended when the host moved on."""
    if device.synchronises:
        return True
    seen = (timeline.compute_end_ns != NOT_OBSERVED) & (timeline.launch_ns != NOT_OBSERVED)
    waited = timeline.launch_ns[seen] >= timeline.compute_end_ns[seen]
    return bool(seen.any() and waited.mean() >= 0.9)


def _copies_overlap(timeline: Timeline) -> bool:
    """Return True if some copies began before the step before them had ended."""
    began, ended = timeline.copy_start_ns[1:], timeline.compute_end_ns[:-1]
    seen = (began != NOT_OBSERVED) & (ended != NOT_OBSERVED)
    return not seen.any() or bool((began[seen] >= ended[seen]).mean() < 0.9)


@dataclass(frozen=True, eq=False)
class Timeline:
    """A recorded run, one entry a step, in the order of the steps. Times in ns, `NOT_OBSERVED` if null.

    Each property is derived from the columns in one place.
    """

    step: Ints
    loader: Ints
    epoch: Ints
    seq: Ints
    warmup: Bools
    """True if the step is not measured: it comes before those that are, or its loader was not asked for."""
    samples: Ints
    worker: Ints
    dispatch_ns: Ints
    start_ns: Ints
    finish_ns: Ints
    pickled_ns: Ints
    sent_ns: Ints
    sent_bytes: Ints
    """Size of the pickle of each batch, without the tensors, which travel separately."""
    state_bytes: Ints
    """Part of it that is the data set's state, if one travels with the batch."""
    received_ns: Ints
    arrival_ns: Ints
    request_ns: Ints
    take_ns: Ints
    launch_ns: Ints
    copy_start_ns: Ints
    copy_end_ns: Ints
    compute_start_ns: Ints
    compute_end_ns: Ints
    device_wait_ns: Ints
    batch_row: Ints
    """Row of the step's batch in the `batches` table."""
    previous: Ints
    """Entry of the batch that the same worker made before this one, of the same loader and epoch."""
    marks: Mapping[Pass, PassMarks] = field(default_factory=dict)
    """What the run's events say about its passes over loaders."""
    standstills: Spans = NO_SPANS
    """Spans in which the process stood still, stopped by a signal or in a frozen container; and in which the
    loop waited while a worker did."""
    clock_events: tuple[RunEvent, ...] = ()
    """Times at which the machine's clock was set, or the machine had slept."""
    pin_threads: frozenset[int] = frozenset()
    """Loaders whose batches go through a thread of the main process that pins them."""
    unprobed: Bools | None = None
    """True if the step's batch was made unprobed, to measure what observing costs; None if none was."""
    loop_unprobed: Bools | None = None
    """True if the loop's side of the step was: its lines and waits for the GIL were not sampled."""
    stand_in: Ints | None = None
    """Entry whose batch's inside represents each step's: another's if a batch was made unprobed, -1 if there
    is none. None if each represents itself."""
    alike: Mapping[int, int] = field(default_factory=dict)
    """The first of its kind, for a loader that was recreated with the same arguments."""

    def __len__(self) -> int:
        return len(self.step)

    @cached_property
    def device_observed(self) -> bool:
        """Return True if the end of at least one step was seen on the device."""
        return bool((self.compute_end_ns != NOT_OBSERVED).any())

    @cached_property
    def device_waits(self) -> bool:
        """Return True if the device measured its own wait before at least one step."""
        return bool((self.device_wait_ns != NOT_OBSERVED).any())

    @property
    def inside_row(self) -> Ints:
        """Return the row of the `batches` table that describes the inside of each step's batch.

        It is the batch's own row or, for an unprobed batch, that of another which took about as long.
        """
        return self.batch_row if self.stand_in is None else take(self.batch_row, self.stand_in)

    @property
    def inside_scale(self) -> npt.NDArray[np.float32]:
        """Return how long each batch took to make, over the one whose inside represents its own."""
        if self.stand_in is None:
            return np.ones(len(self), dtype=np.float32)
        wall_ns = np.maximum(self.finish_ns - self.start_ns, 0)
        usual_ns = take(wall_ns, self.stand_in, 0)
        scale = np.divide(wall_ns, usual_ns, out=np.ones(len(self)), where=usual_ns > 0)
        return np.asarray(scale, dtype=np.float32)

    @property
    def device_timed(self) -> bool:
        """Return True if the device reported anything of its time: when steps ended, or how long it
        waited."""
        return self.device_observed or self.device_waits

    @cached_property
    def measured(self) -> Bools:
        """Return the steps that the figures count."""
        return ~self.warmup

    @cached_property
    def wait_ns(self) -> Ints:
        """Return the time that the main thread spent in `next(iterator)`, standstills left out, per step."""
        waited = np.asarray(np.maximum(self.take_ns - self.request_ns, 0))
        if len(self.standstills[0]) == 0:
            return waited
        lived = Window(int(self.request_ns.min()), int(self.take_ns.max()), self.standstills)
        lasted = lived.loop_time(self.take_ns) - lived.loop_time(self.request_ns)
        return np.asarray(np.minimum(waited, lasted))

    @cached_property
    def loader_code_ns(self) -> Ints:
        """Return the part of each `next` in which a loader without workers made no batch; 0 with workers."""
        own = self.wait_ns - np.maximum(self.finish_ns - self.start_ns, 0)
        seen = (self.worker < 0) & (self.start_ns != NOT_OBSERVED) & (self.finish_ns != NOT_OBSERVED)
        return np.where(seen, np.maximum(own, 0), 0)

    @cached_property
    def pickling_ns(self) -> Ints:
        """Return the time of pickling each batch and writing it to the pipe; `NOT_OBSERVED` if unknown."""
        seen = (self.pickled_ns != NOT_OBSERVED) & (self.sent_ns != NOT_OBSERVED)
        return np.where(seen, np.maximum(self.sent_ns - self.pickled_ns, 0), NOT_OBSERVED)

    @cached_property
    def usual_pickling_ns(self) -> float | None:
        """Return the median of `pickling_ns` over the measured batches; None if none was observed."""
        seen = self.pickling_ns[self.measured & (self.pickling_ns != NOT_OBSERVED)]
        return float(np.median(seen)) if len(seen) else None

    @cached_property
    def usual_compute_ns(self) -> float | None:
        """Return the median time that the device computed in a measured step; None if not observed."""
        seen = self.measured & (self.compute_start_ns != NOT_OBSERVED) & (self.compute_end_ns != NOT_OBSERVED)
        computed = (self.compute_end_ns - self.compute_start_ns)[seen]
        return float(np.median(computed)) if len(computed) else None

    @cached_property
    def usual_pickle_bytes(self) -> Ints:
        """Return the median of `sent_bytes` over each step's loader; `NOT_OBSERVED` if none is known."""
        usual = np.full(len(self), NOT_OBSERVED)
        for loader in np.unique(self.loader):
            mine = self.loader == loader
            seen = self.sent_bytes[mine & (self.sent_bytes != NOT_OBSERVED)]
            if len(seen):
                usual[mine] = np.int64(np.median(seen))
        return usual

    @cached_property
    def state_share(self) -> Floats:
        """Return the share of each batch's pickle that is a large state of its data set.

        For a batch whose pickle was not seen, the mean share of its loader; 0 if no state was seen at all.
        """
        seen = self.sent_bytes > 0
        large = seen & (self.state_bytes >= LARGE_STATE_BYTES)
        shares = np.where(large, self.state_bytes / np.maximum(self.sent_bytes, 1), 0.0)
        for loader in np.unique(self.loader[large]):
            mine = self.loader == loader
            shares[mine & ~seen & (self.worker >= 0)] = shares[mine & seen].mean()
        return shares

    @cached_property
    def next_of_worker(self) -> Ints:
        """Return the entry of the batch that the same worker made after each; -1 for none."""
        following = np.full(len(self), -1, dtype=np.int64)
        there = np.flatnonzero(self.previous >= 0)
        following[self.previous[there]] = there
        return following

    @cached_property
    def masked_wait_ns(self) -> Ints:
        """Return the part of each wait that the accelerator spent working on earlier steps: this is not a
        stall.

        By the device's own measure of the wait if there is one, else by the intervals in which it computed or
        copied a batch; 0 if no device was observed.
        """
        starts, ends = computing(self)
        if len(starts):
            copied = (self.copy_start_ns != NOT_OBSERVED) & (self.copy_end_ns != NOT_OBSERVED)
            starts = np.append(starts, self.copy_start_ns[copied])
            ends = np.append(ends, self.copy_end_ns[copied])
            at = np.append(starts, ends) - starts[0]
            steps = np.append(np.ones(len(starts), np.int8), np.full(len(ends), -1, np.int8))
            order = np.argsort(at, kind="stable")
            at, busy = at[order], np.cumsum(steps[order], dtype=np.int32)
            del ends, steps, order  # a long run's are large
            worked = np.append(0, np.cumsum(np.where(busy[:-1] > 0, np.diff(at), 0)))
            inside = np.interp(self.take_ns - starts[0], at, worked)
            inside -= np.interp(self.request_ns - starts[0], at, worked)
            return np.asarray(np.minimum(np.rint(inside).astype(np.int64), self.wait_ns))
        idle = np.where(self.device_wait_ns == NOT_OBSERVED, self.wait_ns, self.device_wait_ns)
        return np.asarray(np.maximum(self.wait_ns - idle, 0))

    @cached_property
    def available_ns(self) -> Ints:
        """Return the time at which each batch could be taken; `NOT_OBSERVED` if nothing shows it.

        It is when the batch was seen to arrive, or the main process had unpickled it, or the loop had made it
        itself. Otherwise it is when the batch was finished or, if that was after it had been requested, when
        the wait for it ended. A batch that was finished long before may still be waited for if a thread pins:
        see `READY_TAKE_NS`.
        """
        pinned = self._pinned
        late = (self.finish_ns > self.request_ns) | (pinned & (self.wait_ns > READY_TAKE_NS))
        guess = np.where(late, self.take_ns, self.finish_ns)
        known = np.where(pinned, NOT_OBSERVED, self.received_ns)  # a thread has pinned it since
        known = np.where(self.arrival_ns == NOT_OBSERVED, known, self.arrival_ns)
        known = np.where(known == NOT_OBSERVED, guess, known)
        return np.where(self.worker < 0, self.finish_ns, np.minimum(known, self.take_ns))

    @cached_property
    def ready(self) -> Ints:
        """Return 1 if the batch was ready when the loop asked for it, 0 if not, `NOT_OBSERVED` if unknown.

        It is ready if nothing is left but to take it: pinned in the main process if a thread pins, else in
        the pipe to it, from which `next` itself unpickles. A batch that the loop makes itself on request is
        never ready.
        """
        sent = np.where(self.sent_ns == NOT_OBSERVED, self.finish_ns, self.sent_ns)
        there = np.where(self._pinned, self.available_ns, sent)
        known = (there != NOT_OBSERVED) | (self.worker < 0)
        return np.where(known, (self.worker >= 0) & (there <= self.request_ns), NOT_OBSERVED).astype(np.int64)

    @cached_property
    def _pinned(self) -> Bools:
        return np.isin(self.loader, list(self.pin_threads)) & (self.worker >= 0)

    @cached_property
    def epochs(self) -> EpochOrder:
        """Return the position of each step in its own pass over its loader."""
        return EpochOrder(self.step, self.loader, self.epoch)

    @cached_property
    def epoch_first(self) -> Bools:
        """Return True if the step is the first of a pass over its loader."""
        return np.asarray(self.epochs.position == 0)

    @cached_property
    def passes(self) -> tuple[LoopPass, ...]:
        """Find the loop's passes over its loaders, in the order in which they began."""
        return find_passes(
            LoopTimes(
                self.loader,
                self.epoch,
                self.epochs,
                self.worker,
                self.request_ns,
                self.take_ns,
                self.launch_ns,
                self.compute_end_ns,
                self.marks,
            )
        )

    @cached_property
    def step_end_ns(self) -> Ints:
        """Return the time at which each step ended, never going back.

        A step ends with its computation if the device was observed, else when the loop turned to something
        else.
        """
        ends = np.where(self.compute_end_ns == NOT_OBSERVED, self._turned_ns(), self.compute_end_ns)
        return np.maximum.accumulate(ends)

    @property
    def in_body_ns(self) -> Ints:
        """Return how long the loop's body ran after each step: from taking its batch until it turned."""
        return np.maximum(np.maximum.accumulate(self._turned_ns()) - self.take_ns, 0)

    def _turned_ns(self) -> Ints:
        """Return when the loop turned from each step: to the next request or iterator, or the pass ended.

        See `LoopPass.end_ns` for the last of a pass.
        """
        ends = np.append(self.request_ns[1:], self.take_ns[-1:])
        for loop_pass in self.passes:
            ends[loop_pass.last] = (
                min(ends[loop_pass.last], loop_pass.end_ns)
                if loop_pass.last + 1 < len(self)
                else loop_pass.end_ns
            )
        ends[-1:] = np.maximum(ends[-1:], max((loop_pass.end_ns for loop_pass in self.passes), default=0))
        for loop_pass in self.passes:
            if (
                loop_pass.first
                and loop_pass.made_ns is not None
                and loop_pass.made_ns[0] >= self.take_ns[loop_pass.first - 1]
            ):
                ends[loop_pass.first - 1] = min(ends[loop_pass.first - 1], loop_pass.made_ns[0])
        return np.asarray(ends)

    @cached_property
    def pauses(self) -> Spans:
        """Return the spans between the first and last pass in which the loop was in no pass: not the loop's
        time.

        Examples are evaluation without a loader, checkpoints, setting up, or a pause between two cells of a
        notebook.
        """
        inside = [span for loop_pass in self.passes for span in loop_pass.spans]
        if not inside:
            return NO_SPANS
        starts, ends = union(*spans_of(inside))
        return ends[:-1], starts[1:]

    @cached_property
    def entries(self) -> Spans:
        """Return the spans in which the loop was in `iter(loader)`, up to asking for the first batch: it
        draws indices there."""
        return union(
            *spans_of(
                (loop_pass.begin_ns, int(self.request_ns[loop_pass.first])) for loop_pass in self.passes
            )
        )

    @cached_property
    def first_startups(self) -> Spans:
        """Return the spans in which the loop waited for a loader's workers to start the first time: not part
        of a steady rate.

        From `iter(loader)` until the first batch was begun. A loader that was recreated with the same
        arguments has started before.
        """
        spans, started = [], set[int]()
        for loop_pass in self.passes:
            kind = self.kind_of(loop_pass.loader)
            if self.worker[loop_pass.first] >= 0 and kind not in started:
                started.add(kind)
                spans += self._startup(loop_pass)
        return union(*spans_of(spans))

    def _startup(self, loop_pass: LoopPass) -> list[tuple[int, int]]:
        """Return the spans in which the loop waited in a pass for its workers to start: until it had its
        iterator, and until the first batch was begun."""
        begun = min(int(self.start_ns[loop_pass.first]), int(self.take_ns[loop_pass.first]))
        waited = (loop_pass.begin_ns, max(begun, loop_pass.begin_ns))
        return [waited] if loop_pass.made_ns is None else [loop_pass.made_ns, waited]

    def startup_ns(self, loop_pass: LoopPass) -> int:
        """Return how long the loop waited in a pass for workers to start."""
        starts, ends = union(*spans_of(self._startup(loop_pass)))
        return int((ends - starts).sum())

    @cached_property
    def startups(self) -> Spans:
        """Return the spans in which the loop had workers started or shut down, in order."""
        return union(
            *spans_of(
                span for loop_pass in self.passes for span in (loop_pass.made_ns, loop_pass.closed_ns) if span
            )
        )

    @cached_property
    def kinds(self) -> Ints:
        """Return the loader of each step; the first one if several were made with the same arguments."""
        numbers = np.arange(int(self.loader.max(initial=0)) + 1)
        return np.array([self.kind_of(loader) for loader in numbers.tolist()])[self.loader]

    def kind_of(self, loader: int) -> int:
        """Return the first loader that was made with the arguments of `loader`: usually itself."""
        return self.alike.get(loader, loader)

    def only(self, kind: int) -> Timeline:
        """Return the same run with only the steps of one kind of loader measured."""
        return replace(self, warmup=self.warmup | (self.kinds != kind))

    def part(self, kept: Ints) -> Timeline:
        """Return only the steps at the positions `kept`."""
        columns: dict[str, Any] = {item.name: getattr(self, item.name) for item in fields(self)}
        some = {name: values[kept] for name, values in columns.items() if isinstance(values, np.ndarray)}
        place = np.full(len(self) + 1, -1, dtype=np.int64)
        place[kept] = np.arange(len(kept))
        some |= {"previous": place[self.previous[kept]]}
        if self.stand_in is not None:
            some |= {"stand_in": place[self.stand_in[kept]]}
        return Timeline(**{**columns, **some})


def computing(timeline: Timeline) -> Spans:
    """Return when the device computed each step that was seen, in order of starts."""
    begun, ended = timeline.compute_start_ns, timeline.compute_end_ns
    seen = (begun != NOT_OBSERVED) & (ended != NOT_OBSERVED)
    order = np.argsort(begun[seen], kind="stable")
    return begun[seen][order], ended[seen][order]


_FROM_STEPS = [
    "step",
    "loader",
    "epoch",
    "seq",
    "samples",
    "request_ns",
    "pickled_ns",
    "sent_ns",
    "sent_bytes",
    "state_bytes",
    "received_ns",
    "arrival_ns",
    "take_ns",
    "launch_ns",
    "copy_start_ns",
    "copy_end_ns",
    "compute_start_ns",
    "compute_end_ns",
    "device_wait_ns",
]
_FROM_BATCHES = ["worker", "dispatch_ns", "start_ns", "finish_ns"]


def read_timeline(run: Run) -> Timeline:
    """Join the steps of a run with the batches that they took, on (loader, epoch, seq)."""
    events = read_events(run)
    columns = read_ints(run, "steps", [*_FROM_STEPS, "warmup", "unprobed"])
    if (np.diff(columns["step"]) < 0).any():
        order = np.argsort(columns["step"], kind="stable")
        columns = {name: values[order] for name, values in columns.items()}
    key = ("loader", "epoch", "seq")
    batches = read_ints(run, "batches", [*key, *_FROM_BATCHES])
    unprobed = _unprobed(run)
    row = Keys(*(batches.pop(name) for name in key)).find(*(columns[name] for name in key))
    for name in _FROM_BATCHES:
        columns[name] = take(batches.pop(name), row, MAIN_PROCESS if name == "worker" else NOT_OBSERVED)
    before = previous(columns["loader"], columns["epoch"], columns["worker"], columns["start_ns"])
    marked = None if unprobed is None else take(unprobed, row, 0) == 1
    by_loop = columns.pop("unprobed") == 1
    return Timeline(
        warmup=columns.pop("warmup") == 1,
        batch_row=row,
        previous=before,
        unprobed=marked,
        loop_unprobed=by_loop if by_loop.any() else None,
        stand_in=None if marked is None else _stand_ins(marked, *(columns[name] for name in _STOOD_FOR_BY)),
        marks=read_marks(events),
        standstills=_standstills(events, columns["request_ns"], columns["take_ns"]),
        clock_events=tuple(event for event in events if event.kind in ("clock_set", "slept")),
        pin_threads=_pin_threads(run),
        alike=_alike(run, set(np.unique(columns["loader"]).tolist())),
        **columns,
    )


OF_ITS_LENGTH: Final = frozenset({"cpu_ns", "runq_ns", "helper_cpu_ns"})
"""Columns of `batches` that an unprobed batch has in proportion to how long it took to make."""


def read_inside(run: Run, timeline: Timeline, names: Sequence[str]) -> dict[str, Ints]:
    """Read columns of `batches` that tell of the inside of each step's batch.

    Those of an unprobed batch are its stand-in's, scaled if they are times of its making.
    """
    columns, rows = read_ints(run, "batches", names), timeline.inside_row
    inside = {name: take(columns.pop(name), rows) for name in names}
    if timeline.unprobed is not None:
        gone = np.flatnonzero(timeline.unprobed)
        scale = timeline.inside_scale[gone]
        for name in OF_ITS_LENGTH.intersection(names):
            values = inside[name]
            values[gone] = np.where(values[gone] == NOT_OBSERVED, NOT_OBSERVED, values[gone] * scale)
    return inside


def stands_for(timeline: Timeline, rows: int) -> tuple[Ints, Floats]:
    """Return how many batches each row of `batches` stands for, itself and unprobed ones, and their length.

    That is the sum of their lengths over its own.
    """
    counted, lengths = np.ones(rows, dtype=np.int64), np.ones(rows)
    if timeline.unprobed is not None:
        others = timeline.inside_row
        gone = timeline.unprobed & (others >= 0)
        counted += np.bincount(others[gone], minlength=rows)
        lengths += np.bincount(others[gone], timeline.inside_scale[gone], minlength=rows)
    return counted, lengths


_STOOD_FOR_BY: Final = ("loader", "worker", "start_ns", "finish_ns")


def _unprobed(run: Run) -> Ints | None:
    """Return 1 for each row of `batches` that was made unprobed; None if none was, as in short runs."""
    parts = [ints(piece["unprobed"]).astype(np.int8) for piece in run.pieces("batches", ["unprobed"])]
    return np.concatenate(parts) if any((part == 1).any() for part in parts) else None


def _stand_ins(unprobed: Bools, loader: Ints, worker: Ints, start_ns: Ints, finish_ns: Ints) -> Ints:
    """Return for each step the one whose batch's inside stands for its own.

    For an unprobed batch, it is one of the last `UNPROBED_BLOCK` that were probed and took about as long, in
    turns: what makes a batch slow need not be what the usual one spends its time on. It is from the same
    worker if that had any such, else from the same loader, else the one whose time is closest.
    """
    took = np.log(np.maximum(finish_ns - start_ns, 1).astype(np.float64))
    chosen = np.full(len(unprobed), -1)
    for one in np.unique(loader):
        mine = np.flatnonzero(loader == one)
        mine = mine[np.argsort(start_ns[mine], kind="stable")]
        if not unprobed[mine].all():
            length = _alike_length(took[mine], unprobed[mine])
            _choose(chosen, mine, length, unprobed[mine], worker[mine])
    return np.where(unprobed, chosen, np.arange(len(unprobed)))


def _alike_length(took: Floats, unprobed: Bools) -> Floats:
    """Return the logarithm of how long batches took, adding to unprobed ones what probing would add."""
    last = np.maximum.accumulate(np.where(unprobed, -1, np.arange(len(took))))
    known = unprobed & (last >= 0)
    longer = float(np.median((took[last] - took)[known])) if known.any() else 0.0
    return took + np.where(unprobed, max(longer, 0.0), 0.0)


def _choose(chosen: Ints, mine: Ints, length: Floats, unprobed: Bools, worker: Ints) -> None:
    """Choose the stand-ins of one loader's batches `mine`, which are in order of time."""
    kind = np.floor(length / _ALIKE).astype(np.int64)
    for group in (worker, np.zeros_like(worker)):
        asking = unprobed & (chosen[mine] < 0)
        found = _last_alike(group, kind, asking, ~unprobed)
        seen = np.flatnonzero(found >= 0)
        chosen[mine[seen]] = mine[found[seen]]
    rest = np.flatnonzero(unprobed & (chosen[mine] < 0))
    probed = np.flatnonzero(~unprobed)
    probed = probed[np.argsort(length[probed], kind="stable")]
    at = np.searchsorted(length[probed], length[rest])
    above, below = np.minimum(at, len(probed) - 1), np.maximum(at - 1, 0)
    nearer = np.abs(length[probed[above]] - length[rest]) < np.abs(length[probed[below]] - length[rest])
    chosen[mine[rest]] = mine[probed[np.where(nearer, above, below)]]


def _last_alike(group: Ints, kind: Ints, asking: Bools, probed: Bools) -> Ints:
    """Return for each that asks one of the last `UNPROBED_BLOCK` probed before it, in turns; -1 if none is.

    It is of the same group and kind. If fewer came before it, it is the first one there.
    """
    there = np.flatnonzero(asking | probed)
    order = there[np.lexsort((kind[there], group[there]))]
    begins = (np.diff(group[order], prepend=0) != 0) | (np.diff(kind[order], prepend=0) != 0)
    begins[:1] = True
    part = np.cumsum(begins) - 1
    is_probed, asks = probed[order], asking[order]
    before, asked = _earlier(is_probed), _earlier(asks)
    first, first_asked = before[begins][part], asked[begins][part]
    count = np.bincount(part[is_probed], minlength=int(begins.sum()))[part]
    turn = (asked - first_asked) % UNPROBED_BLOCK
    place = np.clip(before - first - 1 - turn, 0, np.maximum(count - 1, 0))
    found = np.full(len(group), -1)
    seen = asks & (count > 0)
    found[order[seen]] = order[is_probed][(first + place)[seen]]
    return found


def _earlier(marked: Bools) -> Ints:
    """Return how many are marked before each."""
    return np.asarray(np.cumsum(marked) - marked)


def _standstills(events: Iterable[RunEvent], request_ns: Ints, take_ns: Ints) -> Spans:
    """Return the spans of `Timeline.standstills`, by the events that end them and the waits of the loop."""
    spans: list[tuple[int, int]] = []
    for event in events:
        if event.kind != "suspended" or not (event.detail or "").isdecimal():
            continue
        start, end = event.time_ns - int(event.detail or 0), event.time_ns
        if event.worker is None:
            spans.append((start, end))
        else:  # the others went on, and so did the loop, until it had to wait
            begun, ended = np.maximum(request_ns, start), np.minimum(take_ns, end)
            spans += zip(begun[ended > begun].tolist(), ended[ended > begun].tolist(), strict=True)
    return union(*spans_of(spans))


def take(values: Ints, row: Ints, missing: int = NOT_OBSERVED) -> Ints:
    """Return `values` at each row, `missing` if the row is negative."""
    if len(values) == 0:
        return np.full(len(row), missing, dtype=np.int64)
    return np.where(row >= 0, values[row], missing)


def read_ints(run: Run, table: str, names: Sequence[str]) -> dict[str, Ints]:
    """Read integer columns of a table, without holding the whole table as Arrow."""
    parts: dict[str, list[Ints]] = {name: [np.zeros(0, np.int64)] for name in names}
    for piece in run.pieces(table, names):
        for name in names:
            parts[name].append(ints(piece[name]))
    return {name: np.concatenate(parts.pop(name)) for name in names}


def ints(column: Any) -> Ints:
    """Return an integer column of Arrow as int64, `NOT_OBSERVED` for null."""
    return whole_numbers(column, NOT_OBSERVED)


class Keys:
    """Index that finds the row of a (loader, epoch, seq) in a table that has each key once."""

    def __init__(self, loader: Ints, epoch: Ints, seq: Ints) -> None:
        self._base = [int(column.max(initial=0)) + 1 for column in (loader, epoch, seq)]
        packed = self._pack(loader, epoch, seq)
        self._order = np.argsort(packed, kind="stable")
        self._sorted = packed[self._order]

    @classmethod
    def of(cls, timeline: Timeline) -> Keys:
        """Return the keys of a timeline's steps."""
        return cls(timeline.loader, timeline.epoch, timeline.seq)

    def _pack(self, loader: Ints, epoch: Ints, seq: Ints) -> Ints:
        return (loader * self._base[1] + epoch) * self._base[2] + seq

    def find(self, loader: Ints, epoch: Ints, seq: Ints) -> Ints:
        """Return for each key its row, or -1."""
        if len(self._sorted) == 0:
            return np.full(len(loader), -1, dtype=np.int64)
        known = (epoch < self._base[1]) & (seq < self._base[2])
        wanted = self._pack(loader, epoch, seq)
        place = np.minimum(np.searchsorted(self._sorted, wanted), len(self._sorted) - 1)
        return np.where(known & (self._sorted[place] == wanted), self._order[place], -1).astype(np.int64)


def previous(loader: Ints, epoch: Ints, worker: Ints, start: Ints) -> Ints:
    """Return the position of the batch made before by the same worker of the same loader and epoch, or -1."""
    order = np.lexsort((start, worker, epoch, loader))
    same = (np.diff(loader[order]) == 0) & (np.diff(epoch[order]) == 0) & (np.diff(worker[order]) == 0)
    before = np.full(len(order), -1, dtype=np.int64)
    before[order[1:][same]] = order[:-1][same]
    return np.where(start == NOT_OBSERVED, -1, before)


def measured_window(timeline: Timeline) -> Window | None:
    """Return the window from the end of the last step before the first measured one to the end of the last.

    It leaves out the loop's pauses, standstills of the process, the first start-up of each loader's workers,
    and steps between that are not measured. It also leaves out steps at the end whose computation was no
    longer seen (a run that was cut off). None if no step was measured.
    """
    seen = timeline.compute_end_ns != NOT_OBSERVED
    measured = np.flatnonzero(timeline.measured & (seen if seen.any() else True))
    if len(measured) == 0:
        return None
    first, last = int(measured[0]), int(measured[-1])
    ends = timeline.step_end_ns
    start = int(ends[first - 1]) if first else min(loop_pass.begin_ns for loop_pass in timeline.passes)
    end = max(int(ends[last]), start)
    others = np.flatnonzero(timeline.warmup[first:last]) + first
    between = (ends[others - 1], ends[others])
    spans = (timeline.pauses, timeline.standstills, timeline.first_startups, between)
    outside = union(*(np.concatenate(edge) for edge in zip(*spans, strict=True)))
    return Window(start, end, clipped(outside, start, end))
