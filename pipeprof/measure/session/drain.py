"""Turns the records that workers have put into their rings into rows, in bulk, in the flush thread."""

from __future__ import annotations

from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from pipeprof.measure.probe.counting.files_read import files_in
from pipeprof.measure.probe.layout import ANY_RECORD, BATCH, COLLATE_NS, GETITEM_NS, SPAN, STAGE, Kind, Layout
from pipeprof.measure.probe.ring import Ring
from pipeprof.measure.probe.spans import COLLATE, GETITEM
from pipeprof.measure.session.hang import Waiting
from pipeprof.measure.session.lines.drain import AideReader, Row, counter_rows
from pipeprof.measure.session.steps.finished import Finished
from pipeprof.record.columns import named, nullable
from pipeprof.record.meta import ReadFileMeta
from pipeprof.record.schema import MAIN_PROCESS, MISSING, TABLES

Columns = dict[str, Any]
Records = npt.NDArray[Any]
Ints = npt.NDArray[Any]


class RingSource(Protocol):
    """An iterator whose workers record."""

    loader_number: int
    workers: int
    ring: Ring
    aides: AideReader | None
    """Reader of the workers' aides; None if lines are not sampled."""
    gone: bool
    """True if nothing more will be recorded."""
    epoch: int
    private_bytes: dict[int, int]
    """By worker, the memory that it had to itself at the last look."""
    finished: dict[int, Finished]
    """By epoch, the batches that were finished and are not yet known to be taken."""

    def file_of(self, index: int) -> str | None:
        """Return the path of a sample's file, if its data set keeps a list of them."""
        ...

    def sort_inbox(self) -> None:
        """Take the handovers that have come in."""
        ...

    def forget_handovers_before(self, epoch: int) -> None:
        """Forget batches that were never taken."""
        ...

    def waiting(self) -> Waiting | None:
        """Return how its loop waits now; None if it does not."""
        ...

    @property
    def is_waited_for(self) -> bool:
        """Return True while its loop waits for a batch."""
        ...

    def busy_threads(self) -> list[tuple[int, int]]:
        """Return worker number and thread of each worker that makes a batch now."""
        ...

    def threads(self) -> list[int]:
        """Return the thread of each worker."""
        ...

    def record_lost_workers(self) -> None:
        """Record once each worker that ended by itself."""
        ...

    def record_losses(self) -> None:
        """Record the first batch that each worker could not make or hand over."""
        ...

    def close(self) -> None:
        """Release the rings."""
        ...

    def let_go(self) -> None:
        """Record nothing more, in a forked child."""
        ...


