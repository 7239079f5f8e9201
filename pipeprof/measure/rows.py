"""From drained records and taken steps to rows of the trace. Runs in the flush thread, in bulk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from pipeprof.measure.accelerator import StepTimes
from pipeprof.measure.counters import UNSEEN
from pipeprof.measure.finished import Finished, Made
from pipeprof.measure.recorder import Totals
from pipeprof.measure.ring import Kind
from pipeprof.trace import MAIN_PROCESS

if TYPE_CHECKING:
    from pipeprof.measure.watch import IteratorWatch

Columns = dict[str, Any]
Records = npt.NDArray[Any]
HELD_AT_MOST: Final = 4096
"""Steps that wait for their device times; beyond, they are written without."""
_EXTRA: Final = (
    ("device_bytes", "a"),
    ("helper_cpu_ns", "b"),
    ("bytes", "c"),
    ("slowest_index", "d"),
    ("slowest_ns", "e"),
)
_join_masked: Any = np.ma.concatenate


class StepRow:
    """A step of the loop, until all that will be known of it is known."""

    __slots__ = (
        "complete", "device", "epoch", "key", "launch_ns", "order", "ready", "request_ns", "seq",
        "step", "take_ns", "warmup", "watch",
    )  # fmt: skip

    def __init__(
        self, step: int, watch: IteratorWatch, order: int, key: tuple[int, int] | None, warmup: bool,
        request_ns: int, take_ns: int, ready: int | None, complete: bool,
    ) -> None:  # fmt: skip
        self.step, self.watch, self.order, self.key, self.warmup = step, watch, order, key, warmup
        self.epoch, self.seq = (watch.epoch, order) if key is None else key
        self.request_ns, self.take_ns, self.ready = request_ns, take_ns, ready
        self.complete = complete
        self.launch_ns: int | None = None
        self.device: StepTimes | None = None


class Gatherer:
    """Joins what the workers and the loop have recorded."""

    def __init__(self) -> None:
        self.watches: list[IteratorWatch] = []
        self.samples = 0
        self.dropped = 0
        """Records that found their ring full, of the iterators that are gone."""
        self.stage_wall_ns: dict[str, int] = {}
        self._carried: dict[tuple[int, int], Records] = {}
        self._next_step = 0

    def fullest(self) -> float:
        """Share of the fullest worker's slot that waits to be drained."""
        return max((watch.ring.fullest() for watch in list(self.watches)), default=0.0)

    def gather(self, steps: dict[int, StepRow], taken: int, last: bool) -> dict[str, Columns]:
        """Drain every ring and turn what is complete into columns; `last` takes the incomplete too.

        `taken` was read before the call: what those steps took is in the rings by now.
        """
        parts: dict[str, list[Columns]] = {"batches": [], "stages": [], "spans": []}
        for watch in list(self.watches):
            gone = watch.gone or last
            for slot in range(watch.ring.slots):
                self._drain(watch, slot, parts)
            if gone:
                self._forget(watch)
        tables = {name: _joined(columns) for name, columns in parts.items()}
        tables["steps"] = self._steps(steps, taken, last)
        self._drop_old_epochs(steps)
        return tables

    def _forget(self, watch: IteratorWatch) -> None:
        self.watches.remove(watch)
        self.dropped += watch.ring.dropped()
        for slot in range(watch.ring.slots):
            self._carried.pop((id(watch), slot), None)
        watch.ring.close()

    def _drain(self, watch: IteratorWatch, slot: int, parts: dict[str, list[Columns]]) -> None:
        records = self._with_carried(watch, slot, watch.ring.drain(slot))
        if len(records) == 0:
            return
        worker = slot if watch.workers else MAIN_PROCESS
        loader, kind, names = watch.loader_number, records["kind"], watch.ring.names(slot)
        at = np.flatnonzero(kind == Kind.BATCH)
        stages, spans = records[kind == Kind.STAGE], records[kind == Kind.SPAN]
        if len(at):
            parts["batches"].append(_batches(records, at, loader, worker))
            _note_finished(watch, records[at])
        if len(stages):
            parts["stages"].append(_stages(stages, loader, names))
            self._note_stages(stages, names)
        if len(spans):
            parts["spans"].append(_spans(spans, loader, worker, names))

    def _with_carried(self, watch: IteratorWatch, slot: int, records: Records) -> Records:
        """A batch's counters lie right before it: where the drain fell between the two, they wait."""
        place = (id(watch), slot)
        if place in self._carried and len(records):
            records = np.concatenate([self._carried.pop(place), records])
        if len(records) and records["kind"][-1] == Kind.COUNTERS:
            self._carried[place], records = records[-1:], records[:-1]
        return records

    def _note_stages(self, stages: Records, names: list[str]) -> None:
        sums = np.bincount(stages["name"], weights=stages["a"])
        for number in np.flatnonzero(sums).tolist():
            name = _name(names, number)
            self.stage_wall_ns[name] = self.stage_wall_ns.get(name, 0) + int(sums[number])

    def _steps(self, steps: dict[int, StepRow], taken: int, last: bool) -> Columns:
        ready: list[tuple[Any, ...]] = []
        while self._next_step < taken:
            row = steps[self._next_step]
            if not (row.complete or last or taken - self._next_step > HELD_AT_MOST):
                break
            del steps[self._next_step]
            self._next_step += 1
            ready.append(self._resolved(row))
        return dict(zip(_STEP_COLUMNS, zip(*ready, strict=True), strict=True)) if ready else {}

    def _resolved(self, row: StepRow) -> tuple[Any, ...]:
        made = _batch_of(row)
        if made is not None:
            row.seq = made.seq
            self.samples += made.samples
        told = row.device or StepTimes(row.step)
        # Only a batch that was waited for was seen to arrive; one that lay in the queue was not.
        waited = made is not None and made.finish_ns > row.request_ns
        return (
            row.step, row.watch.loader_number, row.epoch, row.seq, row.warmup,
            made.samples if made is not None else None,
            row.request_ns, row.take_ns if waited else None, row.take_ns, row.launch_ns,
            told.copy_start_ns, told.copy_end_ns, told.compute_start_ns, told.compute_end_ns,
            told.device_wait_ns, row.ready,
        )  # fmt: skip

    def _drop_old_epochs(self, steps: dict[int, StepRow]) -> None:
        """Batches that were made and never taken, after a `break`, are forgotten with their epoch."""
        waiting = {(id(row.watch), row.epoch) for row in list(steps.values())}
        for watch in self.watches:
            for epoch in list(watch.finished):
                if epoch < watch.epoch and (id(watch), epoch) not in waiting:
                    del watch.finished[epoch]


