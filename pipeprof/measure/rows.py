"""From drained records and taken steps to rows of the trace. Runs in the flush thread, in bulk."""

from __future__ import annotations

import heapq
from collections import defaultdict
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from pipeprof.measure.accelerator import StepTimes
from pipeprof.measure.counters import UNSEEN
from pipeprof.measure.ring import Kind, Ring
from pipeprof.trace import MAIN_PROCESS

Columns = dict[str, Any]
_EXTRA: Final = ("device_bytes", "helper_cpu_ns", "bytes", "slowest_index", "slowest_ns", "major_faults")


class Drainable(Protocol):
    """An iterator's ring, and whose it is."""

    ring: Ring
    loader_number: int
    workers: int
    gone: bool


class StepRow:
    """A step of the loop, until all that will be known of it is known."""

    __slots__ = (
        "complete", "device", "epoch", "key", "launch_ns", "loader", "order", "ready", "request_ns",
        "step", "take_ns", "warmup",
    )  # fmt: skip

    def __init__(
        self, step: int, loader: int, epoch: int, order: int, key: tuple[int, int, int] | None,
        warmup: bool, request_ns: int, take_ns: int, ready: int | None,
    ) -> None:  # fmt: skip
        self.step, self.loader, self.epoch, self.order, self.key = step, loader, epoch, order, key
        self.warmup, self.request_ns, self.take_ns, self.ready = warmup, request_ns, take_ns, ready
        self.launch_ns: int | None = None
        self.device: StepTimes | None = None
        self.complete = False


class Gatherer:
    """Joins what the workers and the loop have recorded."""

    def __init__(self) -> None:
        self.watches: list[Drainable] = []
        self.samples = 0
        self._finished: dict[tuple[int, int], list[tuple[int, int, int]]] = defaultdict(list)
        self._next_step = 0

    def fullest(self) -> float:
        """Share of the fullest worker's slot that waits to be drained."""
        return max((watch.ring.fullest() for watch in list(self.watches)), default=0.0)

    def gather(self, steps: dict[int, StepRow], taken: int, last: bool) -> dict[str, Columns]:
        """Drain every ring and turn what is complete into columns; `last` takes the incomplete too."""
        parts: dict[str, list[Columns]] = {"batches": [], "stages": [], "spans": []}
        for watch in list(self.watches):
            gone = watch.gone
            for slot in range(watch.ring.slots):
                self._drain(watch, slot, parts)
            if gone:
                self.watches.remove(watch)
                watch.ring.close()
        tables = {name: _joined(columns) for name, columns in parts.items()}
        tables["steps"] = self._steps(steps, taken, last)
        return tables

    def _drain(self, watch: Drainable, slot: int, parts: dict[str, list[Columns]]) -> None:
        drained = watch.ring.drain(slot)
        records = drained.records
        if len(records) == 0:
            return
        worker = slot if watch.workers else MAIN_PROCESS
        batches = records[records["kind"] == Kind.BATCH]
        counters = records[records["kind"] == Kind.COUNTERS]
        stages = records[records["kind"] == Kind.STAGE]
        spans = records[records["kind"] == Kind.SPAN]
        names = np.array([*drained.names, "?"], dtype=object)
        parts["batches"].append(_batches(batches, counters, watch.loader_number, worker))
        if len(stages):
            parts["stages"].append(_stages(stages, watch.loader_number, names))
        if len(spans):
            parts["spans"].append(_spans(spans, watch.loader_number, worker, names))
        self._note_finished(watch.loader_number, batches)

    def _note_finished(self, loader: int, batches: npt.NDArray[Any]) -> None:
        done = batches[batches["c"] != UNSEEN]
        for epoch, seq, samples, finish in zip(
            done["epoch"].tolist(),
            done["seq"].tolist(),
            done["aux"].tolist(),
            done["c"].tolist(),
            strict=True,
        ):
            heapq.heappush(self._finished[loader, epoch], (seq, samples, finish))

    def _steps(self, steps: dict[int, StepRow], taken: int, last: bool) -> Columns:
        ready: list[tuple[Any, ...]] = []
        while self._next_step < taken:
            row = steps.get(self._next_step)
            if row is None or not (row.complete or last):
                break
            del steps[self._next_step]
            self._next_step += 1
            ready.append(self._resolved(row))
        if not ready:
            return {}
        return dict(zip(_STEP_COLUMNS, zip(*ready, strict=True), strict=True))

    def _resolved(self, row: StepRow) -> tuple[Any, ...]:
        seq, samples, finish = self._batch_of(row)
        self.samples += samples or 0
        told = row.device or StepTimes(row.step)
        # Only a batch that was waited for was seen to arrive; one that lay in the queue was not.
        arrival = row.take_ns if finish is not None and finish > row.request_ns else None
        return (
            row.step, row.loader, row.epoch, seq, row.warmup, samples,
            row.request_ns, arrival, row.take_ns, row.launch_ns,
            told.copy_start_ns, told.copy_end_ns, told.compute_start_ns, told.compute_end_ns,
            told.device_wait_ns, row.ready,
        )  # fmt: skip

    def _batch_of(self, row: StepRow) -> tuple[int, int | None, int | None]:
        """seq, samples and finish_ns of the batch that a step took.

        In order, the k-th batch taken is the k-th of those that were finished, by seq.
        """
        finished = self._finished.get((row.loader, row.epoch))
        if not finished:
            return row.order, None, None
        if row.key is not None:
            wanted = row.key[2]
            for i, (seq, samples, finish) in enumerate(finished):
                if seq == wanted:
                    del finished[i]
                    heapq.heapify(finished)
                    return seq, samples, finish
            return wanted, None, None
        return heapq.heappop(finished)

    def close(self) -> None:
        """Let go of the rings."""
        for watch in self.watches:
            watch.ring.close()
        self.watches.clear()