class Drained:
    """Records of all slots in one array, because a call of numpy costs more than a slot's few records."""

    def __init__(self) -> None:
        self._records: list[Records] = []
        self._places: list[tuple[int, int, int]] = []
        """Place of each slot: loader, worker, and the index at which its names begin in `_name_numbers`."""
        self._names: dict[str, int] = {}
        self._name_numbers: list[int] = []
        self._shards: dict[str, int] = {}
        self._shard_numbers: list[int] = []
        """Shard number of each batch, -1 if none is known."""
        self.counters: list[Row] = []
        """Rows of `counters`."""
        self.files: list[ReadFileMeta] = []
        """Files that were opened."""
        self.slow: list[tuple[RingSource, int, int]] = []
        """The slowest sample of each slot: its source, its index in the data set, and the ns that it took."""
        self.stage_wall_ns: dict[str, int] = {}

    def add(self, source: RingSource) -> None:
        """Drain all slots of a ring."""
        for slot in range(source.ring.slots):
            records = source.ring.drain(slot)
            if len(records):
                self._add(source, slot, records)

    def _add(self, source: RingSource, slot: int, records: Records) -> None:
        worker = slot if source.workers else MAIN_PROCESS
        self._records.append(records)
        self._places.append((source.loader_number, worker, len(self._name_numbers)))
        self._name_numbers += [
            self._names.setdefault(name, len(self._names)) for name in source.ring.names(slot)
        ]
        self.files += files_in(records)
        self.counters += counter_rows(records, source.loader_number, worker, source.ring.names(slot))
        batches = records[records["kind"] == Kind.BATCH].view(BATCH.dtype)
        _add_finished(source.finished, batches)
        if len(batches):
            slowest = batches[np.argmax(batches["slowest_ns"])]
            if MISSING not in (slowest["slowest_ns"], slowest["slowest_index"]):
                self.slow.append((source, int(slowest["slowest_index"]), int(slowest["slowest_ns"])))
        shards = source.ring.shards(slot, records)
        if shards:
            self._shard_numbers += [self._shard_number(shards.get(n)) for n in batches["name"].tolist()]
        else:
            self._shard_numbers += [-1] * len(batches)

    def _shard_number(self, name: str | None) -> int:
        return -1 if name is None else self._shards.setdefault(name, len(self._shards))

    def tables(self) -> dict[str, Columns]:
        """Return columns of `batches`, `stages` and `spans`; none if there were no records."""
        if not self._records:
            return {"batches": {}, "stages": {}, "spans": {}}
        records, loader, worker, name = self._joined()
        tables: dict[str, Columns] = {}
        for table, layout in _TABLES.items():
            at = np.flatnonzero(records["kind"] == layout.kind)
            if len(at) == 0:
                tables[table] = {}
                continue
            tables[table] = columns = {"loader": loader[at], **_columns(table, layout, records[at])}
            if layout is not STAGE:
                columns["worker"] = worker[at]
            if layout is not BATCH:
                columns["stage"] = named(name[at], list(self._names))
            elif self._shards:
                columns["shard"] = named(np.array(self._shard_numbers, np.int32), list(self._shards))
        return tables

    def _joined(self) -> tuple[Records, Ints, Ints, Ints]:
        """Return all records, and loader, worker and number of the name of each.

        Stages that travelled in a batch's record have one of their own.
        """
        lengths = [len(part) for part in self._records]
        records = np.concatenate(self._records)
        loader, worker, first_name = (np.repeat(each, lengths) for each in zip(*self._places, strict=True))
        stages = (records["kind"] == Kind.STAGE) | (records["kind"] == Kind.SPAN)
        name = np.zeros(len(records), np.int32)
        name[stages] = np.array(self._name_numbers, np.int32)[(first_name + records["name"])[stages]]
        parts = [(records, loader, worker, name)]
        for figure, stage in _INLINE.items():
            at = np.flatnonzero(
                (records["kind"] == Kind.BATCH) & (records.view(BATCH.dtype)[figure] != MISSING)
            )
            number = np.full(len(at), self._names.setdefault(stage, len(self._names)), np.int32)
            inline = _stage_records(records[at].view(BATCH.dtype), figure)
            parts.append((inline, loader[at], worker[at], number))
        joined: tuple[Records, Ints, Ints, Ints]
        joined = tuple(np.concatenate(each) for each in zip(*parts, strict=True))  # type: ignore[assignment]
        self._add_stage_times(joined[0], joined[3])
        return joined

    def _add_stage_times(self, records: Records, name: Ints) -> None:
        at = np.flatnonzero(records["kind"] == Kind.STAGE)
        wall_ns = records[at].view(STAGE.dtype)["wall_ns"]
        sums = np.bincount(name[at], weights=wall_ns, minlength=len(self._names)).tolist()
        self.stage_wall_ns = {name: int(ns) for name, ns in zip(self._names, sums, strict=True) if ns}


_TABLES: Final = {"batches": BATCH, "stages": STAGE, "spans": SPAN}
_INLINE: Final = {GETITEM_NS: GETITEM, COLLATE_NS: COLLATE}
"""Figures of a batch's record that stand for a record of a stage."""


def _stage_records(batches: Records, figure: str) -> Records:
    """Return the records of the stage with wall time `figure`; only the clock was read in these batches."""
    records = np.full(len(batches), MISSING, STAGE.dtype)
    records["kind"] = Kind.STAGE
    records["epoch"], records["seq"], records["wall_ns"] = batches["epoch"], batches["seq"], batches[figure]
    records["count"] = 1 if figure == COLLATE_NS else batches["samples"]
    return records.view(ANY_RECORD)


def _columns(table: str, layout: Layout, records: Records) -> Columns:
    """Return the key's columns and those of the figures of `records`, `MISSING` as null."""
    figures, schema = records.view(layout.dtype), TABLES[table]
    columns: Columns = {"epoch": records["epoch"], "seq": records["seq"]}
    for name in layout.figures:
        if name not in _INLINE:
            columns[name] = nullable(figures[name], figures[name] != MISSING, schema.field(name).type)
    if layout is STAGE:
        columns["scope"] = np.zeros(len(records), np.int8)
    return columns


def _add_finished(finished: dict[int, Finished], batches: Records) -> None:
    done = batches[batches["finish_ns"] != MISSING]
    columns = (done[name].tolist() for name in ("epoch", "seq", "samples", "finish_ns"))
    for epoch, *made in zip(*columns, strict=True):
        if epoch not in finished:
            finished[epoch] = Finished()
        finished[epoch].add(*made)