_STEP_COLUMNS: Final = (
    "step", "loader", "epoch", "seq", "warmup", "samples", "request_ns", "arrival_ns", "take_ns",
    "launch_ns", "copy_start_ns", "copy_end_ns", "compute_start_ns", "compute_end_ns", "device_wait_ns",
    "ready_batches",
)  # fmt: skip


def _batch_of(row: StepRow) -> Made | None:
    """The batch that a step took: the one that it was told, or the next in order."""
    finished = row.watch.finished.get(row.epoch)
    if finished is None:
        return None
    return finished.take_first() if row.key is None else finished.take(row.seq)


def _note_finished(watch: IteratorWatch, batches: Records) -> None:
    done = batches[batches["c"] != UNSEEN]
    columns = (done[name].tolist() for name in ("epoch", "seq", "aux", "c"))
    for epoch, seq, samples, finish_ns in zip(*columns, strict=True):
        if epoch not in watch.finished:
            watch.finished[epoch] = Finished()
        watch.finished[epoch].add(Made(seq, samples, finish_ns))


def _batches(records: Records, at: npt.NDArray[np.intp], loader: int, worker: int) -> Columns:
    batches = records[at]
    counters = records[np.maximum(at - 1, 0)]
    paired = (counters["kind"] == Kind.COUNTERS) & (counters["seq"] == batches["seq"])
    columns: Columns = {
        **_keys(batches, loader),
        "worker": np.full(len(at), worker),
        "samples": batches["aux"],
        "dispatch_ns": _seen(batches["a"]),
        "start_ns": batches["b"],
        "finish_ns": _seen(batches["c"]),
        "cpu_ns": _seen(batches["d"]),
        "runq_ns": _seen(batches["e"]),
    }
    for name, word in _EXTRA:
        columns[name] = _seen(np.where(paired, counters[word], UNSEEN))
    faults = paired & (counters["flag"] == 0)
    columns["major_faults"] = _seen(np.where(faults, counters["aux"].astype(np.int64), UNSEEN))
    return columns


def _stages(records: Records, loader: int, names: list[str]) -> Columns:
    return {
        **_keys(records, loader),
        "scope": np.zeros(len(records), np.int8),
        "stage": [_name(names, number) for number in records["name"].tolist()],
        "wall_ns": records["a"],
        "cpu_ns": _seen(records["b"]),
        "runq_ns": _seen(records["c"]),
        "queue_ns": _seen(records["d"]),
        "bytes": _seen(records["e"]),
        "count": records["aux"],
    }


def _spans(records: Records, loader: int, worker: int, names: list[str]) -> Columns:
    return {
        **_keys(records, loader),
        "worker": np.full(len(records), worker),
        "stage": [_name(names, number) for number in records["name"].tolist()],
        "sample": _seen(records["e"]),
        "start_ns": records["a"],
        "wall_ns": records["b"],
        "cpu_ns": _seen(records["c"]),
        "bytes": _seen(records["d"]),
    }


def loop_stages(done: list[tuple[StepRow, dict[str, Totals]]]) -> Columns:
    """Rows of what the user marked in the loop: scope 1, of the batch that was taken before."""
    rows = [
        (row.watch.loader_number, row.epoch, row.seq, 1, name, t.wall_ns, t.count)
        for row, totals in done
        for name, t in totals.items()
    ]
    names = ("loader", "epoch", "seq", "scope", "stage", "wall_ns", "count")
    return dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else {}


def _keys(records: Records, loader: int) -> Columns:
    return {"loader": np.full(len(records), loader), "epoch": records["epoch"], "seq": records["seq"]}


def _name(names: list[str], number: int) -> str:
    return names[number] if number < len(names) else "unknown"


def _seen(values: npt.NDArray[Any]) -> Any:
    """The values with `UNSEEN` masked, which Arrow writes as null."""
    return np.ma.masked_equal(values, UNSEEN)


def _joined(parts: list[Columns]) -> Columns:
    if len(parts) <= 1:
        return parts[0] if parts else {}
    return {
        name: [item for part in parts for item in part[name]]
        if isinstance(first, list)
        else _join_masked([part[name] for part in parts])
        for name, first in parts[0].items()
    }