_STEP_COLUMNS: Final = (
    "step", "loader", "epoch", "seq", "warmup", "samples", "request_ns", "arrival_ns", "take_ns",
    "launch_ns", "copy_start_ns", "copy_end_ns", "compute_start_ns", "compute_end_ns", "device_wait_ns",
    "ready_batches",
)  # fmt: skip


def _batches(batches: npt.NDArray[Any], counters: npt.NDArray[Any], loader: int, worker: int) -> Columns:
    n = len(batches)
    columns: Columns = {
        "loader": np.full(n, loader),
        "epoch": batches["epoch"],
        "seq": batches["seq"],
        "worker": np.full(n, worker),
        "samples": batches["aux"],
        "dispatch_ns": _seen(batches["a"]),
        "start_ns": batches["b"],
        "finish_ns": _seen(batches["c"]),
        "cpu_ns": _seen(batches["d"]),
        "runq_ns": _seen(batches["e"]),
    }
    # Each batch's counters come right before it; a drain may fall between the two.
    paired = len(counters) == n and bool((counters["seq"] == batches["seq"]).all())
    for name, word in zip(_EXTRA, ("a", "b", "c", "d", "e", "aux"), strict=True):
        columns[name] = _seen(counters[word].astype(np.int64)) if paired else np.ma.masked_all(n, np.int64)
    return columns


def _stages(records: npt.NDArray[Any], loader: int, names: npt.NDArray[Any]) -> Columns:
    return {
        "loader": np.full(len(records), loader),
        "epoch": records["epoch"],
        "seq": records["seq"],
        "scope": records["flag"],
        "stage": names[np.minimum(records["name"], len(names) - 1)],
        "wall_ns": records["a"],
        "cpu_ns": _seen(records["b"]),
        "runq_ns": _seen(records["c"]),
        "queue_ns": _seen(records["d"]),
        "bytes": _seen(records["e"]),
        "count": records["aux"],
    }


def _spans(records: npt.NDArray[Any], loader: int, worker: int, names: npt.NDArray[Any]) -> Columns:
    return {
        "loader": np.full(len(records), loader),
        "epoch": records["epoch"],
        "seq": records["seq"],
        "worker": np.full(len(records), worker),
        "stage": names[np.minimum(records["name"], len(names) - 1)],
        "sample": _seen(records["e"]),
        "start_ns": records["a"],
        "wall_ns": records["b"],
        "cpu_ns": _seen(records["c"]),
        "bytes": _seen(records["d"]),
    }


def _seen(values: npt.NDArray[Any]) -> np.ma.MaskedArray[Any, Any]:
    """The values with `UNSEEN` masked, which Arrow writes as null."""
    return np.ma.masked_equal(values, UNSEEN)


def _joined(parts: list[Columns]) -> Columns:
    if not parts:
        return {}
    if len(parts) == 1:
        return parts[0]
    return {name: np.ma.concatenate([part[name] for part in parts]) for name in parts[0]}
