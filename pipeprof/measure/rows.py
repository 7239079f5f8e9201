"""From drained records and taken steps to rows of the trace. Runs in the flush thread, in bulk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from pipeprof.columns import by_name, named, nullable
from pipeprof.measure.accelerator import StepTimes
from pipeprof.measure.counters import UNSEEN
from pipeprof.measure.finished import Finished, Made
from pipeprof.measure.recorder import COLLATE, GETITEM, Totals
from pipeprof.measure.ring import RECORD_DTYPE, Kind
from pipeprof.trace import MAIN_PROCESS, TABLES

if TYPE_CHECKING:
    from pipeprof.measure.watch import IteratorWatch

Columns = dict[str, Any]
Records = npt.NDArray[Any]
Ints = npt.NDArray[Any]
HELD_AT_MOST: Final = 4096
"""Steps that wait for their device times; beyond, they are written without."""
_BATCH_WORDS: Final = {
    "dispatch_ns": "a", "start_ns": "b", "finish_ns": "c", "cpu_ns": "d", "runq_ns": "e", "device_bytes": "f",
    "helper_cpu_ns": "g", "major_faults": "h", "bytes": "i", "slowest_index": "j", "slowest_ns": "k",
}  # fmt: skip
_STAGE_WORDS: Final = {"wall_ns": "a", "cpu_ns": "b", "runq_ns": "c", "queue_ns": "d", "bytes": "e"}
_SPAN_WORDS: Final = {"start_ns": "a", "wall_ns": "b", "cpu_ns": "c", "bytes": "d", "sample": "e"}
_NOT_TOLD: Final = (UNSEEN,) * len(StepTimes._fields[1:])


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
        self._next_step = 0

    def fullest(self) -> float:
        """Share of the fullest worker's slot that waits to be drained."""
        return max((watch.ring.fullest() for watch in list(self.watches)), default=0.0)

    def gather(self, steps: dict[int, StepRow], taken: int, last: bool) -> dict[str, Columns]:
        """Drain every ring and turn what is complete into columns; `last` takes the incomplete too.

        `taken` was read before the call: what those steps took is in the rings by now.
        """
        drained = Drained()
        for watch in list(self.watches):
            gone = watch.gone or last
            for slot in range(watch.ring.slots):
                drained.add(watch, slot)
            if gone:
                self.watches.remove(watch)
                self.dropped += watch.ring.dropped()
                watch.ring.close()
        tables = drained.tables()
        for name, wall_ns in drained.stage_wall_ns.items():
            self.stage_wall_ns[name] = self.stage_wall_ns.get(name, 0) + wall_ns
        tables["steps"] = self._steps(steps, taken, last)
        self._drop_old_epochs(steps)
        return tables

    def _steps(self, steps: dict[int, StepRow], taken: int, last: bool) -> Columns:
        ready: list[tuple[int, ...]] = []
        while self._next_step < taken:
            row = steps[self._next_step]
            if not (row.complete or last or taken - self._next_step > HELD_AT_MOST):
                break
            del steps[self._next_step]
            self._next_step += 1
            ready.append(self._resolved(row))
        return _step_columns(np.array(ready, np.int64)) if ready else {}

    def _resolved(self, row: StepRow) -> tuple[int, ...]:
        """In the order of `_STEP_COLUMNS`."""
        made = _batch_of(row)
        samples, finish_ns = UNSEEN, 0
        if made is not None:
            row.seq, samples, finish_ns = made
            self.samples += samples
        told = _NOT_TOLD if row.device is None else map(_or_unseen, row.device[1:])
        # Only a batch that was waited for was seen to arrive; one that lay in the queue was not.
        waited = finish_ns > row.request_ns
        return (
            row.step, row.watch.loader_number, row.epoch, row.seq, row.warmup, samples,
            row.request_ns, row.take_ns if waited else UNSEEN, row.take_ns, _or_unseen(row.launch_ns),
            *told, _or_unseen(row.ready),
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


def _or_unseen(value: int | None) -> int:
    return UNSEEN if value is None else value


def _step_columns(steps: npt.NDArray[np.int64]) -> Columns:
    """`UNSEEN` as null. Columns at once: a list for each would cost more than all else that a step costs."""
    kinds = TABLES["steps"]
    return {
        name: nullable(column, column != UNSEEN, kinds.field(name).type)
        for name, column in zip(_STEP_COLUMNS, steps.T, strict=True)
    }


def _batch_of(row: StepRow) -> Made | None:
    """The batch that a step took: the one that it was told, or the next in order."""
    finished = row.watch.finished.get(row.epoch)
    if finished is None:
        return None
    return finished.take_first() if row.key is None else finished.take(row.seq)


class Drained:
    """What the rings held: the records of all slots in one array, because each call of numpy or Arrow costs
    more than the few records that a slot has."""

    def __init__(self) -> None:
        self._records: list[Records] = []
        self._places: list[tuple[int, int, int]] = []
        """Of each slot: loader, worker, and where its names begin in `_name_numbers`."""
        self._names: dict[str, int] = {}
        self._name_numbers: list[int] = []
        self._shards: dict[str, int] = {}
        self._shard_numbers: list[int] = []
        """Of each batch, -1 where none is known."""
        self.stage_wall_ns: dict[str, int] = {}

    def add(self, watch: IteratorWatch, slot: int) -> None:
        """Drain one slot."""
        records = watch.ring.drain(slot)
        if len(records) == 0:
            return
        worker = slot if watch.workers else MAIN_PROCESS
        self._records.append(records)
        self._places.append((watch.loader_number, worker, len(self._name_numbers)))
        self._name_numbers += [
            self._names.setdefault(name, len(self._names)) for name in watch.ring.names(slot)
        ]
        batches = records[records["kind"] == Kind.BATCH]
        _note_finished(watch, batches)
        told = watch.ring.shards(slot, records)
        if told:
            self._shard_numbers += [self._shard_number(told.get(one)) for one in batches["name"].tolist()]
        else:
            self._shard_numbers += [-1] * len(batches)

    def _shard_number(self, name: str | None) -> int:
        return -1 if name is None else self._shards.setdefault(name, len(self._shards))

    def tables(self) -> dict[str, Columns]:
        """Columns of `batches`, `stages` and `spans`; none where there were no records."""
        if not self._records:
            return {"batches": {}, "stages": {}, "spans": {}}
        records, loader, worker, name = self._joined()
        tables: dict[str, Columns] = {}
        for table, kind, words in _TABLES:
            at = np.flatnonzero(records["kind"] == kind)
            if len(at) == 0:
                tables[table] = {}
                continue
            some = records[at]
            tables[table] = columns = {"loader": loader[at], **_columns(some, words)}
            if kind == Kind.STAGE:
                columns |= {"scope": np.zeros(len(at), np.int8), "count": some["aux"]}
            else:
                columns["worker"] = worker[at]
            if kind == Kind.BATCH:
                columns["samples"] = nullable(some["aux"], some["c"] != UNSEEN)  # one that raised has none
                if self._shards:
                    columns["shard"] = named(np.array(self._shard_numbers, np.int32), list(self._shards))
                continue
            columns["stage"] = named(name[at], list(self._names))
            if kind == Kind.STAGE:
                sums = np.bincount(name[at], weights=some["a"], minlength=len(self._names)).tolist()
                self.stage_wall_ns = {name: int(ns) for name, ns in zip(self._names, sums, strict=True) if ns}
        return tables

    def _joined(self) -> tuple[Records, Ints, Ints, Ints]:
        """All records with the loader, the worker and the name of each; stages that travelled in a batch's
        record have one of their own."""
        lengths = [len(part) for part in self._records]
        records = np.concatenate(self._records)
        loader, worker, first_name = (np.repeat(each, lengths) for each in zip(*self._places, strict=True))
        stages = (records["kind"] == Kind.STAGE) | (records["kind"] == Kind.SPAN)
        name = np.zeros(len(records), np.int32)
        name[stages] = np.array(self._name_numbers, np.int32)[(first_name + records["name"])[stages]]
        parts = [(records, loader, worker, name)]
        for word, stage in _INLINE:
            at = np.flatnonzero((records["kind"] == Kind.BATCH) & (records[word] != UNSEEN))
            number = np.full(len(at), self._names.setdefault(stage, len(self._names)), np.int32)
            parts.append((_stage_records(records[at], word), loader[at], worker[at], number))
        return tuple(np.concatenate(each) for each in zip(*parts, strict=True))  # type: ignore[return-value]


_TABLES: Final = (
    ("batches", Kind.BATCH, _BATCH_WORDS),
    ("stages", Kind.STAGE, _STAGE_WORDS),
    ("spans", Kind.SPAN, _SPAN_WORDS),
)
_INLINE: Final = (("l", GETITEM), ("m", COLLATE))
"""Words of a batch's record that stand for a record of a stage."""


def _stage_records(batches: Records, word: str) -> Records:
    """Records of the stage whose wall time is in `word`; only the clock was read in these batches."""
    records = np.full(len(batches), UNSEEN, RECORD_DTYPE)
    records["kind"] = Kind.STAGE
    records["epoch"], records["seq"], records["a"] = batches["epoch"], batches["seq"], batches[word]
    records["aux"] = 1 if word == "m" else batches["aux"]
    return records


def _columns(records: Records, words: dict[str, str]) -> Columns:
    """The key's columns and those of `words`, `UNSEEN` as null."""
    columns: Columns = {"epoch": records["epoch"], "seq": records["seq"]}
    for name, word in words.items():
        values = records[word]
        columns[name] = nullable(values, values != UNSEEN)
    return columns


def _note_finished(watch: IteratorWatch, batches: Records) -> None:
    done = batches[batches["c"] != UNSEEN]
    columns = (done[name].tolist() for name in ("epoch", "seq", "aux", "c"))
    for epoch, *made in zip(*columns, strict=True):
        if epoch not in watch.finished:
            watch.finished[epoch] = Finished()
        watch.finished[epoch].add(*made)


def loop_stages(done: list[tuple[StepRow, dict[str, Totals]]]) -> Columns:
    """Rows of what the user marked in the loop: scope 1, of the batch that was taken before."""
    rows = [
        (row.watch.loader_number, row.epoch, row.seq, 1, name, t.wall_ns, t.count)
        for row, totals in done
        for name, t in totals.items()
    ]
    names = ("loader", "epoch", "seq", "scope", "stage", "wall_ns", "count")
    return by_name(rows, names)
